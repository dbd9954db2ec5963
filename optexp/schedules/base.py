"""What every schedule has: linear warm-up, a clock in steps or epochs, and binding to the length of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from optexp.errors import BadInput

Unit = Literal["step", "epoch"]

# A clock in epochs divides by a float (samples / batch size); this keeps an epoch that ends exactly on a step whole.
_ROUNDING = 1e-9


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise BadInput naming an argument of a schedule, its value and what is allowed, unless the condition holds."""
    if not condition:
        raise BadInput(f"schedule.{key}={value}: {allowed}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What all schedules share: linear warm-up, as a number of optimizer steps or as a fraction of the run.

    For step < W the learning rate is base_lr · (step + 1) / W; afterwards the schedule starts at its own beginning.
    Raises BadInput for values out of range, when both forms of warm-up are set, and (in `bind`) when warm-up does not
    fit into the run.
    """

    needs_history: ClassVar[bool] = False
    """Whether the learning rate depends on what the validation metric was, and not on the step alone."""

    warmup_steps: int | None = 0
    warmup_fraction: float | None = None

    def __post_init__(self) -> None:
        steps, fraction = self.warmup_steps, self.warmup_fraction
        require(steps is None or steps >= 0, "warmup_steps", steps, "must be at least 0")
        require(fraction is None or 0 <= fraction <= 1, "warmup_fraction", fraction, "must lie in [0, 1]")
        require(not steps or fraction is None, "warmup_fraction", fraction, f"excludes schedule.warmup_steps={steps}")

    def bind(self, total_steps: int, steps_per_epoch: float) -> BoundSchedule:
        """Fix the length of the run, in optimizer steps, and the number of steps per epoch (a float)."""
        warmup = self.warmup_steps or 0
        if self.warmup_fraction is not None:
            warmup = round(self.warmup_fraction * total_steps)
        require(warmup <= total_steps, "warmup_steps", warmup, f"longer than the run of {total_steps} steps")
        tick = self.tick(steps_per_epoch)
        duration = max(1, 1 + int((total_steps - warmup - 1) / tick + _ROUNDING))  # the last step is in the last tick
        return BoundSchedule(self.fitted(total_steps, warmup), total_steps, warmup, tick, duration)

    def fitted(self, total_steps: int, warmup: int) -> Schedule:
        """Return this schedule with what depends on the length of the run, or of its warm-up, filled in."""
        return self

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
        require(self.unit in ("step", "epoch"), "unit", self.unit, "must be step or epoch")

    def tick(self, steps_per_epoch: float) -> float:
        return steps_per_epoch if self.unit == "epoch" else 1.0
