"""`optexp diagnose RUN`: why a run did not train, with evidence and the repair as a command."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from optexp.commands import Parser, add_directory, repeatable_run, training_run
from optexp.diagnosis.causes import CAUSES
from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.findings import Diagnosis
from optexp.diagnosis.history import History
from optexp.diagnosis.text import advice, report
from optexp.errors import BadInput
from optexp.records.console import open_terminal, program, relative
from optexp.records.files import reason, write_atomically
from optexp.records.reading import Run
from optexp.records.run_directory import plain_numbers

DIAGNOSIS_FILE = "diagnosis.json"


def main(argv: list[str]) -> int:
    """Print the diagnosis of a run and write it into its directory; return the exit status.

    Raises BadInput when there is no run, or it is one of another task, or one that cannot be built as the flags ask.
    """
    width = max(map(len, CAUSES))
    parser = Parser(
        "diagnose",
        "Say why a run did not train: its outcome, and the likely causes with evidence, confidence and the command\n"
        "that repairs them. Writes DIR/diagnosis.json.\n\n"
        "With --verify the repairs are trained against the original on the same seeds, the likeliest first, until one\n"
        "helps; the runs go to OUTPUT_DIR/verifications. The exit status is 0 also when none does, and 4 when some of\n"
        "the runs failed.\n\ncauses:\n"
        + "\n".join(f"  {cause.ljust(width)}  {meaning}" for cause, meaning in CAUSES.items()),
        "  optexp diagnose outputs/runs/2026-01-31/120000-exp2_sgd_B32\n"
        "  optexp diagnose outputs/runs/2026-01-31/120000-exp2_sgd_B32 --verify\n"
        "  optexp diagnose outputs/sweeps/2026-01-31/120000-digits-resnet-sgd/0-lr_0.1 --json",
    )
    add_directory(parser, "a run, finished or not")
    parser.add_argument("--json", action="store_true", help="print the diagnosis for programs")
    parser.add_argument(
        "--curvature", action="store_true", help="measure the stability headroom at the last checkpoint, too (seconds)"
    )
    parser.add_argument("--verify", action="store_true", help="train what is prescribed, and say whether it helps")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of a verification: the run's and the next (3)")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of its runs (as many as the run's, up to 60 s)")
    arguments = parser.parse_intermixed_args(argv)
    _check(arguments)
    builds = arguments.curvature or arguments.verify
    run = repeatable_run(arguments.dir) if builds else training_run(arguments.dir)
    history = History.of_run(run)
    found = diagnose(history)
    curvature = _curvature(run, arguments.trust) if arguments.curvature else None
    content = with_earlier(as_dict(found, history, curvature), run.path / DIAGNOSIS_FILE)
    _write(run.path / DIAGNOSIS_FILE, as_json(content))
    status = 0
    if not arguments.json:
        _print(run, found, history, content)
        if curvature is not None:
            print(f"\nstability: {curvature['sentence']}")
    if arguments.verify:
        content, status = _verified(run, found, history, content, arguments, argv)
        _write(run.path / DIAGNOSIS_FILE, as_json(content))
    if arguments.json:
        print(as_json(content), end="")
    return status


def _check(arguments: argparse.Namespace) -> None:
    """Raise BadInput for options of a verification that have no sense."""
    for name, least in (("seeds", 2), ("steps", 1)):
        value = getattr(arguments, name)
        if value is not None and not arguments.verify:
            raise BadInput(f"--{name} {value}: is of a verification; add --verify")
        if value is not None and value < least:
            raise BadInput(f"--{name} {value}: allowed is a number of at least {least}")


def _verified(
    run: Run,
    found: Diagnosis,
    history: History,
    content: Mapping[str, Any],
    arguments: argparse.Namespace,
    argv: Sequence[str],
) -> tuple[dict[str, Any], int]:
    """Train what is prescribed; return the content of diagnosis.json with what came out, and the exit status."""
    from optexp.verification.text import marked, print_verification
    from optexp.verification.verify import verify

    # What is told while training is for people; with --json they read the other stream.
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        print()
        command = ["optexp", "diagnose", *argv]
        result = verify(run, found, arguments.seeds or 3, arguments.steps, arguments.trust, command)
        if result is None:
            print(f"nothing to verify: {'no repair is prescribed' if found.findings else 'no cause was found'}")
        else:
            print_verification(result, history, program("optexp"))
    return marked(content, result), 0 if result is None else result.exit_status


def _curvature(run: Run, trust: Sequence[str]) -> dict[str, Any]:
    """Return the stability headroom of a run, in words and numbers."""
    from optexp.curvature.headroom import headroom

    try:
        measured = headroom(run.path, trust)
    except BadInput as error:  # the diagnosis is there all the same
        return {"sentence": f"not measured: {error}"}
    return {**asdict(measured), "decades": measured.decades, "sentence": measured.sentence()}


def as_dict(found: Diagnosis, history: History, curvature: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of diagnosis.json: the diagnosis, with each finding its command, and what was measured."""
    content: dict[str, Any] = found.as_dict() | ({"curvature": dict(curvature)} if curvature is not None else {})
    for entry, finding in zip(content["findings"], found.findings, strict=True):
        entry["command"] = advice(finding, history)
    return content


def with_earlier(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the content with what a verification has entered into diagnosis.json, if it was of the same repairs."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        pairs = list(zip(content["findings"], earlier["findings"], strict=True))
        if any(new["prescription"] != old["prescription"] for new, old in pairs):
            return content
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or none of ours
        return content
    findings = [new | {key: old[key] for key in ("verified",) if key in old} for new, old in pairs]
    kept = {key: earlier[key] for key in ("verified", "verification") if key in earlier}
    return {**content, "findings": findings, **kept}


def as_json(content: Mapping[str, Any]) -> str:
    """Return the text of diagnosis.json."""
    return json.dumps(plain_numbers(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, content: str) -> None:
    """Write diagnosis.json; a directory that cannot be written costs a line and not the diagnosis."""
    try:
        write_atomically(path, content.encode())
    except OSError as error:
        print(f"warning: {path}: not written ({reason(error)})", file=sys.stderr)


def _print(run: Run, found: Diagnosis, history: History, content: Mapping[str, Any]) -> None:
    from rich.text import Text

    terminal = open_terminal()
    tried = [(finding.get("verified") or {}).get("sentence") for finding in content["findings"]]
    lines = report(found, history, program("optexp"), recorded=True, tried=tried)
    for line in [((relative(run.path), "bold"),), *lines]:
        terminal.print(Text.assemble(*line), soft_wrap=True)
