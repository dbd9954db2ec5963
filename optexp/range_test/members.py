"""Copies of a run that differ in their seeds, trained in one program where that is possible and one by one elsewhere.

Nothing of the run itself is touched: every copy has weights, an optimizer and an order of the data of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from optexp import streams
from optexp.assemble import Training, assemble, sibling
from optexp.config.schema import Engine
from optexp.engine.fused import FusedRuns
from optexp.engine.runtime import prepare
from optexp.engine.single import SingleRun
from optexp.errors import BadInput, Unstackable
from optexp.fuse import fuse, unfusable
from optexp.range_test.lr_effect import refuse_ignored_lr

Program = SingleRun | FusedRuns
T = TypeVar("T")


def template(config: dict[str, Any], engine: Engine, choices: Mapping[str, str | None]) -> Training:
    """Assemble the run that the copies are made of; it is never trained.

    Raises BadInput as `assemble` does, and for an optimizer that does not read the learning rate of every step.
    """
    run = assemble(config, engine, choices)
    refuse_ignored_lr(run.optimizer, choices.get("optimizer"))
    return run


def seeds_for(seed: int, purpose: str, number: int) -> list[int]:
    """Return seeds that no run has that a user numbers: what is tried on them must not be judged on them."""
    return [streams.key(seed, purpose, index) for index in range(number)]


def copy_of(run: Training, seed: int) -> Training:
    """Return the run with another seed: fresh weights (but for engine.init_from), optimizer and order of the data."""
    return sibling(run, {**run.config, "seed": seed}, run.engine, run.choices)


def train_copies(
    run: Training,
    seeds: Sequence[int],
    work: Callable[[Program, Sequence[int]], list[T]],
    fused: bool | None = None,
) -> tuple[list[T], str | None]:
    """Have `work` done with one program of all seeds, or with one program after another.

    `work` gets a program and which of the copies are its members, and returns a result for each. `fused` is null
    (together where possible), true or false. Returns the results, and why they were not trained together (None: they
    were). Raises BadInput where `fused` is true and they cannot be. torch's generators are left as they were.
    """
    prepare(run.device, run.engine.threads, run.flops_per_step)
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        reason = _why_not_together(run, len(seeds), fused)
        if reason is None:
            try:
                return work(fuse([copy_of(run, seed) for seed in seeds]), range(len(seeds))), None
            except (Unstackable, RuntimeError) as error:  # no stacked form, not vectorizable, or too little memory
                reason = str(error).strip().splitlines()[0]
        if fused:
            raise BadInput(f"task.fused=true: {reason}; allowed are false and null")
        return [work(copy_of(run, seed).program, [place])[0] for place, seed in enumerate(seeds)], reason


def _why_not_together(run: Training, number: int, fused: bool | None) -> str | None:
    if fused is False:
        return "task.fused=false"
    return "there is one only" if number == 1 else unfusable(run)
