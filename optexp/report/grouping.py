"""Rows of runs that differ in nothing but their seed, and the numbers that such rows have in common.

A row is flat: settings (`optimizer.lr`), metrics (`val/loss`) and `status`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SEED = "seed"

LOST = ("diverged", "failed")
"""Ends that leave no value: what such a run recorded last is from before it went wrong."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Mean:
    """A mean over `n` seeds; `low` and `high` bound its t interval, None for fewer than three values."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Setting:
    """The rows that differ in nothing but their seed. `values` are the settings that tell them from other rows."""

    values: dict[str, Any]
    rows: list[Row]

    @property
    def lost(self) -> int:
        """The number of rows that diverged or failed."""
        return sum(row.get("status") in LOST for row in self.rows)

    def mean(self, metric: str) -> Mean | None:
        """Return the mean of a metric over the rows that have it; None when there is none."""
        numbers = finite_values(self.rows, metric)
        return mean_of(numbers) if numbers else None


def lower_is_better(metric: str) -> bool:
    """Return whether small values of a metric are good: those of losses are."""
    return metric.endswith("loss")


def is_number(value: Any) -> bool:
    """Return whether a setting is a number, and not a word or a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def finite_values(rows: Sequence[Row], metric: str) -> list[float]:
    """Return the finite values of a metric; those of rows that diverged or failed do not count."""
    values = [row.get(metric) for row in rows if row.get("status") not in LOST]
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def mean_of(values: Sequence[float], level: float = 0.95) -> Mean:
    """Return the mean of at least one value with Student's t interval of the given level."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 3:
        return Mean(mean, None, None, n)
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * deviation / math.sqrt(n)
    return Mean(mean, mean - half, mean + half, n)


def by_setting(rows: Sequence[Row], keys: Sequence[str]) -> list[Setting]:
    """Return the rows in groups that agree in all `keys` but the seed, in the order in which they appear."""
    groups: dict[str, Setting] = {}
    for row in rows:
        values = {key: row.get(key) for key in keys if key != SEED}
        groups.setdefault(repr(list(values.values())), Setting(values, [])).rows.append(row)
    return list(groups.values())


def averaged(rows: Sequence[Row], keys: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per setting: its values, `seeds` and `lost` (numbers of rows), and the mean of each metric.

    The half width of a metric's 95 % interval stands under the metric's name with " ±" behind it, where there are
    three values or more. A metric of which a setting has no value is left out.
    """
    table = []
    for group in by_setting(rows, keys):
        line: dict[str, Any] = {**group.values, "seeds": len(group.rows), "lost": group.lost}
        for metric in metrics:
            mean = group.mean(metric)
            if mean is not None:
                line[metric] = mean.mean
                if mean.high is not None:
                    line[f"{metric} ±"] = mean.high - mean.mean
        table.append(line)
    return table


def ranked(settings: Sequence[Setting], metric: str) -> list[Setting]:
    """Return the settings that have a value of the metric, the best mean first.

    A setting of which some seed has no value comes after those that have all: the mean of survivors flatters.
    """
    sign = 1 if lower_is_better(metric) else -1
    means = [(group, group.mean(metric)) for group in settings]
    having = [(mean.n < len(group.rows), sign * mean.mean, group) for group, mean in means if mean is not None]
    return [group for _, _, group in sorted(having, key=lambda entry: entry[:2])]


def levels(rows: Sequence[Row], key: str) -> list[Any]:
    """Return the values of a setting: numbers in increasing order, anything else in order of appearance."""
    found: list[Any] = []
    for row in rows:
        if row.get(key) not in found:
            found.append(row.get(key))
    return sorted(found) if all(map(is_number, found)) else found


def edges(best: Setting, rows: Sequence[Row]) -> list[tuple[str, Any, str]]:
    """Return (key, value, "smallest" or "largest") for each number of the best setting that ends its swept range.

    A range has at least three values: of two, either is an end.
    """
    found = []
    for key, value in best.values.items():
        tried = levels(rows, key)
        if len(tried) >= 3 and all(map(is_number, tried)) and value in (tried[0], tried[-1]):
            found.append((key, value, "smallest" if value == tried[0] else "largest"))
    return found


def is_log_spaced(values: Sequence[float]) -> bool:
    """Return whether numbers look as if chosen on a logarithmic scale; zero may stand beside them.

    Two values do when they are a decade apart, more when their ratios are more alike than their differences.
    """
    positive = sorted({float(value) for value in values if value > 0})
    if any(value < 0 for value in values) or len(positive) < 2:
        return False
    ratios = [math.log(high / low) for low, high in pairwise(positive)]
    gaps = [high - low for low, high in pairwise(positive)]
    if len(positive) == 2:
        return positive[1] / positive[0] >= 9.99
    return positive[-1] / positive[0] >= 4 and _spread(ratios) < _spread(gaps)


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation of positive numbers relative to their mean."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)) / mean
