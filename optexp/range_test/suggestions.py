"""Five rules that read a learning rate off the smoothed curve of a range test. All of them take it as it is given.

Where fastai has the rule, it is fastai's (fastai/callback/schedule.py); its constants, which count steps of a test of
100 steps over 8 decades, are written per decade here, so that they mean the same for any other test.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

import numpy as np

from optexp.range_test.smoothing import Array

LOW, HIGH = 0.1, 0.5
"""The recommended window: these shares of the steepest point."""

MIDDLE = (LOW * HIGH) ** 0.5
"""Its middle, on the logarithmic scale on which learning rates are compared."""

_SLIDE_STEPS_PER_DECADE = 99 / 8  # of the test that fastai's constants are for
SLIDE_WIDTH = 15 / _SLIDE_STEPS_PER_DECADE
"""Decades between the two ends of the interval that slides."""
SLIDE_THRESHOLD = 0.005 * _SLIDE_STEPS_PER_DECADE
"""Loss per decade by which the slopes at both ends may differ."""


def steepest_place(rates: Sequence[float], losses: Array) -> int:
    """Return where dL / d log10(lr) is smallest, on the way to the lowest loss."""
    lowest = int(losses.argmin())
    if lowest == 0:
        return 0
    return int(np.gradient(losses, np.log10(rates[: len(losses)]))[: lowest + 1].argmin())


def steepest(rates: Sequence[float], losses: Array) -> float:
    """Return the learning rate at which the loss falls fastest."""
    return rates[steepest_place(rates, losses)]


def valley(rates: Sequence[float], losses: Array) -> float:
    """Return the middle of the longest valley: of the longest decreasing subsequence, as fastai places it.

    The valley is taken to begin as many steps before its end as the subsequence is long, and the suggestion lies half
    of it from there (a third and a half of a third).
    """
    end, longest = 0, 1
    tails: list[float] = []  # the largest last value, negated, of a decreasing subsequence of each length
    for place, loss in enumerate(losses.tolist()):
        length = bisect.bisect_left(tails, -loss)
        tails[length : length + 1] = [-loss]
        if length + 1 > longest:
            end, longest = place, length + 1
    start = max(end - longest, 0)
    third = (end - start) / 3
    return rates[start + int(third) + int(third / 2)]


def slide(rates: Sequence[float], losses: Array) -> float:
    """Return the left end of an interval that slides from the right until the slopes at its ends are alike.

    That is fastai's form of ESRI's rule. The slopes are of the loss per decade.
    """
    steps_per_decade = (len(rates) - 1) / np.log10(rates[-1] / rates[0])
    slope = np.gradient(losses) * steps_per_decade
    right = len(losses) - 1
    left = max(right - round(SLIDE_WIDTH * steps_per_decade), 0)
    found = rates[left]
    while left >= 0 and abs(slope[right] - slope[left]) > SLIDE_THRESHOLD:
        found = rates[left]
        right, left = right - 1, left - 1
    return found


def tenth_of_minimum(rates: Sequence[float], losses: Array) -> float:
    """Return a tenth of the learning rate at the lowest loss."""
    return rates[int(losses.argmin())] / 10


def knee(rates: Sequence[float], losses: Array) -> float:
    """Return where the loss begins to fall: the point of the curve farthest above the chord to its minimum.

    That is the knee of Satopää et al., "Finding a Kneedle in a haystack", 2011, of a concave decreasing curve.
    """
    lowest = int(losses.argmin())
    if lowest == 0:
        return rates[0]
    chord = np.linspace(losses[0], losses[lowest], lowest + 1)
    return rates[int((losses[: lowest + 1] - chord).argmax())]


RULES: dict[str, Callable[[Sequence[float], Array], float]] = {
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
    "minimum/10": tenth_of_minimum,
    "knee": knee,
}
