"""A diagnosis as text, as `optexp diagnose` prints it."""

from __future__ import annotations

from optexp.diagnosis.causes import CAUSES
from optexp.diagnosis.findings import Diagnosis
from optexp.diagnosis.history import History
from optexp.diagnosis.text import advice, headline


def report(found: Diagnosis, history: History) -> str:
    """Return outcome, findings with evidence and repair, and what could not be looked at."""
    lines = [f"{found.outcome}  {found.summary}"]
    if not found.findings:
        lines.append("nothing to report" if found.outcome == "trained" else "no cause stands out")
    for number, finding in enumerate(found.findings, 1):
        lines += ["", f"{number}. {headline(finding)}  {CAUSES[finding.cause]}"]
        lines += [f"   {sentence}" for sentence in finding.evidence]
        repair = advice(finding, history)
        lines += [f"   try  {repair}"] if repair else []
    if found.unknown:
        lines += ["", f"not known: {'; '.join(found.unknown)}"]
    return "\n".join(lines)
