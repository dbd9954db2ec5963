"""Schedules that fall from the base learning rate in one formula: in steps, along a curve, or not at all."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from optexp.schedules.base import Schedule, Timed, Unit, require  # noqa: F401 - inherited fields are looked up here


def _power(gamma: float, exponent: int) -> float:
    """Return gamma ** exponent, infinite where Python raises: a rate that grows without bound is seen to diverge."""
    try:
        return gamma**exponent
    except OverflowError:
        return math.inf


def half_cosine(progress: float, start: float, end: float) -> float:
    """Return half a cosine wave from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The base learning rate throughout."""

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        return base_lr


@dataclass(frozen=True, kw_only=True)
class Step(Timed):
    """Multiply by `gamma` every `step_size` units. As torch's StepLR."""

    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.step_size >= 1, "step_size", self.step_size, "must be at least 1")
        require(0 < self.gamma < math.inf, "gamma", self.gamma, "must be above 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        return base_lr * _power(self.gamma, clock // self.step_size)


@dataclass(frozen=True, kw_only=True)
class MultiStep(Timed):
    """Multiply by `gamma` at each of the `milestones`, in units from the end of warm-up. As torch's MultiStepLR."""

    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        times = list(self.milestones)
        rising = all(earlier < later for earlier, later in pairwise(times))
        require(bool(times) and times[0] >= 1 and rising, "milestones", times, "must be rising times of at least 1")
        require(0 < self.gamma < math.inf, "gamma", self.gamma, "must be above 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        return base_lr * _power(self.gamma, bisect_right(self.milestones, clock))


@dataclass(frozen=True, kw_only=True)
class Exponential(Timed):
    """Multiply by `gamma` at every unit. As torch's ExponentialLR; a `gamma` above 1 makes it rise."""

    gamma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.gamma < math.inf, "gamma", self.gamma, "must be above 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        return base_lr * _power(self.gamma, clock)


@dataclass(frozen=True, kw_only=True)
class Cosine(Timed):
    """Half a cosine wave down to `eta_min` in `T_max` units (None: the rest of the run), and `eta_min` afterwards.

    As torch's CosineAnnealingLR up to T_max; torch's rises again from there. `eta_min` is an absolute learning rate.
    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """

    T_max: int | None = None
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.T_max is None or self.T_max >= 1, "T_max", self.T_max, "must be at least 1, or null")
        require(0 <= self.eta_min < math.inf, "eta_min", self.eta_min, "must be at least 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        return half_cosine(min(clock / (self.T_max or duration), 1.0), base_lr, self.eta_min)


@dataclass(frozen=True, kw_only=True)
class CosineWarmRestarts(Timed):
    """Cosine cycles that start again at the base learning rate: the first of `T_0` units, each `T_mult` times longer.

    As torch's CosineAnnealingWarmRestarts, except that no cycle starts after the last step of the run.
    Source: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """

    T_0: int
    T_mult: int = 1
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.T_0 >= 1, "T_0", self.T_0, "must be at least 1")
        require(self.T_mult >= 1, "T_mult", self.T_mult, "must be at least 1")
        require(0 <= self.eta_min < math.inf, "eta_min", self.eta_min, "must be at least 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        length = self.T_0
        if self.T_mult == 1:
            clock %= length
        while clock >= length:
            clock -= length
            length *= self.T_mult
        return half_cosine(clock / length, base_lr, self.eta_min)


@dataclass(frozen=True, kw_only=True)
class Linear(Timed):
    """A straight line from base_lr · start_factor to base_lr · end_factor in `total_iters` units, constant afterwards.

    `total_iters` None means the rest of the run. As torch's LinearLR, with defaults for a decay instead of a warm-up.
    """

    start_factor: float = 1.0
    end_factor: float = 0.0
    total_iters: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.start_factor <= 1, "start_factor", self.start_factor, "must lie in (0, 1]")
        require(0 <= self.end_factor <= 1, "end_factor", self.end_factor, "must lie in [0, 1]")
        iters = self.total_iters
        require(iters is None or iters >= 1, "total_iters", iters, "must be at least 1, or null")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        progress = min(clock / (self.total_iters or duration), 1.0)
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * progress)


@dataclass(frozen=True, kw_only=True)
class Polynomial(Timed):
    """base_lr · (1 − t / total_iters) ^ power, and 0 from `total_iters` units on (None: the rest of the run).

    As torch's PolynomialLR, with the rest of the run as default. `power` 1 is a straight line.
    """

    total_iters: int | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        iters = self.total_iters
        require(iters is None or iters >= 1, "total_iters", iters, "must be at least 1, or null")
        require(0 < self.power < math.inf, "power", self.power, "must be above 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        progress = min(clock / (self.total_iters or duration), 1.0)
        return float(base_lr * (1 - progress) ** self.power)


@dataclass(frozen=True, kw_only=True)
class InverseSqrt(Schedule):
    """base_lr / sqrt(1 + t / timescale), t in optimizer steps from the end of warm-up.

    `timescale` is in steps; None means the length of the warm-up, 10,000 where there is none. The rate is then
    proportional to 1 / sqrt(step), with its peak at the end of warm-up. Sources: Vaswani et al., "Attention Is All You
    Need", NeurIPS 2017 (section 5.3; their peak is one step later); names and defaults as in the function
    `get_inverse_sqrt_schedule` of Hugging Face's transformers.
    """

    timescale: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        scale = self.timescale
        require(scale is None or scale >= 1, "timescale", scale, "must be at least 1, or null")

    def fitted(self, total_steps: int, warmup: int) -> InverseSqrt:
        return replace(self, timescale=self.timescale or warmup or 10_000)

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        assert self.timescale is not None, "bind fills it in"
        return base_lr / math.sqrt(1 + clock / self.timescale)
