"""`optexp rerun DIR`: repeat a run with the same configuration, in a new directory."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from optexp.commands import Parser, add_directory, repeatable_run
from optexp.config.check import check
from optexp.errors import Exit
from optexp.records.reading import read_run
from optexp.records.run_directory import claim


def main(argv: list[str]) -> int:
    """Repeat a run and compare the ends; returns the exit status of the new run."""
    parser = Parser(
        "rerun",
        "Repeat a run with the same configuration and seed in a new directory.\n"
        "On one machine's CPU the repetition is equal bit for bit.",
        "  optexp rerun outputs/runs/2026-01-31/120000-digits-resnet-sgd",
    )
    add_directory(parser, "the run to repeat")
    options = parser.parse_args(argv)
    run = repeatable_run(options.dir)
    choices = run.info.get("choices") or {}
    config = {**run.config, "trust": options.trust}
    engine = check(config, choices, ["trust"])

    from optexp.assemble import assemble  # only now torch is needed
    from optexp.run import execute

    training = assemble(config, engine, choices)
    now = datetime.now()
    name = re.sub(r"^\d+-", "", run.path.resolve().name)
    stem = f"{now:%H%M%S}-rerun-{name}"
    path = claim(Path(config["output_dir"]) / "runs" / f"{now:%Y-%m-%d}", stem)
    result = execute(training, path, ["optexp", "rerun", *argv], run.info.get("overrides", []))
    before, after = run.metrics.get("train/loss"), read_run(path).metrics.get("train/loss")
    if result.exit_status == Exit.DONE and run.status == result.status:
        verdict = "the same" if before == after else f"{before} then, {after} now"
        print(f"\n  last train/loss of the original and the repetition: {verdict}")
    return result.exit_status
