"""Reading curves out of the rows of a run: series of a tag, means over parts of the run, what lasted how long."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from optexp.diagnosis.trend import Trend, trend


@dataclass(frozen=True)
class Curve:
    """The finite values of one tag with their steps, in order. `broken` tells whether a value was not finite."""

    steps: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    broken: bool = False

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, float]], tag: str) -> Curve:
        """Read the curve of a tag; of several rows of one step the last counts."""
        pairs = {row["step"]: row[tag] for row in rows if tag in row}
        finite = {step: value for step, value in pairs.items() if math.isfinite(value)}
        return cls(tuple(finite), tuple(finite.values()), len(finite) < len(pairs))

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def first(self) -> float | None:
        return self.values[0] if self.values else None

    @property
    def last(self) -> float | None:
        return self.values[-1] if self.values else None

    def lowest(self) -> tuple[float, float] | None:
        """Return (step, value) of the lowest value."""
        return min(zip(self.steps, self.values, strict=True), key=lambda pair: pair[1]) if self.values else None

    def between(self, start: float, end: float) -> Curve:
        """Return the part with start < step ≤ end."""
        kept = [(s, v) for s, v in zip(self.steps, self.values, strict=True) if start < s <= end]
        return Curve(tuple(s for s, _ in kept), tuple(v for _, v in kept), self.broken)

    def tail(self, number: int) -> Curve:
        """Return the last points."""
        return Curve(self.steps[-number:], self.values[-number:], self.broken)

    def mean(self) -> float | None:
        """Return the mean over steps: each value stands for the steps since the one before it."""
        if not self.values:
            return None
        if len(self.values) == 1:
            return self.values[0]
        gaps = [later - earlier for earlier, later in zip(self.steps, self.steps[1:], strict=False)]
        weights = [min(self.steps[0], gaps[0]) or gaps[0], *gaps]
        return math.fsum(w * v for w, v in zip(weights, self.values, strict=True)) / math.fsum(weights)

    def mean_of_samples(self) -> float | None:
        """Return the mean over steps of what single steps had, which changes linearly from one of them to the next."""
        if len(self.values) < 2:
            return self.first
        pairs = zip(self.steps, self.steps[1:], self.values, self.values[1:], strict=False)
        area = math.fsum((later - earlier) * (one + other) / 2 for earlier, later, one, other in pairs)
        return area / (self.steps[-1] - self.steps[0])

    def median(self) -> float | None:
        return median(self.values) if self.values else None

    def average(self) -> float | None:
        """Return the plain mean of the values."""
        return fmean(self.values) if self.values else None

    def trend(self) -> Trend | None:
        return trend(self.steps, self.values)
