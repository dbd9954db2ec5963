"""From scores to probabilities."""

from __future__ import annotations

import math
import random

import pytest
from scipy.optimize import minimize

from optexp.diagnosis import calibration
from optexp.diagnosis.causes import CAUSES


def test_the_fit_is_the_most_likely_curve() -> None:
    dice = random.Random(3)
    scores = [dice.uniform(-2, 2) for _ in range(300)]
    right = [dice.random() < 1 / (1 + math.exp(-(2 * score - 0.5))) for score in scores]

    def loss(x: list[float]) -> float:
        pairs = zip(scores, right, strict=True)
        misfit = sum(math.log1p(math.exp(-(1 if yes else -1) * (x[0] * score + x[1]))) for score, yes in pairs)
        prior = calibration.PRIOR
        return misfit + calibration.WEIGHT / 2 * ((x[0] - prior[0]) ** 2 + (x[1] - prior[1]) ** 2)

    expected = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8}).x
    assert calibration.fit(scores, right) == pytest.approx(tuple(expected), abs=1e-4)
    assert calibration.fit([], []) == calibration.PRIOR


def test_confidence_is_a_probability_that_rises_with_the_score() -> None:
    for cause in CAUSES:
        values = [calibration.confidence(cause, score) for score in (-math.inf, -1, 0, 0.5, 1, math.inf)]
        assert values == sorted(values)
        assert 0 < values[0] < 0.01
        assert 0.99 < values[-1] < 1


def test_the_calibration_names_causes_of_the_vocabulary_only() -> None:
    assert set(calibration.parameters()) <= {"default", *CAUSES}
