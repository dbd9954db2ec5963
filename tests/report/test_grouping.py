"""Rows that differ in their seed only: means, intervals, order, and where the best lies."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import stats

from optexp.report.grouping import Setting, averaged, by_setting, edges, is_log_spaced, levels, mean_of, ranked
from optexp.report.parts import alike

KEYS = ["lr", "seed"]


def row(lr: Any, seed: int, loss: float | None, status: str = "completed") -> dict[str, Any]:
    return {"lr": lr, "seed": seed, "loss": loss, "status": status}


ROWS = [
    *(row(0.1, seed, loss) for seed, loss in enumerate((1.0, 2.0, 4.0))),
    *(row(0.01, seed, loss) for seed, loss in enumerate((3.0, 5.0))),
    row(1.0, 0, 0.5),
    row(1.0, 1, 0.1, "diverged"),  # what it recorded before it diverged does not count
    row(10.0, 0, None, "failed"),
]


@pytest.mark.parametrize(("values", "level"), [((1.0, 2.0, 4.0), 0.95), ((0.3, -0.2, 0.11, 7.0, 2.5), 0.99)])
def test_the_interval_is_that_of_scipy(values: tuple[float, ...], level: float) -> None:
    mean = mean_of(values, level)
    expected = stats.t.interval(level, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
    assert (mean.low, mean.high) == pytest.approx(expected, rel=1e-12)
    assert mean.n == len(values)


def test_two_values_have_a_mean_and_no_interval() -> None:
    mean = mean_of([1.0, 2.0])
    assert (mean.mean, mean.low, mean.high, mean.n) == (1.5, None, None, 2)


def test_rows_are_grouped_without_their_seed_in_the_order_they_appear() -> None:
    groups = by_setting([ROWS[0], ROWS[3], ROWS[1]], KEYS)
    assert [(group.values, len(group.rows)) for group in groups] == [({"lr": 0.1}, 2), ({"lr": 0.01}, 1)]


def test_settings_that_cannot_be_hashed_are_grouped_too() -> None:
    rows = [{"betas": [0.9, beta], "seed": seed} for beta in (0.99, 0.999) for seed in (0, 1)]
    assert [len(group.rows) for group in by_setting(rows, ["betas", "seed"])] == [2, 2]
    assert levels(rows, "betas") == [[0.9, 0.99], [0.9, 0.999]]


def test_averages_have_an_interval_from_three_seeds_on_and_count_what_was_lost() -> None:
    three, two, half_lost, lost = averaged(ROWS, KEYS, ["loss"])
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem([1, 2, 4]))
    assert three == pytest.approx({"lr": 0.1, "seeds": 3, "lost": 0, "loss": 7 / 3, "loss ±": (high - low) / 2})
    assert two == {"lr": 0.01, "seeds": 2, "lost": 0, "loss": 4.0}
    assert half_lost == {"lr": 1.0, "seeds": 2, "lost": 1, "loss": 0.5}
    assert lost == {"lr": 10.0, "seeds": 1, "lost": 1}


def test_survivors_do_not_win() -> None:
    groups = by_setting(ROWS, KEYS)
    assert [group.values["lr"] for group in ranked(groups, "loss")] == [0.1, 0.01, 1.0]  # 0.5, but half of it is lost
    accuracies = [{"lr": lr, "accuracy": value, "status": "completed"} for lr, value in ((1, 0.2), (2, 0.9))]
    assert ranked(by_setting(accuracies, ["lr"]), "accuracy")[0].values == {"lr": 2}


def test_the_edge_of_a_range_is_one_of_three_numbers_at_least() -> None:
    rows = [{"lr": lr, "wd": wd, "name": name} for lr, wd, name in ((1, 0, "a"), (2, 1, "b"), (3, 0, "c"))]

    def found(lr: float) -> list[tuple[str, Any, str]]:
        return edges(Setting({"lr": lr, "wd": 0, "name": "a"}, []), rows)

    assert found(1) == [("lr", 1, "smallest")]
    assert found(3) == [("lr", 3, "largest")]
    assert found(2) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1e-3, 1e-2, 1e-1], True),
        ([1e-3, 3e-3, 1e-2, 3e-2], True),
        ([0, 1e-4, 1e-2], True),  # zero stands apart
        ([16, 32, 64, 128], True),
        ([1e-3, 1e-2], True),
        ([0.5, 1.0], False),
        ([1, 2, 3, 4, 5], False),
        ([0.8, 0.9, 0.95, 0.99], False),
        ([-1e-3, 1e-3, 1], False),
        ([5], False),
    ],
)
def test_what_looks_logarithmic(values: list[float], expected: bool) -> None:
    assert is_log_spaced(values) is expected


def test_values_that_are_not_finite_do_not_count() -> None:
    (group,) = by_setting([row(1, 0, math.nan), row(1, 1, 2.0), row(1, 2, math.inf)], KEYS)
    mean = group.mean("loss")
    assert mean is not None
    assert (mean.mean, mean.n) == (2.0, 1)


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ((0.78954, 0.7011, 0.8779), ("0.790", "0.701", "0.878")),
        ((-0.000926, -0.0098, 0.0079), ("-0.0009", "-0.0098", "0.0079")),
        ((2.62241, 2.62041, 2.62441), ("2.62241", "2.62041", "2.62441")),
        ((20.0, 16.0, 24.0), ("20.00", "16.00", "24.00")),
        ((1234.5, 1000.0, 1469.0), ("1,234", "1,000", "1,469")),
        ((0.1, 0.1, 0.1), ("0.1000", "0.1000", "0.1000")),
        ((5.0, 5.0, 5.0), ("5", "5", "5")),
        ((math.nan, 0.0, 1.0), ("nan", "0.00", "1.00")),
        ((1.23e15, -1.68e15, 4.15e15), ("1.23e+15", "-1.68e+15", "4.15e+15")),
    ],
)
def test_an_effect_has_as_many_digits_as_its_interval_is_worth(
    numbers: tuple[float, float, float], texts: tuple[str, str, str]
) -> None:
    assert alike(*numbers) == texts
