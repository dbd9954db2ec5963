"""The slope of a noisy curve with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

FEWEST = 4
"""Points that a line with an uncertainty takes: two for the line, two for what is left."""


@dataclass(frozen=True)
class Trend:
    """A straight line fitted to a curve: slope per step with its standard error, and the scatter around it."""

    slope: float
    error: float
    scatter: float

    @property
    def significance(self) -> float:
        """The slope in standard errors: below −3 the curve falls, above 3 it rises."""
        if self.error == 0:
            return math.copysign(math.inf, self.slope) if self.slope else 0.0
        return self.slope / self.error


def trend(steps: Sequence[float], values: Sequence[float]) -> Trend | None:
    """Return the least-squares line through a curve; None for fewer than `FEWEST` points, or without extent.

    The error is that of independent residuals (n − 2 degrees of freedom): means over disjoint intervals are nearly so.
    """
    if len(steps) < FEWEST or steps[0] == steps[-1]:
        return None
    x, y = fmean(steps), fmean(values)
    sxx = math.fsum((step - x) ** 2 for step in steps)
    slope = math.fsum((step - x) * (value - y) for step, value in zip(steps, values, strict=True)) / sxx
    residuals = (value - y - slope * (step - x) for step, value in zip(steps, values, strict=True))
    scatter = math.sqrt(math.fsum(r * r for r in residuals) / (len(steps) - 2))
    return Trend(slope, scatter / math.sqrt(sxx), scatter)
