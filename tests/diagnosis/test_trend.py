"""The straight line through a noisy curve, against SciPy."""

from __future__ import annotations

import random

import pytest
from scipy.stats import linregress

from optexp.diagnosis.trend import trend


def test_slope_and_error_are_those_of_scipy() -> None:
    dice = random.Random(1)
    steps = [1, 10, 20, 30, 45, 70, 71]
    values = [3 - 0.01 * step + dice.gauss(0, 0.1) for step in steps]
    found, expected = trend(steps, values), linregress(steps, values)
    assert found is not None
    assert (found.slope, found.error) == pytest.approx((expected.slope, expected.stderr), rel=1e-9)
    assert found.significance == pytest.approx(expected.slope / expected.stderr)


def test_an_exact_line_is_certain_and_too_few_points_are_nothing() -> None:
    exact = trend([0, 1, 2, 3], [4, 3, 2, 1])
    assert exact is not None
    assert exact.significance < -1e6
    assert trend([0, 1, 2], [1, 1, 1]) is None
    flat = trend([0, 1, 2, 3], [2, 2, 2, 2])
    assert flat is not None
    assert flat.significance == 0
