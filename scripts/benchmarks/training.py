"""Milliseconds per step, and seconds per whole run, of optexp's engine and of loops that compute the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks import lightning_loop
from benchmarks.bare import LoaderLoop, Loop, Problem
from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.optexp_loop import LOG_EVERY, NEVER, Source, rows_of, run_engine, scratch
from optexp.run import execute

WARM_UP = 10  # steps before the clock starts
CHECKED = 20  # steps whose losses must agree
TOLERANCE = 1e-4  # relative; float32 rounding differs between memory layouts and between kernels
QUICK_STEPS = 50


@dataclass(frozen=True)
class Case:
    """What is trained (overrides of optexp's defaults), for how many steps, and the smallest ratios that are wanted."""

    name: str
    words: tuple[str, ...]
    steps: int
    goals: Mapping[str, float]
    whole_run: bool = True  # a default run takes less than a few seconds


TRANSFORMER = ("model=transformer", "dataset=pydocs", "optimizer=adamw")
CASES = (
    Case(
        "MLP, AdamW, clip 1.0",
        ("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0"),
        300,
        {"bare": 2.0, "Lightning": 4.0},
    ),
    Case("MLP, SGD", ("model=mlp", "optimizer=sgd"), 300, {"bare": 1.0}),
    Case("ResNet-8, SGD", ("model=resnet", "optimizer=sgd"), 80, {"bare": 1.35, "Lightning": 1.6}),
    Case("Transformer, batch 16", TRANSFORMER, 60, {"bare": 1.1, "Lightning": 1.3}, whole_run=False),
    Case(
        "Transformer, batch 2",
        (*TRANSFORMER, "dataset.batch_size=2"),
        150,
        {"bare": 1.1, "Lightning": 1.3},
        whole_run=False,
    ),
)
RESIDENT: Mapping[str, Callable[[Problem], Loop]] = {
    "bare, .item() each step": partial(Loop, read_loss=True),
    "bare": Loop,
    "bare, tuned": partial(Loop, tuned=True),
}
LOOPS: Mapping[str, Callable[[Problem], Loop]] = {
    **RESIDENT,
    "bare, DataLoader, .item()": partial(LoaderLoop, read_loss=True),
}


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file; a quick look leaves the whole runs out."""
    steps = size.steps or (QUICK_STEPS if size.quick else None)
    chosen = [step_contest(case, steps) for case in CASES]
    return chosen + [run_contest(case) for case in CASES if case.whole_run and not size.quick]


def step_contest(case: Case, steps: int | None = None) -> Contest:
    """Milliseconds per step, with optexp's default logging, without evaluations and checkpoints."""
    steps = steps or case.steps
    # The clock stops one logging interval before the end, because the last row waits for the last evaluation.
    total = WARM_UP + steps + LOG_EVERY
    steps_only = (f"engine.eval_every={NEVER}", "engine.checkpoint_every=null", f"engine.log_every={LOG_EVERY}")
    source = Source([*case.words, *steps_only, f"engine.max_steps={total}"])

    def engine() -> Cost:
        seconds = run_engine(source.training()).seconds
        return Cost(1000 * (seconds[WARM_UP + steps] - seconds[WARM_UP]) / steps)

    def bare(make: Callable[[Problem], Loop]) -> Cost:
        loop = make(source.problem())
        batches = loop.batches()
        loop.train(batches, 0, WARM_UP)
        start = time.perf_counter()
        loop.train(batches, WARM_UP, WARM_UP + steps)
        return Cost(1000 * (time.perf_counter() - start) / steps)

    def lightning() -> Cost:
        with scratch() as folder:
            seconds, _ = lightning_loop.fit(source.problem(), WARM_UP + steps, folder)
        return Cost(1000 * (seconds[WARM_UP + steps - 1] - seconds[WARM_UP - 1]) / steps)

    contestants = [Contestant("optexp", engine)]
    contestants += [Contestant(name, partial(bare, make)) for name, make in LOOPS.items()]
    notes = [lightning_loop.MISSING]
    if lightning_loop.is_installed():
        contestants.append(Contestant(lightning_loop.NAME, lightning))
        notes = []
    return Contest(
        f"step: {case.name}",
        "ms/step",
        contestants,
        goals=case.goals,
        check=partial(largest_difference, case),
        notes=notes,
    )


def run_contest(case: Case) -> Contest:
    """Seconds of a whole default run: evaluation and checkpoints after every epoch, and everything that is recorded."""
    source = Source([*case.words, f"engine.threads={torch.get_num_threads()}"])

    def engine() -> Cost:
        training = source.training()
        with scratch() as folder:
            start = time.perf_counter()
            result = execute(training, folder, ["optexp", *case.words])
            seconds = time.perf_counter() - start
        if result.status != "completed":  # a Ctrl-C during a run interrupts the run, as it should
            raise SystemExit(result.exit_status)
        return Cost(seconds)

    def bare(make: Callable[[Problem], Loop]) -> Cost:
        loop = make(source.problem())
        with scratch() as folder:
            start = time.perf_counter()
            loop.train_and_save(folder)
            return Cost(time.perf_counter() - start)

    contestants = [Contestant("optexp", engine)]
    contestants += [Contestant(name, partial(bare, make)) for name, make in RESIDENT.items()]
    return Contest(f"whole run: {case.name}", "s", contestants)


def largest_difference(case: Case) -> float:
    """Return the largest relative difference between optexp's losses and another contestant's over the first steps.

    All start from the same weights and see the same batches. Raises AssertionError when it is above TOLERANCE.
    """
    source = Source([*case.words, "engine.log_every=1", f"engine.max_steps={CHECKED}", f"engine.eval_every={NEVER}"])
    training = source.training()
    ours = run_engine(training).losses
    rows = rows_of(training, CHECKED)
    differences = []
    for name, make in LOOPS.items():
        loop = make(source.problem())
        differences.append(compared(f"{case.name}: {name}", ours, loop.train(loop.batches(rows), 0, CHECKED)))
    if lightning_loop.is_installed():
        with scratch() as folder:
            _, losses = lightning_loop.fit(source.problem(), CHECKED, folder, rows)
        differences.append(compared(f"{case.name}: {lightning_loop.NAME}", ours, losses))
    return max(differences)


def compared(name: str, ours: Sequence[float], theirs: Sequence[Any], tolerance: float = TOLERANCE) -> float:
    """Return the largest relative difference of two sequences of losses; AssertionError when above `tolerance`."""
    ours_exact = torch.tensor(ours, dtype=torch.float64)
    theirs_exact = torch.tensor([float(loss) for loss in theirs], dtype=torch.float64)
    difference = ((ours_exact - theirs_exact).abs() / theirs_exact.abs()).max().item()
    if not difference <= tolerance:
        raise AssertionError(f"{name}: its losses differ from those of optexp by {difference:.1e} (relative)")
    return difference
