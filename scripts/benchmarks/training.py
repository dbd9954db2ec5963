"""Seconds per step, and per whole run, of optexp's engine and of bare loops that compute the same."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare import Loop, Task
from benchmarks.contest import Contest, Contestant

from optexp.assemble import Training
from optexp.config import build
from optexp.config.compose import Composer
from optexp.engine.loop import Member, Row, train
from optexp.engine.runtime import Interruption
from optexp.records.console import Console
from optexp.records.metrics_file import MetricsFile
from optexp.records.run_directory import METRICS_FILE, config_text
from optexp.records.tensorboard import TensorBoard
from optexp.run import execute
from optexp.tasks import prepare

WARM_UP = 10  # steps before the clock starts
CHECKED = 20  # steps whose losses must agree
TOLERANCE = 1e-4  # relative; float32 rounding differs between layouts and kernels


@dataclass(frozen=True)
class Case:
    """What is trained: overrides of optexp's defaults, and how many steps are timed at a time."""

    name: str
    words: tuple[str, ...]
    steps: int


MLP_ADAMW = Case("MLP, AdamW, clip 1.0", ("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0"), 400)
MLP_SGD = Case("MLP, SGD", ("model=mlp", "optimizer=sgd"), 400)
RESNET_SGD = Case("ResNet-8, SGD", ("model=resnet", "optimizer=sgd"), 80)
CASES = (MLP_ADAMW, MLP_SGD, RESNET_SGD)

STEPS_ONLY = ("engine.eval_every=1000000", "engine.checkpoint_every=null")


def step_contest(composer: Composer, case: Case, steps: int | None = None) -> Contest:
    """Milliseconds per step with optexp's default logging, evaluations and checkpoints left out."""
    steps = steps or case.steps
    # One logging interval more at the end, because the last row of a run waits for its evaluation.
    words = (*case.words, *STEPS_ONLY, f"engine.max_steps={WARM_UP + steps + 10}", "engine.log_every=10")
    bare = {
        "bare, .item() each step": {"read_loss": True},
        "bare": {},
        "bare, tuned": {"tuned": True},
    }
    contestants = [Contestant("optexp", lambda: _optexp_step(composer, words, steps))]
    for name, options in bare.items():
        contestants.append(Contestant(name, lambda options=options: _bare_step(composer, words, steps, options)))
    return Contest(
        case.name, "ms/step", contestants, counts="bare", goal=1.0, check=lambda: _check(composer, words, bare.values())
    )
