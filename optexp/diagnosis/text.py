"""A diagnosis in three lines, for the end of a run."""

from __future__ import annotations

from optexp.diagnosis.command import repaired_command
from optexp.diagnosis.findings import Diagnosis, Finding
from optexp.diagnosis.history import History
from optexp.diagnosis.values import decades, percent


def three_lines(diagnosis: Diagnosis, history: History, program: str = "optexp") -> list[str]:
    """Return outcome with numbers, the first cause with its confidence, and the command that repairs it.

    Nothing for a run with nothing to report; fewer lines where no cause, or no command, is known.
    """
    if diagnosis.outcome == "trained" and not diagnosis.findings:
        return []
    lines = [f"{diagnosis.outcome}: {diagnosis.summary}"]
    if not diagnosis.findings:
        return [*lines, "no cause stands out"]
    first = diagnosis.findings[0]
    others = f"; also {', '.join(f.cause for f in diagnosis.findings[1:])}" if len(diagnosis.findings) > 1 else ""
    lines.append(f"likely cause: {headline(first)}{others}")
    repair = advice(first, history, program)
    return [*lines, f"try: {repair}"] if repair else lines


def headline(finding: Finding) -> str:
    """Return a cause with its confidence and, for a step, how far off it is: `step-too-small (98 %, 3.1 decades)`."""
    size = "" if finding.decades is None else f", {decades(abs(finding.decades))}"
    return f"{finding.cause} ({percent(min(finding.confidence, 0.99))}{size})"


def advice(finding: Finding, history: History, program: str = "optexp") -> str | None:
    """Return the command of a finding's prescription, or its words where the run's own are unknown."""
    if not finding.prescription:
        return None
    return repaired_command(history, finding.prescription, program) or " ".join(finding.prescription)
