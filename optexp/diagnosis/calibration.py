"""From the score of a cause to the probability that it is one of the causes.

One logistic curve for all causes: confidence = 1 / (1 + exp(−(slope · score + offset))). Scores are made so that they
mean the same for every cause, 0 being as likely as not, and single causes have too few errors for curves of their own.
J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("calibration.json")

LIKELY = 0.5
"""Confidence from which a cause is reported."""

FARTHEST = 3.0
"""Scores beyond this are as good as certain, and alike."""


@cache
def curve() -> tuple[float, float]:
    """Return slope and offset of the curve, as `scripts/fault_benchmark --fit` has written them."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return float(content["slope"]), float(content["offset"])


def confidence(score: float) -> float:
    """Return the probability, in (0, 1), that a cause with this score is one of the causes."""
    slope, offset = curve()
    return 1 / (1 + math.exp(-(slope * clipped(score) + offset)))


def clipped(score: float) -> float:
    """Return a score between −`FARTHEST` and `FARTHEST`."""
    return max(-FARTHEST, min(score, FARTHEST))
