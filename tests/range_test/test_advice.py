"""What is said about curves that were made up: trusted, unstable, flat, cut off at an end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest

from optexp.range_test.advice import Advice, advise
from optexp.range_test.sweep import Curve, Sweep

SWEEP = Sweep()
DECADES = np.log10(SWEEP.rates)


def curve(center: float | None, seed: int = 0, noise: float = 0.05, ended: str | None = "diverged") -> Curve:
    """Return a noisy fall from 2.3 to 0.3 that is steepest at `center` and turns up at 10^0.5; None is all noise."""
    losses = np.full(len(DECADES), 2.3) if center is None else 0.3 + 2 / (1 + np.exp((DECADES - center) / 0.25))
    if ended is not None:
        losses = losses + 0.02 * np.exp((DECADES - 0.3) / 0.1)
    losses = losses + np.random.default_rng(seed).normal(0, noise, len(losses))
    return Curve(seed, losses.tolist(), ended)


def advised(centers: Sequence[float | None], **changes: str | None) -> Advice:
    return advise([curve(center, seed, **changes) for seed, center in enumerate(centers)], SWEEP)


def test_seeds_that_agree_are_trusted() -> None:
    advice = advised([-2.1, -2.0, -1.9, -2.0])
    assert advice.trusted
    assert math.log10(advice.means["steepest"]) == pytest.approx(-2.0, abs=0.06)
    assert advice.window == pytest.approx((0.1 * advice.means["steepest"], 0.5 * advice.means["steepest"]))
    assert advice.middle == pytest.approx(math.sqrt(advice.window[0] * advice.window[1]))


def test_the_spread_is_the_standard_deviation_in_decades() -> None:
    advice = advised([-2.1, -2.0, -1.7])
    decades = [math.log10(seed.rates["steepest"]) for seed in advice.seeds]
    assert advice.spreads["steepest"] == pytest.approx(statistics.stdev(decades))
    assert advice.spreads["steepest"] == pytest.approx(statistics.stdev([-2.1, -2.0, -1.7]), abs=0.08)


def test_seeds_that_disagree_are_not() -> None:
    advice = advised([-3.0, -2.0, -1.5, -2.5])
    assert not advice.trusted
    (problem,) = advice.problems
    assert "another seed would give another answer" in problem
    for remedy in ("task.seeds=8", "task.smoothing=0.4", "larger batch"):
        assert remedy in problem


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    advice = advised([None, None, None])
    assert advice.window is None
    assert advice.means == {}
    assert "never falls on 3 of 3 seeds" in advice.problems[0]


def test_one_seed_that_never_falls_is_left_out_and_told() -> None:
    advice = advised([-2.0, None, -2.0])
    assert not advice.trusted
    assert "never falls on 1 of 3 seeds" in advice.problems[0]
    assert math.log10(advice.means["steepest"]) == pytest.approx(-2.0, abs=0.06)


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_no_fall(seed: int) -> None:
    assert advise([curve(None, seed, noise=0.3)], SWEEP).means == {}


def test_a_minimum_at_the_end_of_the_range_is_told() -> None:
    advice = advised([-0.2, -0.2, -0.2], ended=None)
    assert any("still falls at the end of the range" in problem for problem in advice.problems)
    assert "task.end_lr=1000" in advice.problems[0]


def test_a_steepest_point_at_the_start_of_the_range_is_told() -> None:
    advice = advised([-7.5, -7.5, -7.5])
    assert any("at the start of the range" in problem and "1e-09" in problem for problem in advice.problems)


def test_one_seed_cannot_tell_about_others() -> None:
    advice = advised([-2.0])
    assert not advice.trusted
    assert advice.spreads["steepest"] is None
    assert "one seed" in advice.problems[0]


def test_a_curve_of_one_loss_suggests_nothing() -> None:
    advice = advise([Curve(0, [2.3], "loss is nan at step 2"), Curve(1, [], "loss is nan at step 1")], SWEEP)
    assert advice.means == {}
    assert not advice.trusted
