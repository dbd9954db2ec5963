"""Intervals, verdicts and factorial effects. Whatever varies with the seed is compared on the same seeds (paired).

scipy.stats is imported inside the functions that need it: reading a study must not wait for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from optexp.errors import BadInput

Verdict = Literal["supported", "refuted", "inconclusive"]

FEWEST_FOR_BOOTSTRAP = 8
"""With fewer values a resample has too few different means for tails to be read off them."""

RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a mean over `n` seeds; `method` is "t", "bootstrap" or "exact" (a point)."""

    estimate: float
    low: float
    high: float
    level: float
    n: int
    method: str


def t_interval(values: Sequence[float], level: float) -> Interval:
    """Return Student's interval of the mean of one effect per seed: mean ± t(level, n − 1) · s / √n.

    Of differences it is the interval of the paired t test, exact when they are normal over the seeds. Without any
    effect 2.3 % of studies with 8 seeds were "supported" at level 0.95 (20,000 simulated). Where effects are skewed it
    covers too little: 0.89 of exponential ones in place of 0.95, 0.83 of log-normal ones.
    Equal values give a point. Raises BadInput for fewer than two.
    """
    _check(values, level)
    if len(values) < 2:
        raise BadInput(f"interval=t: needs at least 2 seeds; here are {len(values)}")
    if min(values) == max(values):
        return _point(values, level, "t")
    import scipy.stats

    # Measured from one of the values, so that neither an offset nor very small or large numbers cost digits.
    origin, scale = _origin_and_scale(values)
    scaled = [(value - origin) / scale for value in values]
    mean = fmean(scaled)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in scaled) / (len(values) - 1))
    half = float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    estimate, low, high = (origin + scale * value for value in (mean, mean - half, mean + half))
    return Interval(estimate, low, high, level, len(values), "t")


def bootstrap_interval(values: Sequence[float], level: float, seed: int = 0) -> Interval:
    """Return the BCa bootstrap interval of the mean of one effect per seed (Efron 1987; scipy.stats.bootstrap).

    With few seeds it is too narrow: prefer `t_interval`. Of 4,000 simulated studies without any effect (normal, level
    0.95) 6 % were "supported" with 8 seeds, where 2.5 % should be; 4.5 % with 12 and 4 % with 16. The interval held
    the mean in 0.88, 0.91 and 0.92 of them. At level 0.995, for ten answers, 2 % were supported in place of 0.25 %:
    the ends never leave the range of the values, and 8 of them lie above zero by chance once in 256 times. It is no
    cure for skewness either: it covered 0.86 of exponential effects and 0.81 of log-normal ones, less than t.
    The same values and `seed` give the same interval. Equal values give a point. Raises BadInput for fewer than 8.
    """
    _check(values, level)
    if len(values) < FEWEST_FOR_BOOTSTRAP:
        raise BadInput(f"interval=bootstrap: needs at least {FEWEST_FOR_BOOTSTRAP} seeds; here are {len(values)}")
    if min(values) == max(values):
        return _point(values, level, "bootstrap")  # here BCa divides 0 by 0
    import numpy
    import scipy.stats

    # The interval moves and scales with its values; not scaled, values that differ by rounding alone would give nan.
    origin, scale = _origin_and_scale(values)
    scaled = (numpy.asarray(values, dtype=float) - origin) / scale
    found = scipy.stats.bootstrap(
        (scaled,),
        numpy.mean,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="BCa",
        random_state=numpy.random.default_rng(seed),  # called `rng` from scipy 1.15 on, which takes both
    ).confidence_interval
    low, high = (origin + scale * float(end) for end in (found.low, found.high))
    return Interval(origin + scale * float(scaled.mean()), low, high, level, len(values), "bootstrap")


def verdict(interval: Interval, smallest: float, direction: Literal["above", "below"]) -> Verdict:
    """Judge an interval by the smallest effect that matters, a number with the sign of the effect.

    Wholly beyond it in the direction: supported. Wholly on the other side: refuted, which says that there is no effect
    of this size, not that there is none. Otherwise, and when an end touches it or is not a number: inconclusive.
    """
    above, below = interval.low > smallest, interval.high < smallest
    supported, refuted = (above, below) if direction == "above" else (below, above)
    return "supported" if supported else "refuted" if refuted else "inconclusive"


def shared_level(answers: int, level: float = 0.95) -> float:
    """Return the level of each of several intervals that all hold at once with probability ≥ `level` (Bonferroni)."""
    if answers < 1 or not 0 < level < 1:
        raise ValueError(f"{answers} answers at level {level}")
    return 1 - (1 - level) / answers


def combinations(factors: int) -> list[tuple[int, ...]]:
    """Return the runs of a full two-level design, 0 for off and 1 for on; the last factor changes fastest."""
    return list(itertools.product((0, 1), repeat=factors))


def factorial_effect(values: Mapping[tuple[int, ...], Sequence[float]], involved: Iterable[int]) -> list[float]:
    """Return the effect of some factors of a full 2^k design, one number per seed.

    `values` has for each combination of levels one number per seed, in the same order of seeds. The main effect of A
    is the mean over the runs with A on minus the mean over the runs with A off. The interaction AB is half the
    difference of A's effects with B on and with B off; of more factors, half the difference of the interaction of
    all but one at both levels of that one (Box, Hunter & Hunter, Statistics for Experimenters, 2nd ed., ch. 5).
    """
    factors = len(next(iter(values), ()))
    involved = tuple(involved)
    if not involved or len(set(involved)) < len(involved) or not set(involved) <= set(range(factors)):
        raise ValueError(f"an effect of factors {involved} in a design of {factors}")
    if set(values) != set(combinations(factors)):
        raise ValueError(
            f"a full design of {factors} factors has all {2**factors} combinations; here are {list(values)}"
        )
    if len({len(numbers) for numbers in values.values()}) != 1:
        raise ValueError("combinations have different numbers of seeds")
    signs = {levels: math.prod(1 if levels[factor] else -1 for factor in involved) for levels in values}
    seeds = range(len(values[(0,) * factors]))
    half = 2 ** (factors - 1)
    return [math.fsum(sign * values[levels][seed] for levels, sign in signs.items()) / half for seed in seeds]


def factorial_effects(values: Mapping[tuple[int, ...], Sequence[float]]) -> dict[tuple[int, ...], list[float]]:
    """Return every main effect and interaction of a full 2^k design by the factors involved: `(0,)`, `(0, 2)`.

    Main effects come first, then interactions of two, and so on. See `factorial_effect`.
    """
    factors = len(next(iter(values), ()))
    orders = range(1, factors + 1)
    involved = itertools.chain.from_iterable(itertools.combinations(range(factors), order) for order in orders)
    return {factor: factorial_effect(values, factor) for factor in involved}


def _check(values: Sequence[float], level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level of {level}")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"an interval of values that are not all finite: {list(values)}")


def _point(values: Sequence[float], level: float, method: str) -> Interval:
    return Interval(values[0], values[0], values[0], level, len(values), method)


def _origin_and_scale(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values) - min(values)
