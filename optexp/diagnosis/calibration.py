"""From the score of a cause to the probability that it is one of the causes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("calibration.json")

PRIOR, WEIGHT = (3.0, 0.0), 2.0
"""Slope and offset of a fit without data, and for how many runs that counts: few scores are as clear as in a fit."""

FARTHEST = 3.0
"""Scores beyond this are as good as certain: they would decide about a slope that matters near 0 only."""


@cache
def parameters() -> dict[str, tuple[float, float]]:
    """Return slope and offset of each cause's logistic curve; `default` is for those without."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {cause: (float(pair[0]), float(pair[1])) for cause, pair in content["logistic"].items()}


def confidence(cause: str, score: float) -> float:
    """Return the probability, in (0, 1), of a cause with this score."""
    slope, offset = parameters().get(cause) or parameters()["default"]
    return _logistic(slope * clipped(score) + offset)


def fit(scores: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """Return slope and offset of the logistic curve that makes what was right most likely, with a pull to the prior.

    J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999, by Newton's method.
    """
    slope, offset = PRIOR
    pairs = [(clipped(score), float(is_right)) for score, is_right in zip(scores, right, strict=True)]
    for _ in range(100):
        g0, g1 = WEIGHT * (slope - PRIOR[0]), WEIGHT * (offset - PRIOR[1])
        h00, h01, h11 = WEIGHT, 0.0, WEIGHT
        for score, is_right in pairs:
            p = _logistic(slope * score + offset)
            g0, g1, v = g0 + (p - is_right) * score, g1 + (p - is_right), p * (1 - p)
            h00, h01, h11 = h00 + v * score * score, h01 + v * score, h11 + v
        determinant = h00 * h11 - h01 * h01
        step0, step1 = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
        slope, offset = slope - step0, offset - step1
        if abs(step0) + abs(step1) < 1e-10:
            break
    return slope, offset


def clipped(score: float) -> float:
    return max(-FARTHEST, min(score, FARTHEST))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-max(min(x, 700.0), -700.0)))
