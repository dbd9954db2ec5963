"""Smoothing a loss curve: over the past only, while it is being measured, and over both sides once it is there.

An exponential mean over the past lags by β/(1 − β) steps: 49 with fastai's β = 0.98, which moves what is read off a
test of 1000 steps over 8 decades 0.4 decades to the right. Suggestions are therefore read off a mean with the same
weights on both sides, which has no lag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def decay_per_step(width: float, steps_per_decade: float) -> float:
    """Return the β with which weights fall by a factor of e over `width` decades of the learning rate."""
    steps = width * steps_per_decade
    return math.exp(-1 / steps) if steps > 0 else 0.0


class Trailing:
    """An exponential mean with bias correction, one value at a time: Σ β^(i−j) x_j / Σ β^(i−j) over j ≤ i."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self._sum = self._weights = 0.0

    def add(self, value: float) -> float:
        """Return the mean after one more value."""
        self._sum = value + self.beta * self._sum
        self._weights = 1 + self.beta * self._weights
        return self._sum / self._weights


def trailing(values: Sequence[float], beta: float) -> Array:
    """Return the mean over the past at every value."""
    mean = Trailing(beta)
    return np.array([mean.add(value) for value in values])


def symmetric(values: Sequence[float] | Array, beta: float) -> Array:
    """Return Σ β^|i−j| x_j / Σ β^|i−j| over all j: no lag, and no bias where the curve begins and ends level."""
    x = np.asarray(values, dtype=np.float64)
    return _both_sides(x, beta) / _both_sides(np.ones_like(x), beta)


def _both_sides(x: Array, beta: float) -> Array:
    past, future = np.empty_like(x), np.empty_like(x)
    total = 0.0
    for index in range(len(x)):
        total = past[index] = x[index] + beta * total
    total = 0.0
    for index in reversed(range(len(x))):
        total = future[index] = x[index] + beta * total
    return past + future - x


def smoothed_loss(losses: Sequence[float], beta: float) -> Array:
    """Return a loss curve smoothed to both sides.

    Where the loss rises beyond all that it was before its minimum, it counts with the highest of these values: an
    explosion to 1e6 would otherwise be seen in the mean hundreds of steps before it happens.
    """
    lowest = int(trailing(losses, beta).argmin())
    memory = math.ceil(1 / (1 - beta))
    highest = max(losses[: max(lowest + 1, memory)])
    return symmetric([min(loss, highest) for loss in losses], beta)
