"""`optexp resume DIR`: go on with what was interrupted, in the same directory: a run, a sweep, or a study."""

from __future__ import annotations

from pathlib import Path

from optexp.commands import Parser, add_directory, repeatable_run
from optexp.config.check import check
from optexp.errors import BadInput, Exit
from optexp.records.run_directory import RUN_FILE, STUDIES_FILE, STUDY_FILE, SWEEP_FILE


def main(argv: list[str]) -> int:
    """Resume a run, a sweep or a study; returns the exit status."""
    parser = Parser(
        "resume",
        "Go on with an interrupted, failed or diverged run from its last checkpoint, in the same directory.\n"
        "On a CPU the result is, bit for bit, that of a run that was never interrupted. Of a sweep or a study\n"
        "only what is missing, failed or interrupted is trained.",
        "  optexp resume outputs/runs/2026-01-31/120000-digits-resnet-sgd\n"
        "  optexp resume outputs/sweeps/2026-01-31/120000-digits-resnet-sgd",
    )
    add_directory(parser, "a run, a sweep or a study")
    options = parser.parse_args(argv)
    if any((options.dir / file).exists() for file in (STUDY_FILE, STUDIES_FILE)):
        from optexp.studies.requests import go_on

        return go_on(options.dir, [f"trust=[{','.join(options.trust)}]"] if options.trust else [])
    if (options.dir / SWEEP_FILE).exists() and not (options.dir / RUN_FILE).exists():
        from optexp.sweeps.members import resume_sweep

        return resume_sweep(options.dir, options.trust)
    return _resume_run(options.dir, options.trust, ["optexp", "resume", *argv])


def _resume_run(path: Path, trust: list[str], command: list[str]) -> int:
    run = repeatable_run(path)
    if run.status in ("completed", "early_stopped"):
        print(f"nothing to resume: the run is {run.status.replace('_', ' ')} after {run.last_step} steps")
        return Exit.DONE
    if run.status == "running":
        raise BadInput(f"{path}: is still running (process {run.info['process']['pid']})")
    choices = run.info.get("choices") or {}
    config = {**run.config, "trust": trust}
    engine = check(config, choices, ["trust"])

    from optexp.assemble import assemble  # only now torch is needed
    from optexp.run import execute

    training = assemble(config, engine, choices, resuming=True)
    return int(execute(training, path, command, resume=True).exit_status)
