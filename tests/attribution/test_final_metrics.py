"""What a member counts with, however it ended; its measured rate; and which seeds count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optexp.attribution.outcomes import Outcome, effective_rate, final_metric, measured, measured_rate, trivial_loss

ROWS = [
    {"step": 10, "val/loss": 1.5, "val/accuracy": 0.5},
    {"step": 15},
    {"step": 20, "val/loss": 1.2, "val/accuracy": 0.6},
]


@pytest.mark.parametrize("status", ["completed", "early_stopped"])
def test_a_run_that_ended_counts_with_its_last_value(status: str) -> None:
    assert final_metric(ROWS, status, "val/loss", 2.3) == 1.2
    assert final_metric(ROWS, status, "val/accuracy", 2.3) == 0.6


def test_a_run_that_diverged_is_worth_no_more_than_no_model() -> None:
    assert final_metric(ROWS, "diverged", "val/loss", 2.3) == 2.3
    assert final_metric([*ROWS, {"step": 30, "val/loss": 9.0}], "diverged", "val/loss", 2.3) == 9.0
    assert final_metric([*ROWS, {"step": 30, "val/loss": math.nan}], "diverged", "val/loss", 2.3) == 2.3
    assert final_metric([], "diverged", "val/loss", 2.3) == 2.3
    assert final_metric(ROWS, "diverged", "val/accuracy", math.log(10)) == pytest.approx(0.1)
    assert final_metric([{"step": 1, "val/accuracy": 0.05}], "diverged", "val/accuracy", math.log(10)) == 0.05


def test_without_a_baseline_its_last_value_is_all_there_is() -> None:
    assert final_metric(ROWS, "diverged", "val/loss", None) == 1.2
    assert final_metric([], "diverged", "val/loss", None) is None


@pytest.mark.parametrize("status", ["failed", "interrupted", "not started"])
def test_a_run_without_an_end_has_none(status: str) -> None:
    assert final_metric(ROWS, status, "val/loss", 2.3) is None


def test_baselines_by_name() -> None:
    assert trivial_loss({"class frequencies": 2.3, "training mean": 1.0}) == 2.3
    assert trivial_loss({"training mean": 1.0}) == 1.0
    assert trivial_loss({"mean squared error of the true line": 0.1}) is None


def test_the_rate_is_the_median_over_probes() -> None:
    rows = [{"probe/effective_lr": value} for value in (0.1, 0.3, 0.2, math.nan, -0.5)] + [{"train/loss": 1.0}]
    assert measured_rate(rows) == 0.2
    assert measured_rate([{"train/loss": 1.0, "optim/effective_lr": 0.5}]) is None


def test_an_sgd_that_ended_before_a_probe_has_the_rate_of_its_settings() -> None:
    sgd = {"optimizer._target_": "torch.optim.SGD", "optimizer.lr": 0.1}
    rows = [{"optim/effective_lr": 0.3}, {"optim/effective_lr": 0.2}, {"val/loss": 9.0}]
    assert effective_rate(rows, sgd) == (0.2, "settings")
    assert effective_rate([{"probe/effective_lr": 0.25}, *rows], sgd) == (0.25, "probes")
    assert effective_rate([{"val/loss": 9.0}], sgd) == (None, "not logged")
    assert effective_rate(rows, sgd | {"optimizer.maximize": True}) == (None, "not positive")
    for other in ("torch.optim.Adam", "torch.optim.RMSprop", "mine.SGD"):
        assert effective_rate(rows, {"optimizer._target_": other}) == (None, "not of the SGD type")


def outcome(combination: tuple[int, ...], seed: int, value: float | None, rate: float | None = 0.1) -> Outcome:
    return Outcome(combination, seed, "completed" if value is not None else "failed", "disk", value, rate)


def test_a_seed_counts_where_every_combination_has_a_value_on_it() -> None:
    found = measured(
        [
            *(outcome((0,), seed, 2.0 + seed) for seed in range(3)),
            *(outcome((1,), seed, None if seed == 1 else 1.0 + seed) for seed in range(3)),
        ]
    )
    assert found.seeds == [0, 2]
    assert found.values[0,].tolist() == [2.0, 4.0]
    assert found.values[1,].tolist() == [1.0, 3.0]
    assert found.left_out == {1: "failed: disk"}
    assert found.statuses == {(0,): {"completed": 3}, (1,): {"completed": 2, "failed": 1}}
    assert found.rates is not None
    assert found.rates[1,].tolist() == [0.1, 0.1]


def test_one_run_without_a_rate_leaves_them_out() -> None:
    found = measured([outcome((0,), 0, 2.0), outcome((1,), 0, 1.0, rate=None)])
    assert found.rates is None
    assert np.array_equal(found.values[1,], [1.0])
    assert found.rates_from == {(0,): {"probes": 1}, (1,): {"probes": 1}}
