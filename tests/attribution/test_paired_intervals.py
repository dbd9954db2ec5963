"""Intervals of ratios against an own bootstrap, and what all combinations share on a seed cancels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_up import measured_of, plan_of

from optexp.attribution.answer import answer_of
from optexp.attribution.intervals import LEVEL, mean_interval, ratio_interval, widened
from optexp.statistics import Interval, bootstrap_interval, t_interval


def test_the_ratio_is_resampled_in_pairs() -> None:
    """Close to the percentiles of 20,000 resamples drawn here; of the two resampled apart the interval is far wider."""
    generator = np.random.default_rng(5)
    wholes = generator.normal(2.0, 0.5, 30)
    parts = 0.6 * wholes + generator.normal(0, 0.02, 30)
    found = ratio_interval(parts, wholes)
    drawn = generator.integers(0, 30, (20_000, 30))
    own = np.quantile(parts[drawn].mean(1) / wholes[drawn].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    apart = generator.integers(0, 30, (20_000, 30))
    loose = np.quantile(parts[drawn].mean(1) / wholes[apart].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    assert found.estimate == pytest.approx(parts.mean() / wholes.mean())
    assert [found.low, found.high] == pytest.approx(list(own), abs=0.15 * (own[1] - own[0]))
    assert loose[1] - loose[0] > 5 * (found.high - found.low)
    assert found.method == "bootstrap"


def test_of_few_seeds_the_linearized_ratio_has_students_interval() -> None:
    parts, wholes = np.array([1.0, 1.3, 0.9]), np.array([2.0, 2.2, 1.9])
    found = ratio_interval(parts, wholes)
    ratio = parts.mean() / wholes.mean()
    expected = t_interval(list(ratio + (parts - ratio * wholes) / wholes.mean()), LEVEL)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.estimate == pytest.approx(ratio)
    assert found.method == "t"


@pytest.mark.parametrize("seeds", [3, 8])
def test_an_equal_ratio_on_all_seeds_is_a_point(seeds: int) -> None:
    wholes = np.linspace(0.1, 3, seeds) ** 2
    for share in (0.0, 0.3, 1.0):
        found = ratio_interval(share * wholes, wholes)
        assert found.low == found.high == pytest.approx(share)


def test_means_are_bootstrapped_from_eight_seeds_on() -> None:
    values = np.random.default_rng(0).normal(size=8)
    assert mean_interval(values) == bootstrap_interval(list(values), LEVEL)
    assert mean_interval(values[:7]) == t_interval(list(values[:7]), LEVEL)


def test_independent_errors_add_in_quadrature() -> None:
    found = widened(Interval(1.0, 0.7, 1.4, LEVEL, 8, "bootstrap"), 0.4)
    assert (found.low, found.high) == pytest.approx((0.5, 1 + math.hypot(0.4, 0.4)))
    assert widened(found, None) is found


def test_what_a_seed_does_to_all_combinations_cancels() -> None:
    """A seed effect a hundred times the smallest share leaves no interval; the losses have a wide one."""
    seed_effect = np.random.default_rng(2).normal(0, 1, 8)
    shares = (0.7, 0.29, 0.01)
    values = {
        each: 5.0 + seed_effect - sum(share * level for share, level in zip(shares, each, strict=True))
        for each in np.ndindex(2, 2, 2)
    }
    answer = answer_of(plan_of(), measured_of(values))
    for key, share in zip(answer["shares"]["keys"], shares, strict=True):
        assert key["share"]["estimate"] == pytest.approx(share)
        assert key["share"]["high"] - key["share"]["low"] < 1e-9
    loss = answer["combinations"][0]["metric"]
    assert loss["high"] - loss["low"] > 0.5
