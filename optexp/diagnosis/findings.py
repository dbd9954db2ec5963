"""What a diagnosis says: the outcome of a run in one sentence, and causes with evidence and a repair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from optexp.diagnosis.trend import Trend


@dataclass(frozen=True)
class Finding:
    """One cause.

    `confidence` is the probability that it is among the causes, calibrated on runs whose cause is known.
    `evidence` are sentences with numbers and steps. `prescription` are override words that repair it, none where only
    a person can. `decades` tells, for causes that act on the step, how far it is from a good one (negative: too small).
    """

    cause: str
    confidence: float
    evidence: tuple[str, ...]
    prescription: tuple[str, ...] = ()
    decades: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of a run (see `outcome.OUTCOMES`), what happened in one sentence, and the findings, likeliest first.

    `unknown` names what could not be looked at because the run did not record it. `late_trend` is the line through
    the training loss of the last part of the run in which the step was not zero, None where that has too few rows.
    """

    outcome: str
    summary: str
    findings: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = field(default=())
    late_trend: Trend | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "outcome": self.outcome,
            "summary": self.summary,
            "late_train_loss": None if self.late_trend is None else self.late_trend.as_dict(),
            "findings": [
                {
                    "cause": finding.cause,
                    "confidence": round(finding.confidence, 3),
                    "decades": None if finding.decades is None else round(finding.decades, 2),
                    "evidence": list(finding.evidence),
                    "prescription": list(finding.prescription),
                }
                for finding in self.findings
            ],
            "unknown": list(self.unknown),
        }
