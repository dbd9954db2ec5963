"""Fitting the confidences of the diagnosis to planted faults: from the score of a cause to a probability.

One logistic curve for all causes, by maximum likelihood with the smoothed targets of Platt ("Probabilistic Outputs for
Support Vector Machines", 1999), which keep it finite where scores separate hits from misses without an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
from plants import Plant
from scipy.optimize import minimize

from optexp.diagnosis import calibration
from optexp.diagnosis.diagnose import scores
from optexp.diagnosis.history import History
from optexp.records.reading import Run


def logistic(scores: Sequence[float], hits: Sequence[bool]) -> tuple[float, float]:
    """Return slope and offset of the curve 1 / (1 + exp(-(slope · score + offset))) of the largest likelihood."""
    score, hit = np.asarray(scores, dtype=float), np.asarray(hits, dtype=bool)
    positive, negative = int(hit.sum()), int((~hit).sum())
    target = np.where(hit, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(pair: np.ndarray) -> tuple[float, np.ndarray]:
        z = pair[0] * score + pair[1]
        slack = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - target
        return float((np.logaddexp(0, z) - target * z).sum()), np.array([(slack * score).sum(), slack.sum()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS")
    return float(found.x[0]), float(found.x[1])


def samples(runs: Iterable[tuple[Plant, Run]]) -> list[tuple[float, bool]]:
    """Return of every cause that was weighed in runs whose fault is known its score, and whether it is right."""
    return [
        (calibration.clipped(score), cause in plant.right | plant.part)
        for plant, run in runs
        for cause, score in scores(History.of_run(run))
    ]


def fit(runs: Iterable[tuple[Plant, Run]]) -> tuple[float, float]:
    """Fit the curve to runs whose fault is known and write it where the diagnosis reads it."""
    slope, offset = logistic(*zip(*samples(runs), strict=True))
    about = "confidence = 1 / (1 + exp(-(slope * score + offset))), fitted by scripts/fault_benchmark --fit"
    content = {"about": about, "slope": round(slope, 3), "offset": round(offset, 3)}
    calibration.FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    calibration.curve.cache_clear()
    return slope, offset
