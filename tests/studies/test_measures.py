"""One number of a run: against numpy, series with known answers, and runs that have no such number."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from optexp.errors import BadInput
from optexp.records.reading import read_run
from optexp.studies.measures import Censored, Measure, measured

LOSSES = [3.0, 1.0, 2.5, 0.5, 1.5, 0.75]
STEPS = [10, 20, 30, 50, 80, 100]  # not evenly spaced
ROWS: list[dict[str, float]] = [
    row
    for step, loss in zip(STEPS, LOSSES, strict=True)
    for row in (
        {"step": step - 5, "epoch": 0.0, "time": 1.0, "train/loss": 99.0},  # rows without the tag lie between
        {"step": step, "epoch": 0.0, "time": 1.0, "val/loss": loss},
    )
]


def taken(take: Any, status: str = "completed", rows: list[dict[str, float]] = ROWS, **arguments: Any) -> float | None:
    return measured(rows, status, Measure("val/loss", take, **arguments))


@pytest.mark.parametrize(
    ("take", "arguments", "value"),
    [
        ("last", {}, 0.75),
        ("first", {}, 3.0),
        ("best", {}, 0.5),
        ("highest", {}, 3.0),
        ("largest_rise", {}, 1.5),  # from 1 to 2.5, not from 0.5 to 1.5
        ("mean_of_last", {"value": 3}, numpy.mean(LOSSES[-3:])),
        ("mean_of_last", {"value": 1}, 0.75),
        ("mean_of_last", {"value": 6.0}, numpy.mean(LOSSES)),
        ("std_of_last", {"value": 4}, numpy.std(LOSSES[-4:], ddof=1)),
        ("slope_of_last", {"value": 4}, numpy.polyfit(STEPS[-4:], LOSSES[-4:], 1)[0]),
        ("slope_of_last", {"value": 2}, -0.75 / 20),
        ("first_step_at_least", {"value": 2.5}, 10.0),
        ("first_step_at_most", {"value": 1.0}, 20.0),  # reached exactly
        ("first_step_at_most", {"value": 0.6, "never": 1000}, 50.0),
        ("first_step_at_most", {"value": 0.1, "never": 1000}, 1000),
        ("first_step_at_most", {"value": 0.1}, None),
        ("first_step_at_least", {"value": 3.5, "never": 101}, 101),
        ("mean_of_last", {"value": 7}, None),  # there are six
    ],
)
@pytest.mark.parametrize("status", ["completed", "early_stopped"])
def test_what_is_taken(take: str, arguments: dict[str, float], value: float | None, status: str) -> None:
    found = taken(take, status, **arguments)
    assert found == (None if value is None else pytest.approx(value, rel=1e-12))


def test_a_falling_series_does_not_rise() -> None:
    rows = [{"step": step, "val/loss": 1 / step} for step in range(1, 9)]
    assert taken("largest_rise", rows=rows) == 0
    # the largest rise is found by brute force over all pairs
    values = numpy.random.default_rng(0).normal(size=50).tolist()
    rows = [{"step": step, "val/loss": value} for step, value in enumerate(values)]
    rises = [later - sooner for place, later in enumerate(values) for sooner in values[: place + 1]]
    assert taken("largest_rise", rows=rows) == max(rises)


TAKES: list[tuple[str, dict[str, float]]] = [
    ("last", {}),
    ("first", {}),
    ("best", {}),
    ("highest", {}),
    ("largest_rise", {}),
    ("mean_of_last", {"value": 2}),
    ("std_of_last", {"value": 2}),
    ("slope_of_last", {"value": 2}),
    ("first_step_at_least", {"value": 1, "never": 9}),
    ("first_step_at_most", {"value": 1, "never": 9}),
]


@pytest.mark.parametrize(("take", "arguments"), TAKES)
def test_runs_that_came_to_no_good_end(take: str, arguments: dict[str, float]) -> None:
    for status in ("failed", "interrupted", "running", "not started"):
        assert taken(take, status, **arguments, diverged=7.0) is None
    assert taken(take, "diverged", **arguments) is None
    assert taken(take, "diverged", **arguments, diverged=0.1) == 0.1
    assert taken(take, "diverged", rows=[], **arguments, diverged=0) == 0
    assert taken(take, "completed", **arguments, diverged=0.1) != 0.1


@pytest.mark.parametrize(("take", "arguments"), TAKES)
def test_a_tag_that_nobody_logs_has_no_number(take: str, arguments: dict[str, float]) -> None:
    assert taken(take, rows=[{"step": 1, "train/loss": 1.0}], **arguments) is None
    assert taken(take, rows=[], **arguments) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    first = [{"step": 1, "val/loss": bad}, *ROWS]
    for take in ("first", "best", "highest", "largest_rise"):
        assert taken(take, rows=first) is None
    assert taken("last", rows=first) == 0.75  # what does not go into the number does no harm
    assert taken("mean_of_last", rows=first, value=2) == 1.125
    last = [*ROWS, {"step": 101, "val/loss": math.nan}]
    for take in ("mean_of_last", "std_of_last", "slope_of_last"):
        assert taken(take, rows=last, value=3) is None
    assert taken("last", rows=last) is None
    assert taken("first_step_at_most", rows=last, value=0.1) is None
    assert taken("first_step_at_most", rows=last, value=0.6) == 50


def test_a_slope_of_one_step_is_undefined() -> None:
    assert taken("slope_of_last", rows=[{"step": 5, "val/loss": 1.0}, {"step": 5, "val/loss": 2.0}], value=2) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"take": "last", "value": 3}, "value=3: take=last takes none"),
        ({"take": "best", "never": 3}, "never=3: take=best takes none; it is for first_step_at_least and"),
        ({"take": "mean_of_last"}, "value=null: take=mean_of_last needs a number of rows ≥ 1"),
        ({"take": "mean_of_last", "value": 0}, "value=0: take=mean_of_last needs a number of rows ≥ 1"),
        ({"take": "mean_of_last", "value": 2.5}, "value=2.5: take=mean_of_last needs a number of rows ≥ 1"),
        ({"take": "std_of_last", "value": 1}, "value=1: take=std_of_last needs a number of rows ≥ 2"),
        ({"take": "slope_of_last", "value": 1}, "value=1: take=slope_of_last needs a number of rows ≥ 2"),
        ({"take": "mean_of_last", "value": 3, "never": 1}, "never=1: take=mean_of_last takes none"),
        ({"take": "first_step_at_least"}, "value=null: take=first_step_at_least needs the value to be reached"),
    ],
)
def test_keys_that_do_not_fit_together(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        Measure("val/loss", **arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_measures_of_recorded_runs(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a"))
    assert measured(run.rows, run.status, Measure("train/loss", "last")) == 0.1
    assert measured(run.rows, run.status, Measure("val/loss", "best")) == 0.15
    assert measured(run.rows, run.status, Measure("train/accuracy", "first_step_at_least", 0.8)) == 50
    broken = read_run(make_run(tmp_path / "b", status="diverged"))
    assert measured(broken.rows, broken.status, Measure("train/loss", "best")) is None
    assert measured(broken.rows, broken.status, Measure("train/loss", "best", diverged=2.3)) == 2.3


def test_a_threshold_that_was_not_reached_counts_as_the_length_of_the_run_and_is_censored() -> None:
    measure = Measure("val/accuracy", "first_step_at_least", 0.9, never="total_steps", diverged="total_steps")
    rows = [{"step": 10, "val/accuracy": 0.5}, {"step": 20, "val/accuracy": 0.8}]
    for status in ("completed", "diverged"):
        number = measured(rows, status, measure, 300)
        assert number == 300
        assert isinstance(number, Censored)
    reached = measured([*rows, {"step": 30, "val/accuracy": 0.95}], "completed", measure, 300)
    assert reached == 30
    assert not isinstance(reached, Censored)
    assert measured(rows, "failed", measure, 300) is None


def test_a_number_of_steps_stands_for_a_step_only() -> None:
    with pytest.raises(BadInput, match="diverged=total_steps: take=last is no step"):
        Measure("val/loss", "last", diverged="total_steps")
