"""A diagnosis as text, as `optexp diagnose` prints it."""

from __future__ import annotations

from optexp.diagnosis import text
from optexp.diagnosis.findings import Diagnosis
from optexp.diagnosis.history import History


def report(found: Diagnosis, history: History) -> str:
    """Return outcome, findings with evidence and repair, and what could not be looked at."""
    return "\n".join("".join(part for part, _ in line) for line in text.report(found, history))
