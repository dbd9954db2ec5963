"""Learning rate schedules as pure functions of the step (plateau: of the step and the validation history).

A schedule is a frozen set of arguments, named as in `torch.optim.lr_scheduler` and equal to it value by value. Binding
it to the length of a run gives the function `lr(step, base_lr, history)`; no schedule has state, so there is nothing to
save, and a resumed run cannot drift from an uninterrupted one.

Where torch can surprise, these do not: warm-up never makes the first step zero, it is counted before the schedule's
own clock starts (as in torch's SequentialLR), and nothing rises again after the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from optexp.errors import BadInput

Unit = Literal["step", "epoch"]

# A clock in epochs divides by a float (samples / batch size); this keeps an epoch that ends exactly on a step whole.
_ROUNDING = 1e-9


def _require(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise BadInput(f"schedule.{key}={value}: {allowed}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What all schedules share: linear warm-up, as a number of optimizer steps or as a fraction of the run.

    For step < W the learning rate is base_lr · (step + 1) / W; afterwards the schedule starts at its own beginning.
    Raises BadInput for values out of range, when both forms of warm-up are set, and (in `bind`) when warm-up does not
    fit into the run.
    """

    warmup_steps: int | None = 0
    warmup_fraction: float | None = None

    def __post_init__(self) -> None:
        steps, fraction = self.warmup_steps, self.warmup_fraction
        _require(steps is None or steps >= 0, "warmup_steps", steps, "must be at least 0")
        _require(fraction is None or 0 <= fraction <= 1, "warmup_fraction", fraction, "must lie in [0, 1]")
        _require(not steps or fraction is None, "warmup_fraction", fraction, f"excludes schedule.warmup_steps={steps}")

    def bind(self, total_steps: int, steps_per_epoch: float) -> BoundSchedule:
        """Fix the length of the run, in optimizer steps, and the number of steps per epoch (a float)."""
        warmup = self.warmup_steps or 0
        if self.warmup_fraction is not None:
            warmup = round(self.warmup_fraction * total_steps)
        _require(warmup <= total_steps, "warmup_steps", warmup, f"longer than the run of {total_steps} steps")
        tick = self.tick(steps_per_epoch)
        duration = max(1, 1 + int((total_steps - warmup - 1) / tick + _ROUNDING))  # the last step is in the last tick
        return BoundSchedule(self, total_steps, warmup, tick, duration)

    def tick(self, steps_per_epoch: float) -> float:
        """Return the number of optimizer steps in one unit of the schedule's clock."""
        return 1.0

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        """Return the learning rate at `clock` units after warm-up, in a run that lasts `duration` units from there."""
        raise NotImplementedError


@dataclass(frozen=True)
class BoundSchedule:
    """A schedule for a run of known length. All times in optimizer steps but `duration`, which is in ticks."""

    schedule: Schedule
    total_steps: int
    warmup: int
    tick: float
    duration: int

    def lr(self, step: int, base_lr: float, history: Sequence[float] = ()) -> float:
        """Return the learning rate of optimizer step `step` (counted from 0).

        `history` holds the values of the monitored validation metric seen before this step, oldest first. From
        `total_steps` on the result is constant, and not above that of the last step.
        """
        if step < self.total_steps:
            return self._lr(step, base_lr, history)
        last, end = (self._lr(when, base_lr, history) for when in (self.total_steps - 1, self.total_steps))
        return min(last, end)

    def _lr(self, step: int, base_lr: float, history: Sequence[float]) -> float:
        if step < self.warmup:
            return base_lr * (step + 1) / self.warmup
        clock = int((step - self.warmup) / self.tick + _ROUNDING)
        return self.schedule.value(clock, self.duration, base_lr, history)


@dataclass(frozen=True, kw_only=True)
class Timed(Schedule):
    """A schedule whose times are counted in optimizer steps or in whole epochs."""

    unit: Unit = "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.unit in ("step", "epoch"), "unit", self.unit, "must be step or epoch")

    def tick(self, steps_per_epoch: float) -> float:
        return steps_per_epoch if self.unit == "epoch" else 1.0


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
        _require(self.step_size >= 1, "step_size", self.step_size, "must be at least 1")
        _require(0 < self.gamma < math.inf, "gamma", self.gamma, "must be above 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        return base_lr * self.gamma ** (clock // self.step_size)


def _cosine(progress: float, base_lr: float, eta_min: float) -> float:
    """Half a cosine wave from `base_lr` at progress 0 to `eta_min` at progress 1."""
    return eta_min + (base_lr - eta_min) * (1 + math.cos(math.pi * progress)) / 2


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
        _require(self.T_max is None or self.T_max >= 1, "T_max", self.T_max, "must be at least 1, or null")
        _require(0 <= self.eta_min < math.inf, "eta_min", self.eta_min, "must be at least 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        return _cosine(min(clock / (self.T_max or duration), 1.0), base_lr, self.eta_min)


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
        _require(self.T_0 >= 1, "T_0", self.T_0, "must be at least 1")
        _require(self.T_mult >= 1, "T_mult", self.T_mult, "must be at least 1")
        _require(0 <= self.eta_min < math.inf, "eta_min", self.eta_min, "must be at least 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        length = self.T_0
        if self.T_mult == 1:
            clock %= length
        while clock >= length:
            clock -= length
            length *= self.T_mult
        return _cosine(clock / length, base_lr, self.eta_min)


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
        _require(0 < self.start_factor <= 1, "start_factor", self.start_factor, "must lie in (0, 1]")
        _require(0 <= self.end_factor <= 1, "end_factor", self.end_factor, "must lie in [0, 1]")
        iters = self.total_iters
        _require(iters is None or iters >= 1, "total_iters", iters, "must be at least 1, or null")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        progress = min(clock / (self.total_iters or duration), 1.0)
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * progress)


@dataclass(frozen=True, kw_only=True)
class Plateau(Schedule):
    """Multiply by `factor` when the monitored metric has not improved for more than `patience` evaluations.

    As torch's ReduceLROnPlateau, replayed over the evaluations so far; those made during warm-up count too. `min_lr`
    and `eps` (the smallest reduction worth making) are absolute learning rates.
    """

    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.mode in ("min", "max"), "mode", self.mode, "must be min or max")
        _require(self.threshold_mode in ("rel", "abs"), "threshold_mode", self.threshold_mode, "must be rel or abs")
        _require(0 < self.factor < 1, "factor", self.factor, "must lie in (0, 1)")
        for key in ("patience", "threshold", "cooldown", "min_lr", "eps"):
            value = getattr(self, key)
            _require(0 <= value < math.inf, key, value, "must be at least 0 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        return _replay_plateau(self, base_lr, tuple(history))

    def improved(self, value: float, best: float) -> bool:
        """Return whether `value` is better than `best` by more than the threshold."""
        relative = self.threshold_mode == "rel"
        if self.mode == "min":
            return value < (best * (1 - self.threshold) if relative else best - self.threshold)
        return value > (best * (1 + self.threshold) if relative else best + self.threshold)


@lru_cache(maxsize=64)  # asked for at every step, but new only after an evaluation
def _replay_plateau(schedule: Plateau, base_lr: float, history: tuple[float, ...]) -> float:
    lr = base_lr
    best = math.inf if schedule.mode == "min" else -math.inf
    bad_evaluations = cooldown = 0
    for value in history:
        if schedule.improved(value, best):
            best = value
            bad_evaluations = 0
        else:
            bad_evaluations += 1
        if cooldown > 0:
            cooldown -= 1
            bad_evaluations = 0
        if bad_evaluations > schedule.patience:
            reduced = max(lr * schedule.factor, schedule.min_lr)
            if lr - reduced > schedule.eps:
                lr = reduced
            cooldown = schedule.cooldown
            bad_evaluations = 0
    return lr
