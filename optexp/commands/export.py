"""optexp export: metrics as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from optexp.commands import Parser, check_output_file
from optexp.errors import BadInput, StorageError
from optexp.records.console import relative
from optexp.records.reading import Run, find_runs

POSITION = ("step", "epoch", "time")


def main(argv: list[str]) -> int:
    """Write the metrics of one or more runs to a CSV file; return the exit status.

    One line per logged step, one column per metric, an empty cell where a step has no finite value. A folder of
    runs gives one file with a first column that names the run. Raises BadInput and StorageError.
    """
    parser = Parser(
        "export",
        "Write the metrics of a run, or of all runs in a folder, to a CSV file: one line per logged step.",
        "  optexp export outputs/runs/2026-01-31/12-00-00-digits --csv run.csv\n"
        "  optexp export outputs/sweeps/2026-01-31/12-00-00-lr --csv sweep.csv",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run directory, or a folder of them")
    parser.add_argument("--csv", type=Path, required=True, metavar="FILE", help="the file to write (replaced)")
    arguments = parser.parse_args(argv)
    check_output_file("--csv", arguments.csv)
    runs = find_runs(arguments.folder)
    if not runs:
        raise BadInput(f"{arguments.folder}: holds no runs; optexp runs lists them")
    is_one_run = runs[0].path == arguments.folder
    try:
        lines = _write(runs, arguments.csv, arguments.folder, named=not is_one_run)
    except OSError as error:
        raise StorageError(f"--csv {arguments.csv}: cannot be written ({error.strerror})") from error
    print(f"{relative(arguments.csv)}: {lines:,} lines from {len(runs)} run{'s' * (len(runs) > 1)}")
    return 0


def _write(runs: Sequence[Run], file: Path, folder: Path, named: bool) -> int:
    tables = [_by_step(run) for run in runs]
    tags = dict.fromkeys(tag for table in tables for row in table for tag in row)
    header = [*POSITION, *sorted(tag for tag in tags if tag not in POSITION)]
    count = 0
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow((["run"] if named else []) + header)
        for run, table in zip(runs, tables, strict=True):
            first = [str(run.path.relative_to(folder))] if named else []
            for row in table:
                values = (row.get(tag, math.nan) for tag in header)
                writer.writerow(first + [repr(value) if math.isfinite(value) else "" for value in values])
                count += 1
    return count


def _by_step(run: Run) -> list[dict[str, float]]:
    """Return the rows with those of one step (a training row and an evaluation) put into one."""
    merged: dict[float, dict[str, float]] = {}
    for row in run.rows:
        merged.setdefault(row["step"], {}).update(row)
    return list(merged.values())
