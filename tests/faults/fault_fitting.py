"""Fitting the confidences of the diagnosis to planted faults: from the score of a cause to a probability.

One logistic curve for each cause whose scores hold both hits and misses, and one for all together where they do not.
Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with his smoothed targets, which keep curves
finite where scores separate hits from misses without an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
from plants import Plant
from scipy.optimize import minimize
from scoring import Answer

from optexp.diagnosis import calibration
from optexp.diagnosis.account import account
from optexp.diagnosis.candidates import Case
from optexp.diagnosis.diagnose import JUDGES
from optexp.diagnosis.explaining import ranked
from optexp.diagnosis.history import History
from optexp.diagnosis.measures import Measures
from optexp.diagnosis.outcome import outcome
from optexp.records.reading import Run

FEWEST = 8
"""Hits and misses that a cause must have for a curve of its own."""


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


def scores(history: History) -> list[tuple[str, float]]:
    """Return the score of every cause that was weighed, as the diagnosis turns it into a confidence."""
    measures = Measures(history)
    ended = outcome(measures)
    case = Case(history, measures, ended, account(measures))
    candidates = [candidate for judge in JUDGES if (candidate := judge(case)) is not None]
    return [(each.cause, each.score - ended.doubt) for each in ranked(candidates)]


def fit(runs: Iterable[tuple[Plant, Run, Answer]]) -> dict[str, tuple[float, float]]:
    """Fit the curves to runs whose fault is known and write them where the diagnosis reads them."""
    samples: dict[str, list[tuple[float, bool]]] = {}
    for plant, run, _ in runs:
        for cause, score in scores(History.of_run(run)):
            samples.setdefault(cause, []).append((score, cause in plant.right))
    every = [sample for of_cause in samples.values() for sample in of_cause]
    curves = {"default": logistic(*zip(*every, strict=True))}
    for cause, of_cause in sorted(samples.items()):
        hits = sum(hit for _, hit in of_cause)
        if min(hits, len(of_cause) - hits) >= FEWEST:
            curves[cause] = logistic(*zip(*of_cause, strict=True))
    about = "confidence = 1 / (1 + exp(-(slope * score + offset))) for each cause; fitted by scripts/fault_benchmark"
    rounded = {cause: [round(number, 4) for number in curve] for cause, curve in curves.items()}
    calibration.FILE.write_text(json.dumps({"about": about, "logistic": rounded}, indent=2) + "\n", encoding="utf-8")
    calibration.parameters.cache_clear()
    return curves
