"""Intervals of means, and of ratios of means, of numbers that belong to the same seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optexp.attribution.games import Values
from optexp.statistics import FEWEST_FOR_BOOTSTRAP, RESAMPLES, Interval, bootstrap_interval, t_interval

LEVEL = 0.95

_EQUAL = 1e-9
"""Ratios that differ by less, relative to the largest, differ by rounding."""


def mean_interval(values: Values) -> Interval:
    """Return the interval of the mean over seeds [S]: bootstrapped (BCa) from 8 seeds on, Student's t before."""
    numbers = [float(value) for value in values]
    return (bootstrap_interval if len(numbers) >= FEWEST_FOR_BOOTSTRAP else t_interval)(numbers, LEVEL)


def ratio_interval(parts: Values, wholes: Values) -> Interval:
    """Return the interval of mean(parts) / mean(wholes) over seeds [S], the two paired.

    From 8 seeds on it is the BCa bootstrap interval, resampling seeds (scipy.stats.bootstrap); before, Student's
    interval of the linearized ratio, r + (part − r · whole) / mean(wholes), which has mean r.
    Where the ratio is the same on all seeds it is a point. The mean of wholes must not be 0.
    """
    ratio = float(parts.mean() / wholes.mean())
    linear = ratio + (parts - ratio * wholes) / wholes.mean()
    scale = float(np.abs(wholes / wholes.mean()).max()) * max(abs(ratio), 1.0)
    if float(np.ptp(linear)) <= _EQUAL * scale:
        method = "bootstrap" if len(parts) >= FEWEST_FOR_BOOTSTRAP else "t"
        return Interval(ratio, ratio, ratio, LEVEL, len(parts), method)
    if len(parts) < FEWEST_FOR_BOOTSTRAP:
        return t_interval([float(value) for value in linear], LEVEL)
    import scipy.stats

    found = scipy.stats.bootstrap(
        (parts, wholes),
        _ratio_of_means,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="BCa",
        random_state=np.random.default_rng(0),  # called `rng` from scipy 1.15 on, which takes both
    ).confidence_interval
    return Interval(ratio, float(found.low), float(found.high), LEVEL, len(parts), "bootstrap")


def widened(interval: Interval, error: float | None) -> Interval:
    """Return an interval with an independent error, half the width of another interval, added in quadrature."""
    if error is None:
        return interval
    low = interval.estimate - math.hypot(interval.estimate - interval.low, error)
    high = interval.estimate + math.hypot(interval.high - interval.estimate, error)
    return replace(interval, low=low, high=high)


def _ratio_of_means(parts: NDArray[np.float64], wholes: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = parts.mean(axis=axis) / wholes.mean(axis=axis)
    return ratio
