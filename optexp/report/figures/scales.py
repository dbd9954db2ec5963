"""Where the values of a setting stand on an axis: numbers by size or by decades, words side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import setting
from optexp.report.grouping import is_log_spaced, is_number

if TYPE_CHECKING:
    from matplotlib.axis import Axis


@dataclass(frozen=True)
class Scale:
    """Places of the values of one setting. Neighbours are at least 1 apart."""

    levels: Sequence[Any]
    places: list[float]
    is_log: bool
    is_spaced: bool
    """Whether distances mean something; if not, the values stand side by side."""

    def place(self, value: Any) -> float:
        """Return where a value stands."""
        return self.places[self.levels.index(value)]

    def borders(self, index: int) -> tuple[float, float]:
        """Return the ends of the cell around a value: half way to its neighbours."""
        here = self.places[index]
        left = (self.places[index - 1] + here) / 2 if index else here - 0.5
        right = (here + self.places[index + 1]) / 2 if index + 1 < len(self.places) else here + 0.5
        return left, right

    def label(self, key: str) -> str:
        """Return the name of an axis for the setting `key`."""
        name = key.removeprefix("optimizer.")
        return f"{name} (log{', 0 apart' if self.levels[0] == 0 else ''})" if self.is_log else name

    def mark(self, axis: Axis, gap: float = 0.0) -> None:
        """Write the values on an axis, leaving out those less than `gap` behind one that is written."""
        shown: list[int] = []
        for index, place in enumerate(self.places):
            if not shown or place - self.places[shown[-1]] >= gap:
                shown.append(index)
        texts = [brief(setting(self.levels[index])) for index in shown]
        axis.set_ticks([self.places[index] for index in shown], texts)


def brief(text: str, most: int = 24) -> str:
    """Return a name cut to what leaves room for the picture beside it."""
    return text if len(text) <= most else text[: most - 1] + "…"


def scale_of(levels: Sequence[Any], by_size: bool = True) -> Scale:
    """Return the scale for values in their order: logarithmic where they are spaced so, side by side for words.

    Other numbers stand by their size, or side by side when `by_size` is false.
    """
    side_by_side = [float(index) for index in range(len(levels))]
    if not all(map(is_number, levels)) or len(levels) < 2:
        return Scale(levels, side_by_side, False, False)
    if is_log_spaced(levels):
        positive = [math.log10(level) for level in levels if level > 0]
        places = _apart(positive)
        if len(positive) < len(levels):
            places = [0.0, *(place + 1 for place in places)]  # zero has no logarithm
        return Scale(levels, places, True, True)
    if not by_size:
        return Scale(levels, side_by_side, False, False)
    return Scale(levels, _apart([float(level) for level in levels]), False, True)


def _apart(numbers: Sequence[float]) -> list[float]:
    """Return increasing numbers shifted to 0 and stretched until neighbours are at least 1 apart."""
    unit = min(high - low for low, high in pairwise(numbers))
    return [(number - numbers[0]) / unit for number in numbers]
