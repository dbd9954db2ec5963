"""Every prescription for every experiment, optimizer and schedule is a command that optexp takes.

The rows are made up, so that each configuration fails in every way that its settings allow.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from histories import LN10, falling, history

from optexp.config.check import check
from optexp.config.compose import Composer
from optexp.diagnosis.command import repaired_words
from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.history import History
from optexp.records.reading import Run

CONF = Path(__file__).parents[2] / "conf"
WITHOUT_MODEL = {"gpt2_small", "pytorch_optimizer"}  # these need a name, or weights


def flat_loss(step: int) -> float:
    return LN10


def jumping(step: int) -> float:
    return 0.2 if step < 100 else (0.8 if step // 40 % 2 else 0.15)


STORIES: dict[str, dict[str, Any]] = {
    "tiny steps": {"loss": flat_loss, "update": 1e-6},
    "huge steps": {"loss": lambda step: LN10 * (1 + step / 20), "update": 0.9},
    "learned by heart": {"loss": falling(LN10, 0.1), "val": lambda step: 1 + step / 200, "update": 6e-3},
    "jumps at the end": {"loss": jumping, "update": 0.05},
    "tiny steps from early on": {
        "loss": lambda step: max(1.8, LN10 - step / 40),
        "update": lambda step: 1e-3 if step < 40 else 1e-7,
        "lr": lambda step: 0.01 if step < 40 else 1e-6,
    },
    "noise": {
        "loss": lambda step: 2.0,
        "update": 8e-3,
        "every": {"probe/signal": 0.01, "probe/noise": 4.0},
    },
    "gradients of a large size": {"loss": lambda step: LN10 * (1 + step / 20), "gradient": 1e5, "update": 0.01},
    "decay": {"loss": flat_loss, "update": 2e-3, "weight": lambda step: 20 * math.exp(-step / 50), "gradient": 1e-3},
}


@cache
def composer() -> Composer:
    return Composer()


@cache
def composes(words: tuple[str, ...]) -> bool:
    composed = composer().compose(words)
    check(composed.config, composed.choices)
    return True


def commands(folder: Path, words: list[str]) -> set[tuple[str, ...]]:
    """Return the words of every prescription that the stories bring about with these words."""
    config = composer().compose(words).config
    config["optimizer"].setdefault("lr", 0.01)
    found = set()
    for name, story in STORIES.items():
        rows = history(**story).rows
        path = folder / name
        path.mkdir()
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        lines = [json.dumps(row | {"epoch": row["step"] / 40}) for row in rows]
        (path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        info = {
            "status": "completed",
            "total_steps": 200,
            "overrides": words,
            "data": {"batch_size": 1 if name == "noise" else 32, "sizes": {"train": 1000}},
            "baselines": {"class frequencies": LN10},
            "model": {"trainable": 10_000, "parameters": 10_000},
        }
        asked = History.of_run(Run(path, info))
        for finding in diagnose(asked).findings:
            repaired = repaired_words(asked, finding.prescription)
            assert repaired is not None
            if finding.prescription:
                found.add(tuple(repaired))
    return found


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem not in WITHOUT_MODEL)


FEW = [
    *([f"experiment={name}"] for name in names("experiment") if not name.endswith("_fixed")),
    ["schedule=wsd", "schedule.decay_steps=190", "schedule.warmup_steps=150"],
    ["optimizer=adam", "optimizer.eps=1", "optimizer.weight_decay=0.5"],
    ["optimizer.dampening=0.9", "engine.clip_norm=1e-3"],
    ["experiment=exp2_sgd_B32", "schedule=cosine", "schedule.T_max=5", "schedule.eta_min=1e-7"],
]
MORE = [
    *([f"optimizer={name}"] for name in names("optimizer")),
    *([f"schedule={name}"] for name in names("schedule")),
    *([f"schedule={name}", "schedule.warmup_steps=150"] for name in names("schedule")),
    ["optimizer=adagrad", "optimizer.lr_decay=1", "optimizer.initial_accumulator_value=10"],
]


@pytest.mark.parametrize("words", FEW, ids=" ".join)
def test_it_composes(tmp_path: Path, words: list[str]) -> None:
    for command in commands(tmp_path, words):
        assert composes(command), command


@pytest.mark.slow
@pytest.mark.parametrize("words", MORE, ids=" ".join)
def test_it_composes_for_every_optimizer_and_schedule(tmp_path: Path, words: list[str]) -> None:
    for command in commands(tmp_path, words):
        assert composes(command), command
