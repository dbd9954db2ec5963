"""A diagnosis as text: in three lines for the end of a run, and in full."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from optexp.diagnosis.causes import CAUSES
from optexp.diagnosis.command import repaired_command
from optexp.diagnosis.findings import Diagnosis, Finding
from optexp.diagnosis.history import History
from optexp.diagnosis.values import decades, percent
from optexp.records.console import OUTCOME_STYLES

Line = tuple[tuple[str, str], ...]
"""Parts of a line, each with its style on a terminal."""

UNFINISHED = {"running": " so far", "interrupted": " (interrupted)", "failed": " (failed)"}
"""What goes behind the outcome of a run without an end."""


def three_lines(diagnosis: Diagnosis, history: History, program: str = "optexp") -> list[str]:
    """Return outcome with numbers, the first cause with its confidence, and the command that repairs it.

    Nothing for a run with nothing to report; a single line where no cause is known.
    """
    if diagnosis.outcome == "trained" and not diagnosis.findings:
        return []
    outcome = f"{diagnosis.outcome}: {diagnosis.summary}"
    if not diagnosis.findings:
        return [outcome if diagnosis.outcome == "unknown" else f"{outcome} No cause stands out."]
    first = diagnosis.findings[0]
    others = f"; also {', '.join(f.cause for f in diagnosis.findings[1:])}" if len(diagnosis.findings) > 1 else ""
    lines = [outcome, f"likely cause: {headline(first)}{others}"]
    repair = advice(first, history, program)
    return [*lines, f"try: {repair}"] if repair else lines


def report(
    diagnosis: Diagnosis,
    history: History,
    program: str = "optexp",
    *,
    recorded: bool = False,
    tried: Sequence[str | None] = (),
) -> Iterator[Line]:
    """Yield the lines of a diagnosis: outcome, findings with evidence and repair, what could not be looked at.

    A `recorded` training has a run directory, whose status people know. `tried` has what an earlier
    verification says of each finding's repair, None where it says nothing.
    """
    style = f"bold {OUTCOME_STYLES.get(diagnosis.outcome, 'red')}"
    progress = UNFINISHED.get(history.status, "") if recorded else ""
    yield (f"{diagnosis.outcome}{progress}", style), (f"  {diagnosis.summary}", "")
    if not diagnosis.findings and diagnosis.outcome != "unknown":
        yield (("nothing to report" if diagnosis.outcome == "trained" else "no cause stands out", ""),)
    for number, finding in enumerate(diagnosis.findings, 1):
        yield ()
        yield (f"{number}. {headline(finding)}", "bold"), (f"  {CAUSES[finding.cause]}", "dim")
        for sentence in finding.evidence:
            yield ((f"   {sentence}", ""),)
        if repair := advice(finding, history, program):
            yield ("   try  ", "dim"), (repair, "")
        if earlier := tried[number - 1] if tried else None:
            yield ("   tried before  ", "dim"), (earlier, "")
    if diagnosis.unknown:
        yield ()
        title = "not recorded in this run" if recorded else "not known"
        yield ((f"{title}: {'; '.join(diagnosis.unknown)}", "dim"),)


def headline(finding: Finding) -> str:
    """Return a cause with its confidence and, for a step, how far off it is: `step-too-small (98 %, 3.1 decades)`."""
    size = "" if finding.decades is None or not math.isfinite(finding.decades) else f", {decades(abs(finding.decades))}"
    return f"{finding.cause} ({percent(min(finding.confidence, 0.99))}{size})"


def advice(finding: Finding, history: History, program: str = "optexp") -> str | None:
    """Return the command of a finding's prescription, or its words where the run's own are unknown."""
    if not finding.prescription:
        return None
    return repaired_command(history, finding.prescription, program) or " ".join(finding.prescription)
