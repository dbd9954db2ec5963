"""The straight line through a noisy curve, against SciPy."""

from __future__ import annotations

import math
import random

import pytest
from scipy.stats import linregress

from optexp.diagnosis.trend import Trend, trend


def test_slope_and_error_are_those_of_scipy() -> None:
    dice = random.Random(1)
    steps = [1, 10, 20, 30, 45, 70, 71]
    values = [3 - 0.01 * step + dice.gauss(0, 0.1) for step in steps]
    found, expected = trend(steps, values), linregress(steps, values)
    assert found is not None
    assert (found.slope, found.error) == pytest.approx((expected.slope, expected.stderr), rel=1e-9)
    assert found.significance == pytest.approx(expected.slope / expected.stderr)
    assert found.as_dict() == {
        "slope_per_step": found.slope,
        "standard_error": found.error,
        "from_step": 1,
        "to_step": 71,
    }


@pytest.mark.parametrize(
    ("slope", "error", "text"),
    [
        (-2.13e-5, 4.1e-6, "0.00213 ± 0.00041 per 100 steps"),
        (0.0765, 0.00989, "7.65 ± 0.99 per 100 steps"),
        (0.0, 0.0, "0 ± 0 per 100 steps"),
        (1e300, math.inf, f"{1e302:,.0f} ± inf per 100 steps"),
        (-30.0, 4.0, "3,000 ± 400 per 100 steps"),
        (-0.01, 0.0, "1.000 ± 0.000 per 100 steps"),
    ],
)
def test_a_slope_is_written_as_precisely_as_it_is_known(slope: float, error: float, text: str) -> None:
    assert Trend(slope, error, 1.0, 0, 100).per_hundred_steps() == text


def test_an_exact_line_is_certain_and_too_few_points_are_nothing() -> None:
    exact = trend([0, 1, 2, 3], [4, 3, 2, 1])
    assert exact is not None
    assert exact.significance < -1e6
    assert trend([0, 1, 2], [1, 1, 1]) is None
    flat = trend([0, 1, 2, 3], [2, 2, 2, 2])
    assert flat is not None
    assert flat.significance == 0
