"""What follows from runs: the best learning rate, the window around it, and steps to a target, by hand."""

from __future__ import annotations

import math

import pytest

from optexp.optimizer_table.outcomes import Curve, Outcome, median_steps


def outcome(lr: float, final: float, seed: int = 0, status: str = "completed", loss: float = 1.0) -> Outcome:
    return Outcome("sgd", lr, seed, status, None, ((5, final / 2), (10, final)), loss)


def curve(*values: float | None, lower_is_better: bool = False, losses: tuple[float, ...] | None = None) -> Curve:
    rates = tuple(10.0 ** (place - 3) for place in range(len(values)))
    return Curve(rates, values, losses or (1.0,) * len(values), lower_is_better)


def test_a_curve_is_the_mean_over_seeds_and_has_no_value_where_one_is_lost() -> None:
    runs = [outcome(0.1, 0.8), outcome(0.1, 0.9, seed=1), outcome(1.0, 0.5), outcome(1.0, 0.9, 1, status="diverged")]
    found = Curve.of(runs, "sgd", lower_is_better=False)
    assert found.rates == (0.1, 1.0)
    assert found.values == (pytest.approx(0.85), None)
    assert found.best == 0
    assert Curve.of(runs[3:], "sgd", lower_is_better=False).best is None
    assert Curve.of(runs[3:], "sgd", lower_is_better=False).window(0.1) is None


def test_the_best_is_told_by_the_metric_and_then_by_the_loss() -> None:
    assert curve(0.1, 0.9, 0.5).best == 1
    assert curve(0.1, 0.9, 0.5, lower_is_better=True).best == 0
    assert curve(0.9, 0.9, 0.9, losses=(0.3, 0.1, 0.2)).best == 1
    assert [curve(0.9, 0.5).edge, curve(0.5, 0.9).edge, curve(0.5, 0.9, 0.5).edge] == ["low", "high", None]


def test_the_window_is_interpolated_in_decades() -> None:
    """Best 1.0 at 1e-1, so 0.9 counts: a quarter of the way to 0.6 below, half the way to 0.8 above."""
    found = curve(0.0, 0.6, 1.0, 0.8, 0.0).window(0.1)
    assert found is not None
    assert found.low == pytest.approx(10**-1.25)
    assert found.high == pytest.approx(10**-0.5)
    assert found.decades == pytest.approx(0.75)
    assert not found.open_low
    assert not found.open_high


def test_the_window_of_a_loss() -> None:
    """Best 1.0 at 1e-2, so 1.1 counts: on to 1.05, and a third of the way from there to 1.2."""
    found = curve(2.0, 1.0, 1.05, 1.2, lower_is_better=True).window(0.1)
    assert found is not None
    assert found.low == pytest.approx(10**-2.1)
    assert found.high == pytest.approx(10 ** (-1 + 1 / 3))


def test_the_window_ends_where_runs_are_lost_and_is_open_at_the_edges_of_the_grid() -> None:
    found = curve(0.95, 1.0, None, 1.0).window(0.1)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(1e-3), pytest.approx(1e-2))
    assert found.open_low
    assert not found.open_high


def test_the_window_is_one_stretch() -> None:
    """Another good stretch beyond a bad one does not count."""
    found = curve(0.95, 0.5, 1.0, 0.5).window(0.0)
    assert found is not None
    assert found.decades == 0.0


def test_steps_to_a_target() -> None:
    runs = [outcome(0.1, 0.9), outcome(0.1, 0.5, 1), outcome(0.1, 1.9, 2)]
    assert runs[0].steps_to(0.45, lower_is_better=False) == 5
    assert runs[0].steps_to(0.46, lower_is_better=False) == 10
    assert runs[0].steps_to(0.46, lower_is_better=True) == 5
    assert median_steps(runs, 0.9, False) == (10, 2)
    assert median_steps(runs, 1.0, False) == (None, 1), "two of three need forever"
    assert median_steps([], 1.0, False) == (None, 0)
    lost = outcome(0.1, 0.9, 3, status="diverged")
    assert median_steps([lost], 0.1, False) == (None, 0), "who does not come to an end reaches nothing"
    assert not math.isfinite(runs[1].steps_to(0.9, lower_is_better=False))
