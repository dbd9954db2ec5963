"""What explains what: a cause that is found makes the symptoms by which others are judged, so that these drop out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optexp.diagnosis.calibration import LIKELY, confidence
from optexp.diagnosis.candidates import Candidate

SYMPTOMS_OF_SIZE = ("step-too-small", "step-too-large", "dampened-momentum", "clipping-dominates")
SYMPTOMS_OF_STANDING_STILL = ("no-signal-in-data", "noise-dominated-batch", "late-oscillation")

EXPLAINS: dict[str, tuple[str, ...]] = {
    "frozen-parameters": (
        *(*SYMPTOMS_OF_SIZE, *SYMPTOMS_OF_STANDING_STILL),
        *("vanishing-gradients", "dead-units", "epsilon-too-large"),
    ),
    "bad-input-scale": (
        *(*SYMPTOMS_OF_SIZE, *SYMPTOMS_OF_STANDING_STILL, "overfitting"),
        *("vanishing-gradients", "exploding-gradients", "dead-units", "epsilon-too-large"),
    ),
    "exploding-gradients": (*SYMPTOMS_OF_SIZE, *SYMPTOMS_OF_STANDING_STILL, "dead-units", "overfitting"),
    "vanishing-gradients": (*SYMPTOMS_OF_SIZE, *SYMPTOMS_OF_STANDING_STILL, "epsilon-too-large", "dead-units"),
    "dead-units": ("step-too-small", *SYMPTOMS_OF_STANDING_STILL, "vanishing-gradients", "epsilon-too-large"),
    "weight-decay-too-strong": ("step-too-large", *SYMPTOMS_OF_STANDING_STILL, "dead-units", "vanishing-gradients"),
    "l2-coupled-to-adaptive-step": ("step-too-large", *SYMPTOMS_OF_STANDING_STILL, "dead-units", "vanishing-gradients"),
    "step-too-large": (*SYMPTOMS_OF_STANDING_STILL, "step-too-small", "dead-units", "overfitting"),
    "adaptive-step-exhausted": SYMPTOMS_OF_STANDING_STILL,
    "schedule-ended-early": ("step-too-small", *SYMPTOMS_OF_STANDING_STILL),
    "warmup-too-long": ("step-too-small", *SYMPTOMS_OF_STANDING_STILL),
    "no-signal-in-data": ("noise-dominated-batch", "overfitting", "late-oscillation"),
}
"""Cause to what follows from it, from the root to the leaves: of two that explain each other, the first one does."""

EXPLAINED = -0.1
"""Score that a cause has at most where another explains its symptoms: it is not reported."""


def ranked(candidates: Sequence[Candidate], doubt: float = 0.0) -> list[Candidate]:
    """Return the candidates, best first; those that a likely one explains behind all likely ones.

    Likely is what would be reported: a cause that is not explains nothing.
    """
    likely = [each for each in candidates if confidence(each.score - doubt) >= LIKELY]
    explained: set[str] = set()
    for cause, symptoms in EXPLAINS.items():
        if cause not in explained and any(each.cause == cause for each in likely):
            explained.update(symptoms)
    weighed = [
        replace(each, score=min(each.score - 1, EXPLAINED)) if each.cause in explained else each for each in candidates
    ]
    return sorted(weighed, key=lambda each: -each.score)
