"""optexp runs: list runs with their status and main numbers."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optexp.commands import Parser
from optexp.records.console import OUTCOME_STYLES, STATUS_STYLES, relative
from optexp.records.numbers import duration, measured, setting
from optexp.records.reading import Run, find_runs
from optexp.records.run_directory import VERIFICATIONS
from optexp.report.effective_rate import differing_effective_lr
from optexp.report.tables import Column, print_table, table_width, terminal_width

DEFAULT_FOLDER = Path("outputs")


COLUMNS = (
    Column("run"),
    Column("status", style=lambda status: STATUS_STYLES.get(status, "")),
    Column("outcome", style=lambda outcome: OUTCOME_STYLES.get(outcome, "red")),
    Column("dataset", optional=5),
    Column("model", optional=4),
    Column("optimizer", optional=2),
    Column("lr", numeric=True, optional=1),
    Column("effective lr", numeric=True, optional=3),
    Column("steps", text=str, numeric=True, optional=6),
    Column("val/loss", text=measured, numeric=True),
    Column("val/accuracy", title="val/acc", text=measured, numeric=True),
    Column("time", text=duration, numeric=True, optional=7),
    Column("started", optional=8),
)


def main(argv: list[str]) -> int:
    """List the runs in a folder; return the exit status. Raises BadInput when the folder does not exist."""
    parser = Parser(
        "runs",
        "List the runs in a folder, sweep members included, in the order they were started. Those of verifications\n"
        "(optexp diagnose --verify) are left out unless DIR is their folder.",
        "  optexp runs\n  optexp runs outputs/sweeps\n  optexp runs --json | python -m json.tool",
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="where to look (default: outputs)")
    parser.add_argument("--json", action="store_true", help="print everything that is recorded, for programs")
    arguments = parser.parse_args(argv)
    folder = arguments.folder or DEFAULT_FOLDER
    nothing_yet = arguments.folder is None and not folder.exists()
    found = [] if nothing_yet else find_runs(folder)
    runs = [run for run in found if _verifications(run, folder) is None]
    if arguments.json:
        print(json.dumps([_finite(_record(run)) for run in runs], indent=2, ensure_ascii=False))
    elif runs:
        _print_runs(runs, folder)
    else:
        print(f"no runs in {folder} yet; optexp makes one, optexp --help says how to choose what it trains")
    if len(found) > len(runs) and not arguments.json:
        folders = sorted({str(below) for run in found if (below := _verifications(run, folder)) is not None})
        print(f"left out: {setting(len(found) - len(runs))} of verifications (optexp runs {' or '.join(folders)})")
    return 0


def _verifications(run: Run, folder: Path) -> Path | None:
    """Return the folder of verifications, below the one that is listed, that a run lies in; None for any other run."""
    parts = run.path.relative_to(folder).parts
    return folder.joinpath(*parts[: parts.index(VERIFICATIONS) + 1]) if VERIFICATIONS in parts else None


def _row(run: Run) -> dict[str, Any]:
    """Return what the table shows of a run; a value that the run does not have is left out."""
    row: dict[str, Any] = {
        "run": relative(run.path),
        "status": run.status,
        "time": run.wall_time,
        "started": run.started.astimezone().strftime("%Y-%m-%d %H:%M"),
    }
    groups = ("dataset", "model", "optimizer")
    if run.info.get("task", "train") != "train":  # what it does not read is in its config all the same
        read = run.config["task"].get("reads", groups)
        return row | {group: run.choice(group) for group in groups if group in read}
    total = run.info.get("total_steps")
    complete = total is None or run.last_step == total
    row |= {group: run.choice(group) for group in groups}
    if "outcome" in run.info:
        row["outcome"] = run.info["outcome"]
    row["steps"] = str(run.last_step) if complete else f"{run.last_step}/{total}"
    if "optimizer.lr" in run.settings:
        row["lr"] = run.settings["optimizer.lr"]
    if (effective := differing_effective_lr(run)) is not None:
        row["effective lr"] = effective
    return row | {tag: run.metrics[tag] for tag in ("val/loss", "val/accuracy") if tag in run.metrics}


def _record(run: Run) -> dict[str, Any]:
    """Return everything recorded about a run, with its path and its status as it is now."""
    now = {"status": run.status, "last_step": run.last_step, "wall_time": run.wall_time, "metrics": run.metrics}
    return {"path": relative(run.path), **run.info, **now, "config": run.config}


def _finite(value: Any) -> Any:
    """Return the value with null for what JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_runs(runs: Sequence[Run], folder: Path) -> None:
    """Print the table, and how many runs there are. Where paths leave too little room they stand above their runs."""
    rows = [_row(run) for run in runs]
    optional = ("outcome", "effective lr")
    columns = [column for column in COLUMNS if column.key not in optional or any(column.key in row for row in rows)]
    if table_width(rows, columns) <= terminal_width():
        left_out = print_table(rows, columns)
    else:
        split = [os.path.split(row["run"]) for row in rows]
        rows = [row | {"folder": above, "run": f"  {name}"} for row, (above, name) in zip(rows, split, strict=True)]
        left_out = print_table(rows, columns, group_by="folder")
    counts = Counter(run.status for run in runs)
    statuses = ", ".join(f"{counts[status]} {status.replace('_', ' ')}" for status in STATUS_STYLES if counts[status])
    print(f"\n{setting(len(runs))} run{'s' * (len(runs) > 1)} in {folder}: {statuses}")
    if left_out:
        print(f"a wider terminal also shows: {', '.join(column.heading for column in left_out)}")
