"""The schedule that looks at the validation metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from optexp.schedules.base import Schedule, require


@dataclass(frozen=True, kw_only=True)
class Plateau(Schedule):
    """Multiply by `factor` when the monitored metric has not improved for more than `patience` evaluations.

    As torch's ReduceLROnPlateau, replayed over the evaluations so far; those made during warm-up count too. `min_lr`
    and `eps` (the smallest reduction worth making) are absolute learning rates.
    """

    needs_history: ClassVar[bool] = True

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
        require(self.mode in ("min", "max"), "mode", self.mode, "must be min or max")
        require(self.threshold_mode in ("rel", "abs"), "threshold_mode", self.threshold_mode, "must be rel or abs")
        require(0 < self.factor < 1, "factor", self.factor, "must lie in (0, 1)")
        for key in ("patience", "threshold", "cooldown", "min_lr", "eps"):
            value = getattr(self, key)
            require(0 <= value < math.inf, key, value, "must be at least 0 and finite")

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
