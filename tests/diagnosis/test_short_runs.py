"""Runs that are too short, or logged too rarely, for what a longer one would tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from histories import LN10, falling, history

from optexp.diagnosis import repairs
from optexp.diagnosis.account import account
from optexp.diagnosis.candidates import Case
from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.history import History
from optexp.diagnosis.measures import Measures
from optexp.diagnosis.outcome import outcome


def cosine(steps: int) -> Callable[[int], float]:
    return lambda step: 0.005 * (1 + math.cos(math.pi * step / steps))


def constant(steps: int) -> Callable[[int], float]:
    return lambda step: 0.01


def flat(step: int) -> float:
    return 2.29


def logged_every(made: History, interval: int) -> History:
    return replace(made, rows=[row for row in made.rows if row["step"] % interval == 0])


@pytest.mark.parametrize("lr", [cosine, constant])
@pytest.mark.parametrize("steps", [40, 60, 90])
def test_a_short_run_that_learns_is_slow_and_lacks_nothing_but_steps(
    steps: int, lr: Callable[[int], Callable[[int], float]]
) -> None:
    found = diagnose(history(steps, falling(LN10, 0.4 / steps), lr=lr(steps), update=6e-3))
    assert (found.outcome, found.findings) == ("slow", ())
    assert "more steps" in found.summary


def test_more_steps_are_not_advised_where_validation_does_not_follow() -> None:
    found = diagnose(history(120, falling(LN10, 0.004), val=lambda step: 2 + step / 1000, update=6e-3))
    assert (found.outcome, found.findings) == ("slow", ())
    assert "more steps" not in found.summary


@pytest.mark.parametrize("steps", [40, 60, 90])
def test_a_short_run_that_stands_still_is_stalled(steps: int) -> None:
    found = diagnose(history(steps, lambda step: 1.6, lr=cosine(steps), update=6e-3))
    assert (found.outcome, found.findings) == ("stalled", ())


def test_three_rows_do_not_tell_whether_the_loss_still_falls() -> None:
    made = logged_every(history(60, falling(LN10, 0.007), update=6e-3), 20)
    assert (diagnose(made).outcome, diagnose(made).findings) == ("unknown", ())
    assert "Too few rows" in diagnose(made).summary
    tiny = logged_every(history(60, falling(LN10, 0.007), update=1e-6), 20)
    assert diagnose(tiny).findings[0].cause == "step-too-small"


@pytest.mark.parametrize("steps", [20, 30])
def test_no_schedule_has_ended_early_in_a_run_of_two_rows(steps: int) -> None:
    """The last row of a cosine over twenty steps has a rate of zero, the one before is ten steps back."""
    found = diagnose(history(steps, flat, lr=cosine(steps), update=6e-3))
    assert (found.outcome, found.findings) == ("unknown", ())
    assert "Too short to judge" in found.summary


@pytest.mark.parametrize(("ends", "idle"), [(5, 10), (10, 20), (55, 60), (190, 200), (195, 200), (200, None)])
def test_a_rate_works_until_a_row_says_that_it_does_not(ends: int, idle: int | None) -> None:
    made = history(200, flat, lr=lambda step: 0.01 if step <= ends else 0.0)
    measures = Measures(made)
    case = Case(made, measures, outcome(measures), account(measures))
    assert repairs.idle_from(case) == idle


def test_the_loss_is_flat_after_a_schedule_that_ended_within_three_rows() -> None:
    """The line through the loss ends with the schedule, and there are too few rows before; those behind tell it."""
    made = history(400, lambda step: max(1.8, LN10 - step / 20), lr=lambda step: 0.01 if step < 15 else 0.0)
    assert diagnose(made).outcome == "stalled"
    assert diagnose(made).findings[0].cause == "schedule-ended-early"
