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
    """A straight line fitted to a curve from step `start` to step `end`.

    `slope` and its standard error `error` are per step, `scatter` is the deviation of the values from the line.
    """

    slope: float
    error: float
    scatter: float
    start: float
    end: float

    @property
    def significance(self) -> float:
        """The slope in standard errors: below −3 the curve falls, above 3 it rises."""
        if self.error == 0:
            return math.copysign(math.inf, self.slope) if self.slope else 0.0
        return self.slope / self.error

    def per_hundred_steps(self) -> str:
        """Return the size of the slope and its standard error, to the second digit of the error: `0.213 ± 0.041`.

        An error below a hundredth of the slope is not written in full.
        """
        size, error = 100 * abs(self.slope), 100 * self.error
        finest = max(error, size / 100)
        decimals = max(0, 1 - math.floor(math.log10(finest))) if 0 < finest < math.inf else 0
        return f"{size:,.{decimals}f} ± {error:,.{decimals}f} per 100 steps"

    def as_dict(self) -> dict[str, float]:
        """Return the slope as plain values, for JSON."""
        return {
            "slope_per_step": self.slope,
            "standard_error": self.error,
            "from_step": self.start,
            "to_step": self.end,
        }


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
    return Trend(slope, scatter / math.sqrt(sxx), scatter, steps[0], steps[-1])
