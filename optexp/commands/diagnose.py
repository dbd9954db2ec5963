"""`optexp diagnose RUN`: why a run did not train, with evidence and the repair as a command."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optexp.commands import Parser, add_trust, training_run
from optexp.diagnosis.causes import CAUSES
from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.findings import Diagnosis
from optexp.diagnosis.history import History
from optexp.diagnosis.text import advice, headline
from optexp.records.console import OUTCOME_STYLES, open_terminal, program, relative
from optexp.records.files import reason, write_atomically
from optexp.records.reading import Run
from optexp.records.run_directory import plain_numbers

DIAGNOSIS_FILE = "diagnosis.json"


def main(argv: list[str]) -> int:
    """Print the diagnosis of a run and write it into its directory; return the exit status.

    Raises BadInput when there is no run, or it is one of another task.
    """
    width = max(map(len, CAUSES))
    parser = Parser(
        "diagnose",
        "Say why a run did not train: its outcome, and the likely causes with evidence, confidence and the command\n"
        "that repairs them. Writes DIR/diagnosis.json.\n\ncauses:\n"
        + "\n".join(f"  {cause.ljust(width)}  {meaning}" for cause, meaning in CAUSES.items()),
        "  optexp diagnose outputs/runs/2026-01-31/120000-exp2_sgd_B32\n"
        "  optexp diagnose outputs/sweeps/2026-01-31/120000-digits-resnet-sgd/0-lr_0.1 --json",
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="the directory of a run, finished or not")
    parser.add_argument("--json", action="store_true", help="print the diagnosis for programs")
    parser.add_argument(
        "--curvature", action="store_true", help="measure the stability headroom at the last checkpoint, too (seconds)"
    )
    add_trust(parser)
    arguments = parser.parse_args(argv)
    run = training_run(arguments.dir)
    history = History.of_run(run)
    found = diagnose(history)
    curvature = _curvature(run, arguments.trust) if arguments.curvature else None
    content = as_json(found, history, curvature)
    _write(run.path / DIAGNOSIS_FILE, content)
    if arguments.json:
        print(content, end="")
    else:
        _print(run, found, history)
        if curvature is not None:
            print(f"\nstability: {curvature['sentence']}")
    return 0


def _curvature(run: Run, trust: Sequence[str]) -> dict[str, Any]:
    """Return the stability headroom of a run, in words and numbers."""
    from optexp.curvature.headroom import headroom

    measured = headroom(run.path, trust)
    return {**asdict(measured), "decades": measured.decades, "sentence": measured.sentence()}


def as_json(found: Diagnosis, history: History, curvature: Mapping[str, Any] | None = None) -> str:
    """Return the content of diagnosis.json: the diagnosis, with each finding its command, and what was measured."""
    content: dict[str, Any] = found.as_dict() | ({"curvature": dict(curvature)} if curvature is not None else {})
    for entry, finding in zip(content["findings"], found.findings, strict=True):
        entry["command"] = advice(finding, history)
    return json.dumps(plain_numbers(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, content: str) -> None:
    """Write diagnosis.json; a directory that cannot be written costs a line and not the diagnosis."""
    try:
        write_atomically(path, content.encode())
    except OSError as error:
        print(f"warning: {path}: not written ({reason(error)})", file=sys.stderr)


def _print(run: Run, found: Diagnosis, history: History) -> None:
    from rich.text import Text

    terminal = open_terminal()

    def line(*parts: str | tuple[str, str]) -> None:
        terminal.print(Text.assemble(*parts), soft_wrap=True)

    line((relative(run.path), "bold"))
    unfinished = {"running": " so far", "interrupted": " (interrupted)", "failed": " (failed)"}.get(run.status, "")
    line((f"{found.outcome}{unfinished}", f"bold {OUTCOME_STYLES.get(found.outcome, 'red')}"), f"  {found.summary}")
    if not found.findings:
        line("nothing to report" if found.outcome == "trained" else "no cause stands out")
    for number, finding in enumerate(found.findings, 1):
        line()
        line((f"{number}. {headline(finding)}", "bold"), (f"  {CAUSES[finding.cause]}", "dim"))
        for sentence in finding.evidence:
            line(f"   {sentence}")
        command = advice(finding, history, program("optexp"))
        if command:
            line(("   try  ", "dim"), command)
    if found.unknown:
        line()
        line((f"not recorded in this run: {'; '.join(found.unknown)}", "dim"))
