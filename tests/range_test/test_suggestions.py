"""The rules against curves with known answers, and against fastai's own code where fastai has the rule."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optexp.range_test.smoothing import Array, decay_per_step, smoothed_loss, symmetric, trailing
from optexp.range_test.suggestions import knee, slide, steepest, tenth_of_minimum, valley
from optexp.range_test.sweep import Sweep

SWEEP = Sweep()
RATES = SWEEP.rates
DECADES = np.log10(RATES)


def fall(center: float, width: float = 0.25) -> Array:
    """Return a loss that falls from 2.3 to 0.3 as a logistic curve over log10(lr), steepest at `center`."""
    return 0.3 + 2.0 / (1 + np.exp((DECADES - center) / width))


def fall_and_rise(center: float, bottom: float) -> Array:
    """Return the same fall with an explosion that makes `bottom` the lowest place (the slopes of both cancel)."""
    slope = 2.0 / 0.25 * np.exp((bottom - center) / 0.25) / (1 + np.exp((bottom - center) / 0.25)) ** 2
    return fall(center) + slope * 0.1 * np.exp((DECADES - bottom) / 0.1)


def fastais_valley(rates: list[float], losses: list[float]) -> float:
    """fastai 2.7, callback/schedule.py, `valley`, without its tuple."""
    n = len(losses)
    max_start, max_end = 0, 0
    lds = [1] * n
    for i in range(1, n):
        for j in range(i):
            if (losses[i] < losses[j]) and (lds[i] < lds[j] + 1):
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    sections = (max_end - max_start) / 3
    return rates[max_start + int(sections) + int(sections / 2)]


def fastais_slide(rates: list[float], losses: list[float]) -> float:
    """fastai 2.7, callback/schedule.py, `slide` with its defaults, without its tuple."""
    gradient = np.gradient(losses)
    right = -1
    left = right - 15
    local_min_lr = rates[left]
    while (left >= -len(losses)) and (abs(gradient[right] - gradient[left]) > 0.005):
        local_min_lr = rates[left]
        right -= 1
        left -= 1
    return local_min_lr


@pytest.mark.parametrize("center", [-4.0, -2.5, -1.2])
def test_steepest_is_the_turning_point_of_a_logistic_curve(center: float) -> None:
    assert math.log10(steepest(RATES, fall(center))) == pytest.approx(center, abs=0.01)


def test_steepest_takes_no_fall_after_the_lowest_loss() -> None:
    losses = fall(-3.0)
    losses[700:720] += np.linspace(0, 5, 20)
    losses[720:] += 5 - np.minimum(np.linspace(0, 40, len(losses) - 720), 4.9)  # falls faster than ever before
    assert math.log10(steepest(RATES, losses)) == pytest.approx(-3.0, abs=0.01)


def test_a_tenth_of_the_minimum() -> None:
    losses = (DECADES + 1.5) ** 2
    assert math.log10(tenth_of_minimum(RATES, losses)) == pytest.approx(-2.5, abs=0.005)


def test_knee_of_a_plateau_that_ends_in_a_line() -> None:
    """The farthest point above the chord of two straight pieces is where they meet."""
    losses = 2.3 - 0.6 * np.maximum(DECADES + 3.2, 0)
    assert math.log10(knee(RATES, losses)) == pytest.approx(-3.2, abs=0.01)


def test_valley_of_a_single_fall() -> None:
    """The valley from -4 to -1 is the longest decrease: fastai takes the half of it, in steps (a third and a sixth)."""
    losses = np.interp(DECADES, [-7, -4, -1, 1], [2.0, 2.5, 0.5, 3.0])
    assert math.log10(valley(RATES, losses)) == pytest.approx(-2.5, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_valley_and_slide_are_those_of_fastai_on_its_own_grid(seed: int) -> None:
    """fastai's constants are for 100 steps over 8 decades."""
    rates = Sweep(num_iter=100).rates
    noise = np.random.default_rng(seed).normal(0, 0.02, 100)
    losses = 0.3 + 2 / (1 + np.exp((np.log10(rates) + 3) / 0.4)) + noise + np.exp(np.log10(rates) * 3)
    assert valley(rates, losses) == fastais_valley(rates, losses.tolist())
    assert slide(rates, losses) == fastais_slide(rates, losses.tolist())


def test_slide_does_not_depend_on_the_number_of_steps() -> None:
    found = []
    for steps in (100, 1000, 4000):
        rates = Sweep(num_iter=steps).rates
        decades = np.log10(rates)
        found.append(math.log10(slide(rates, 2 / (1 + np.exp((decades + 3) / 0.4)) + np.exp(decades * 3))))
    assert max(found) - min(found) < 0.2


def test_rules_on_a_monotone_rise_and_on_two_points() -> None:
    rise = np.linspace(1, 5, 1000)
    assert steepest(RATES, rise) == knee(RATES, rise) == valley(RATES, rise) == RATES[0]
    assert slide(RATES, np.array([2.0, 1.0])) == RATES[0]


def test_smoothing_to_both_sides_is_the_kernel_written_out() -> None:
    values = np.random.default_rng(0).normal(size=40)
    beta, places = 0.8, np.arange(40)
    weights = beta ** np.abs(places[:, None] - places[None, :])
    expected = (weights @ values) / weights.sum(1)
    np.testing.assert_allclose(symmetric(values, beta), expected, rtol=1e-12)


def test_trailing_is_adams_mean_with_bias_correction() -> None:
    values, beta, mean = [3.0, -1.0, 2.0, 5.0], 0.9, 0.0
    for place, value in enumerate(values):
        mean = beta * mean + (1 - beta) * value
        expected = mean / (1 - beta ** (place + 1))
        assert trailing(values, beta)[place] == pytest.approx(expected, rel=1e-12)


def test_smoothing_to_both_sides_does_not_lag() -> None:
    """An exponential mean over the past finds the steepest point later by about its memory; this one does not."""
    beta = decay_per_step(0.4, SWEEP.steps_per_decade)
    assert beta == pytest.approx(0.98, abs=5e-4)  # fastai's
    losses = fall(-3.0)
    assert math.log10(steepest(RATES, symmetric(losses, beta))) == pytest.approx(-3.0, abs=0.02)
    assert math.log10(steepest(RATES, trailing(losses.tolist(), beta))) > -3.0 + 0.2


def test_an_explosion_is_not_seen_before_it_happens() -> None:
    losses = fall(-3.0)
    losses[-1] = 1e12
    smoothed = smoothed_loss(losses.tolist(), SWEEP.beta)
    np.testing.assert_allclose(smoothed[:800], symmetric(fall(-3.0), SWEEP.beta)[:800], rtol=1e-2)
    assert math.log10(steepest(RATES, smoothed)) == pytest.approx(-3.0, abs=0.01)


def test_no_smoothing_changes_nothing() -> None:
    losses = fall_and_rise(-3.0, -1.0)
    np.testing.assert_array_equal(symmetric(losses, decay_per_step(0.0, 100)), losses)
    assert math.log10(RATES[int(losses.argmin())]) == pytest.approx(-1.0, abs=0.01)
