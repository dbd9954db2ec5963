"""One number from the rows of one run: `{of: val/accuracy, take: last}`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import StatisticsError, fmean, linear_regression, stdev
from typing import Literal

from optexp.errors import BadInput

Take = Literal[
    "last",
    "first",
    "best",
    "highest",
    "largest_rise",
    "mean_of_last",
    "std_of_last",
    "slope_of_last",
    "first_step_at_least",
    "first_step_at_most",
]

FEWEST_ROWS: dict[str, int] = {"mean_of_last": 1, "std_of_last": 2, "slope_of_last": 2}
THRESHOLDS = ("first_step_at_least", "first_step_at_most")
FINISHED = ("completed", "early_stopped")


@dataclass(frozen=True)
class Measure:
    """What is taken of each run: a number made from the rows that have the tag `of`.

    | take | number |
    |---|---|
    | `last`, `first` | the value of the last, of the first row |
    | `best`, `highest` | the smallest, the largest value |
    | `largest_rise` | how far the series rises above its smallest value so far, at most (its largest drawup; ≥ 0) |
    | `mean_of_last`, `std_of_last` | mean, sample standard deviation (n − 1) of the last `value` rows |
    | `slope_of_last` | least-squares slope over the last `value` rows, per step |
    | `first_step_at_least`, `first_step_at_most` | the step of the first row that reaches the threshold `value` |

    `never` is the number of a run that came to its end without reaching the threshold, `diverged` that of a run that
    diverged; `total_steps` is the length of the run. Raises BadInput when these keys do not fit together.
    """

    of: str
    take: Take
    value: float | None = None
    never: float | Literal["total_steps"] | None = None
    diverged: float | Literal["total_steps"] | None = None

    def __post_init__(self) -> None:
        fewest = FEWEST_ROWS.get(self.take)
        if fewest is not None:
            if self.value is None or self.value < fewest or self.value != int(self.value):
                allowed = f"a number of rows ≥ {fewest}"
                raise BadInput(f"value={_shown(self.value)}: take={self.take} needs {allowed}")
        elif self.take in THRESHOLDS:
            if self.value is None:
                raise BadInput(f"value=null: take={self.take} needs the value to be reached")
        elif self.value is not None:
            raise BadInput(f"value={self.value}: take={self.take} takes none")
        if self.never is not None and self.take not in THRESHOLDS:
            raise BadInput(f"never={self.never}: take={self.take} takes none; it is for {' and '.join(THRESHOLDS)}")
        if self.diverged == "total_steps" and self.take not in THRESHOLDS:
            raise BadInput(f"diverged=total_steps: take={self.take} is no step; it is for {' and '.join(THRESHOLDS)}")


class Censored(float):
    """A threshold that was never reached: all that is known of the step is that it is no smaller."""


def measured(
    rows: Sequence[Mapping[str, float]], status: str, measure: Measure, total_steps: int | None = None
) -> float | None:
    """Return what `measure` takes of a run with these rows of metrics.jsonl, this status and this length, or None.

    None stands for a run that has no such number: it failed, was interrupted or still runs; it diverged and the
    measure has no value for that; it never logged the tag; it has fewer rows than are asked for; a value that goes
    into the number is not finite; or it never reached the threshold and `never` is not given.
    """
    if status == "diverged":
        return _instead(measure, measure.diverged, total_steps)
    if status not in FINISHED:
        return None
    chosen = [row for row in rows if measure.of in row]
    if not chosen:  # without `never`: a tag that nobody logs is a mistake and no slow run
        return None
    steps, values = [row["step"] for row in chosen], [row[measure.of] for row in chosen]
    if measure.take in THRESHOLDS:
        return _first_step(steps, values, measure, total_steps)
    if measure.take in FEWEST_ROWS:
        assert measure.value is not None
        count = int(measure.value)
        if len(values) < count:
            return None
        steps, values = steps[-count:], values[-count:]
    elif measure.take in ("first", "last"):
        values = [values[0 if measure.take == "first" else -1]]
    if not all(math.isfinite(value) for value in values):
        return None
    return _taken(steps, values, measure.take)


def _instead(measure: Measure, given: float | str | None, total_steps: int | None) -> float | None:
    """Return the number of a run that has none of its own."""
    number = total_steps if isinstance(given, str) else given
    return number if number is None or measure.take not in THRESHOLDS else Censored(number)


def _first_step(
    steps: Sequence[float], values: Sequence[float], measure: Measure, total_steps: int | None
) -> float | None:
    threshold = measure.value
    assert threshold is not None
    for step, value in zip(steps, values, strict=True):
        if value >= threshold if measure.take == "first_step_at_least" else value <= threshold:
            return float(step)
    return _instead(measure, measure.never, total_steps)


def _taken(steps: Sequence[float], values: Sequence[float], take: Take) -> float | None:
    """Return the number of a series of finite values."""
    match take:
        case "best":
            return min(values)
        case "highest":
            return max(values)
        case "largest_rise":
            return max(value - lowest for value, lowest in zip(values, accumulate(values, min), strict=True))
        case "std_of_last":
            return stdev(values)
        case "slope_of_last":
            try:
                return linear_regression(steps, values).slope
            except StatisticsError:  # all rows are of one step
                return None
        case _:  # one value of its own, or the mean of the last ones
            return fmean(values)


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"
