"""From scores to probabilities."""

from __future__ import annotations

import math

import pytest

from optexp.diagnosis import calibration


def test_confidence_is_a_probability_that_rises_with_the_score() -> None:
    values = [calibration.confidence(score) for score in (-math.inf, -1, 0, 0.5, 1, math.inf)]
    assert values == sorted(values)
    assert 0 < values[0] < 0.01
    assert 0.99 < values[-1] < 1


def test_confidence_is_the_logistic_curve_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "curve", lambda: (2.0, -0.5))
    assert calibration.confidence(0.25) == pytest.approx(0.5)
    assert calibration.confidence(1.0) == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert calibration.confidence(math.inf) == pytest.approx(1 / (1 + math.exp(-5.5)))
