"""`optexp resume DIR`: go on with an interrupted run from its last checkpoint, in the same directory."""

from __future__ import annotations

from pathlib import Path

from optexp.commands import Parser, add_trust
from optexp.config.check import check
from optexp.errors import BadInput, Exit
from optexp.records.reading import read_run


def main(argv: list[str]) -> int:
    """Resume a run; returns its exit status."""
    parser = Parser(
        "resume",
        "Go on with an interrupted, failed or diverged run from its last checkpoint, in the same directory.\n"
        "On a CPU the result is, bit for bit, that of a run that was never interrupted.",
        "  optexp resume outputs/runs/2026-01-31/120000-digits-resnet-sgd",
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="the run directory")
    add_trust(parser)
    options = parser.parse_args(argv)
    run = read_run(options.dir)
    if run.status in ("completed", "early_stopped"):
        print(f"nothing to resume: the run is {run.status.replace('_', ' ')} after {run.last_step} steps")
        return Exit.DONE
    if run.status == "running":
        raise BadInput(f"{options.dir}: is still running (process {run.info['process']['pid']})")
    choices = run.info.get("choices") or {}
    config = {**run.config, "trust": options.trust}
    engine = check(config, choices, ["trust"])

    from optexp.assemble import assemble  # only now torch is needed
    from optexp.run import execute

    command = ["optexp", "resume", *argv]
    training = assemble(config, engine, choices, resuming=True)
    return int(execute(training, options.dir, command, resume=True).exit_status)
