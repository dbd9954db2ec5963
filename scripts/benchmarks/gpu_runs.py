"""What the contestants on a GPU run, and how it is measured: the clock, the memory, and whether steps were graphs."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks import lightning_loop
from benchmarks.bare import Loop, Problem, cosine, cross_entropy
from benchmarks.optexp_loop import LOG_EVERY, NEVER, Observer, Source, _sinks, scratch
from optexp.engine.fused import FusedRuns
from optexp.engine.graphs import CapturedSteps
from optexp.engine.loop import Member, train
from optexp.engine.runtime import Interruption
from optexp.engine.single import SingleRun
from optexp.fuse import fuse
from optexp.instruments.look import Look
from optexp.records.console import Console

WARM_UP = 30  # steps: compilation, cuDNN's search for the fastest kernels, the capture of graphs
STEPS_ONLY = (f"engine.eval_every={NEVER}", "engine.checkpoint_every=null")


class Clock:
    """The seconds that steps `start` to `stop` (from 0) took, of anything that tells it of every step, or of these two.

    It waits for the device at both ends, so that what is timed is exactly these steps, done and not only asked for.
    When a row of metrics was recorded is no clock on a GPU: optexp records it as soon as it has arrived, which is at
    once or one logging interval later. Here the rows of one interval at most may fall out of the window or into it,
    and never a step.
    """

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.seconds = 0.0  # of all windows so far: several loops may run one after another
        self._began = 0.0
        self._in_use = 0
        self.forget_memory()

    def tick(self, step: int) -> None:
        """Note that `step` steps have been asked for, and no more."""
        if step == self.start or step == self.stop:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            if step == self.stop:
                self.seconds += now - self._began
            self._began = now

    def forget_memory(self) -> None:
        """Count the memory that is taken from here on."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._in_use = torch.cuda.memory_allocated()

    def memory(self) -> dict[str, float]:
        """Return the largest amount of memory that tensors have taken since (10^6 bytes); nothing without a GPU."""
        if not torch.cuda.is_available():
            return {}
        return {"peak GPU MB": (torch.cuda.max_memory_allocated() - self._in_use) / 1e6}


def total_steps(steps: int) -> int:
    """Return for how long to train when `steps` are timed: optexp evaluates at the end, when the clock has stopped."""
    return WARM_UP + steps + LOG_EVERY


def timed(run: Callable[[Clock], Any], steps: int) -> tuple[float, dict[str, float]]:
    """Return the seconds of `steps` steps after those of the warm-up, and what memory the whole run took.

    cuDNN searches for its fastest kernels, as in a run of optexp (engine/runtime.py) and in airbench.
    """
    clock = Clock(WARM_UP, WARM_UP + steps)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        run(clock)
    return clock.seconds, clock.memory()


# ---- optexp


@dataclass(frozen=True)
class Driven:
    """What was seen of a training: the steps at which losses were logged, each the mean since the one before."""

    logged: Sequence[int]
    losses: Sequence[float]
    asked_for_graphs: bool
    eager: str | None  # why steps were not CUDA graphs from the start of the clock on; None when they were


def drive(source: Source, clock: Clock, members: int = 1) -> Driven:
    """Train `members` runs as one program, each with the records of a default run; the clock stops before the end."""
    trainings = source.group(members)
    first, observer = trainings[0], Observer()
    program: SingleRun | FusedRuns = first.program if members == 1 else fuse(trainings)
    step, reasons = program.step, []

    def ticking(done: int, learning_rates: Sequence[float], look: Look) -> Sequence[int]:
        if done == clock.start:
            reasons.append(why_eager(program))
        clock.tick(done)
        return step(done, learning_rates, look)

    program.step = ticking  # type: ignore[method-assign, assignment]
    with scratch() as folder:
        group = []
        for number, training in enumerate(trainings):
            own = folder / str(number)
            own.mkdir()
            group.append(Member(training.schedule, training.base_lr, _sinks(training, own), None))
        if members == 1:
            group[0].sinks = [*group[0].sinks, Console(first.plan.total_steps, "bench")]
        group[0].sinks = [*group[0].sinks, observer]
        train(program, group, first.plan, first.validation, Interruption())
        for sink in (sink for member in group for sink in member.sinks):
            sink.close({"status": "completed", "reason": None})
    return Driven(list(observer.seconds), observer.losses, first.captured, reasons[0])


def why_eager(program: SingleRun | FusedRuns) -> str | None:
    """Return why steps are taken as they are written, or None when those to come are graphs, observed ones too."""
    take = program.take
    if not isinstance(take, CapturedSteps):
        return program.why_not_captured or "this run does not ask for graphs"
    captured = take._captured
    if take.refused is None and not (Look.NOTHING in captured and any(look.accuracy for look in captured)):
        return "they are not captured yet"
    return take.refused


def require_graphs(device: torch.device, name: str, eager: str | None) -> None:
    """Raise AssertionError when steps on a GPU were not graphs: eager ones must not be taken for them."""
    if device.type == "cuda" and eager is not None:
        raise AssertionError(f"the steps of '{name}' were not CUDA graphs: {eager}")


# ---- its peers


def run_bare(make: Callable[[Problem], Loop], source: Source, clock: Clock, loops: int = 1) -> None:
    """Train a bare loop, or several anew one after another."""
    for _ in range(loops):
        _run_bare(make(source.problem()), clock)


def _run_bare(loop: Loop, clock: Clock) -> None:
    batches = loop.batches()
    loop.train(batches, 0, clock.start)
    clock.tick(clock.start)
    loop.train(batches, clock.start, clock.stop)
    clock.tick(clock.stop)


def run_lightning(source: Source, precision: str, clock: Clock) -> None:
    """Train with Lightning and a DataLoader, in one of Lightning's precisions ("bf16-mixed")."""
    problem = source.problem()
    clock.forget_memory()  # the problem has the data on the device, the loader has a copy of its own on the host
    # The forward pass of a step begins when all steps before it were asked for; the loader has its batch then.
    calls = itertools.count()
    problem.model.register_forward_pre_hook(lambda module, inputs: clock.tick(next(calls)))
    fit_lightning(problem, precision, clock.stop + 1)


def fit_lightning(problem: Problem, precision: str, steps: int, rows: Sequence[Tensor] | None = None) -> Sequence[Any]:
    """Take steps in one of Lightning's precisions; return their losses."""
    # Lightning reads arguments of its Trainer that are not given from variables of this form.
    with scratch() as folder, patch.dict(os.environ, PL_TRAINER_PRECISION=precision):
        losses: Sequence[Any] = lightning_loop.fit(problem, steps, folder, rows)[1]
    return losses


class ResidentLoop(Loop):
    """bf16 autocast, channels_last images kept in bf16, fused updates, optionally compiled; nothing is ever read."""

    def __init__(self, problem: Problem, compiled: bool = False) -> None:
        super().__init__(problem, tuned=True)
        if self.inputs.is_floating_point():
            self.inputs = self.inputs.to(torch.bfloat16)
        self.forward = torch.compile(self.model) if compiled else self.model

    def train(self, batches: object, start: int, stop: int) -> list[Tensor]:
        problem, optimizer, parameters = self.problem, self.optimizer, list(self.model.parameters())
        device_type = self.inputs.device.type
        losses = []
        self.model.train()
        for step, (inputs, targets) in zip(range(start, stop), batches, strict=False):  # type: ignore[call-overload]
            for group in optimizer.param_groups:
                group["lr"] = problem.arguments["lr"] * cosine(step, problem.total_steps)
            with torch.autocast(device_type, dtype=torch.bfloat16):
                loss = cross_entropy(self.forward(inputs), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if problem.clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, problem.clip_norm)
            optimizer.step()
            losses.append(loss.detach())
        return losses
