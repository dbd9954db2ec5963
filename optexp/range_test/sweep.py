"""The test itself: training copies of a run while the learning rate rises exponentially from step to step.

Smith, "Cyclical learning rates for training neural networks", 2017 (linear there); the exponential form with a stop on
divergence is that of fastai's `lr_find` and of torch-lr-finder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optexp.assemble import Training
from optexp.range_test.members import Program, train_copies
from optexp.range_test.smoothing import Trailing, decay_per_step

LOOK_EVERY = 25  # steps, where looking at the losses makes the host wait for the device


@dataclass(frozen=True)
class Sweep:
    """How the learning rate rises, how its losses are smoothed, and when a copy ends before the last step.

    `smoothing` is the number of decades of the learning rate over which the weights of the mean fall by a factor of e,
    so that it means the same for any range and number of steps; `beta` is the weight per step that follows from it.
    """

    start_lr: float = 1e-7
    end_lr: float = 10.0
    num_iter: int = 1000
    smoothing: float = 0.2
    stop_factor: float = 4.0

    @property
    def rates(self) -> list[float]:
        """The learning rate of every step: start · (end / start)^(k / (num_iter − 1)), the ends exact."""
        ratio, last = self.end_lr / self.start_lr, self.num_iter - 1
        return [*(self.start_lr * ratio ** (step / last) for step in range(last)), self.end_lr]

    @property
    def steps_per_decade(self) -> float:
        return (self.num_iter - 1) / math.log10(self.end_lr / self.start_lr)

    @property
    def beta(self) -> float:
        return decay_per_step(self.smoothing, self.steps_per_decade)


@dataclass(frozen=True)
class Curve:
    """The losses of one seed, one for each step from the first on, each of the weights before the step's update.

    `ended` says in words why there are fewer than steps, or is None.
    """

    seed: int
    losses: list[float]
    ended: str | None = None


def run_curves(
    run: Training,
    sweep: Sweep,
    seeds: Sequence[int],
    fused: bool | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[list[Curve], str | None]:
    """Return the curve of a fresh copy of the run for each seed, and why they were not trained in one program."""
    overflows_are_cured = run.precision.scaler.is_enabled()  # gradients of fp16, by a smaller loss scale

    def work(program: Program, members: Sequence[int]) -> list[Curve]:
        return _curves(program, [seeds[member] for member in members], sweep, overflows_are_cured, progress)

    return train_copies(run, seeds, work, fused)


def _curves(
    program: Program,
    seeds: Sequence[int],
    sweep: Sweep,
    overflows_are_cured: bool,
    progress: Callable[[int, int], None],
) -> list[Curve]:
    rates = sweep.rates
    followed = [_Followed(sweep) for _ in seeds]
    live = list(followed)
    for step, rate in enumerate(rates):
        program.step(step, [rate] * len(live))
        if not (program.on_host or (step + 1) % LOOK_EVERY == 0 or step + 1 == len(rates)):
            continue
        for losses, norms in _entries(program):
            for one, loss, norm in zip(live, losses, norms, strict=False):  # rows beyond the members are nobody's
                one.add(loss, 0.0 if overflows_are_cured else norm)
        progress(step + 1, len(rates))
        going_on = [place for place, one in enumerate(live) if one.ended is None]
        if not going_on:
            break
        if len(going_on) < len(live):
            program.keep(going_on)
            live = [live[place] for place in going_on]
    return [Curve(seed, one.losses, one.ended) for seed, one in zip(seeds, followed, strict=True)]


def _entries(program: Program) -> list[tuple[list[float], list[float]]]:
    """Return losses and gradient norms [members] of each step since the last look; the only wait for the device."""
    losses, norms = program.log.losses, program.log.norms
    program.log.forget()
    if isinstance(losses[0], list):
        return list(zip(losses, norms, strict=True))
    return [([float(loss)], [float(norm)]) for loss, norm in zip(losses, norms, strict=True)]


class _Followed:
    """One copy on its way. What it does after its end is nobody's, so that it does not matter how often one looks."""

    def __init__(self, sweep: Sweep) -> None:
        self.losses: list[float] = []
        self.ended: str | None = None
        self._factor = sweep.stop_factor
        self._mean = Trailing(sweep.beta)
        self._memory = 1 / (1 - sweep.beta)  # steps: before that the mean is one of a few
        self._lowest = math.inf

    def add(self, loss: float, norm: float) -> None:
        if self.ended is not None:
            return
        step = len(self.losses) + 1
        if not math.isfinite(loss):
            self.ended = f"loss is {loss} at step {step}"
            return
        self.losses.append(loss)
        mean = self._mean.add(loss)
        if not math.isfinite(norm):
            self.ended = f"gradient norm is {norm} at step {step}"
        elif step > self._memory:
            self._lowest = min(self._lowest, mean)
            if mean > self._factor * self._lowest:
                self.ended = f"smoothed loss rose to {self._factor:g} times its lowest value at step {step}"
