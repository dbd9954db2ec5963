"""Schedules of several phases: up and down again, or a long plateau and a short decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from optexp.schedules.base import Schedule, require
from optexp.schedules.decays import half_cosine


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Up from base_lr / div_factor to the base learning rate, then down to that start / final_div_factor.

    As torch's OneCycleLR with `max_lr` the base learning rate and `cycle_momentum=False`: no schedule changes the
    momentum. The rise takes the fraction `pct_start` of `total_steps` optimizer steps (None: the rest of the run after
    warm-up); with `three_phase` the fall back to the start takes as long, and the rest goes from there to the end.
    The cycle has its own rise, so a warm-up in front of it is rarely wanted: the rate falls from the base learning rate
    to the start of the cycle where warm-up ends.
    Source: Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018.
    """

    total_steps: int | None = None
    pct_start: float = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.total_steps is None or self.total_steps >= 1,
            "total_steps",
            self.total_steps,
            "must be at least 1, or null",
        )
        require(0 <= self.pct_start <= 1, "pct_start", self.pct_start, "must lie in [0, 1]")
        require(
            not self.three_phase or self.pct_start <= 0.5,
            "pct_start",
            self.pct_start,
            "must lie in [0, 0.5] with schedule.three_phase=true, where the way down takes as long as the rise",
        )
        require(
            self.anneal_strategy in ("cos", "linear"), "anneal_strategy", self.anneal_strategy, "must be cos or linear"
        )
        for key in ("div_factor", "final_div_factor"):
            value = getattr(self, key)
            require(1 <= value < math.inf, key, value, "must be at least 1 and finite")

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        total = self.total_steps or duration
        start = base_lr / self.div_factor
        end = start / self.final_div_factor
        rise = self.pct_start * total
        phases = [(rise - 1, start, base_lr), (total - 1, base_lr, end)]  # last step, first and last learning rate
        if self.three_phase:
            phases[1:] = [(2 * rise - 2, base_lr, start), (total - 1, start, end)]
        clock = min(clock, total - 1)
        begin = 0.0
        for until, first, last in phases:
            if clock <= until or until == total - 1:
                return self._between(first, last, (clock - begin) / (until - begin) if until > begin else 1.0)
            begin = until
        raise AssertionError("the last phase lasts until the end")

    def _between(self, first: float, last: float, progress: float) -> float:
        if self.anneal_strategy == "cos":
            return half_cosine(progress, first, last)
        return first + (last - first) * progress


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Schedule):
    """The base learning rate, and in the last `decay_steps` optimizer steps a decay to base_lr · end_factor.

    The decay is given in steps or as a fraction of the whole run, warm-up included; with both None it takes a fifth.
    Its form, at the share p of the decay: linear 1 − p, cosine (1 + cos πp) / 2, 1-sqrt 1 − √p, all mixed with
    `end_factor`; exponential end_factor ^ p, which needs an `end_factor` above 0.
    Sources: Hu et al., "MiniCPM", 2024; Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations", NeurIPS 2024 (1-sqrt).
    """

    decay_steps: int | None = None
    decay_fraction: float | None = None
    decay_type: Literal["linear", "cosine", "1-sqrt", "exponential"] = "1-sqrt"
    end_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        steps, fraction = self.decay_steps, self.decay_fraction
        require(steps is None or steps >= 0, "decay_steps", steps, "must be at least 0, or null")
        require(fraction is None or 0 <= fraction <= 1, "decay_fraction", fraction, "must lie in [0, 1], or be null")
        require(steps is None or fraction is None, "decay_fraction", fraction, f"excludes schedule.decay_steps={steps}")
        forms = ("linear", "cosine", "1-sqrt", "exponential")
        require(self.decay_type in forms, "decay_type", self.decay_type, f"must be one of {', '.join(forms)}")
        require(0 <= self.end_factor <= 1, "end_factor", self.end_factor, "must lie in [0, 1]")
        positive = self.decay_type != "exponential" or self.end_factor > 0
        require(positive, "end_factor", self.end_factor, "must be above 0 with schedule.decay_type=exponential")

    def fitted(self, total_steps: int, warmup: int) -> WarmupStableDecay:
        """Return the schedule with the length of its decay in steps; raises BadInput where it meets the warm-up."""
        fraction = 0.2 if self.decay_fraction is None else self.decay_fraction
        key, given = ("decay_fraction", fraction) if self.decay_steps is None else ("decay_steps", self.decay_steps)
        steps = int(fraction * total_steps + 1e-9) if self.decay_steps is None else self.decay_steps
        room = f"must fit into the {total_steps - warmup} steps after warm-up, and takes {steps}"
        require(steps <= total_steps - warmup, key, given, room)
        return replace(self, decay_steps=steps, decay_fraction=None)

    def value(self, clock: int, duration: int, base_lr: float, history: Sequence[float]) -> float:
        assert self.decay_steps is not None, "bind fills it in"
        done = clock - (duration - self.decay_steps)
        if done <= 0:
            return base_lr
        share = min(done / self.decay_steps, 1.0)
        if self.decay_type == "exponential":
            return float(base_lr * self.end_factor**share)
        left = {"linear": 1 - share, "cosine": half_cosine(share, 1.0, 0.0), "1-sqrt": 1 - math.sqrt(share)}
        return base_lr * (self.end_factor + (1 - self.end_factor) * left[self.decay_type])
