"""What came out of a sweep: a table on the screen, `sweep.csv`, and a heat map when two numbers were swept."""

from __future__ import annotations

import contextlib
import csv
import math
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from optexp.errors import StorageError
from optexp.records.console import OUTCOME_STYLES, STATUS_STYLES, program, relative
from optexp.records.numbers import measured, setting
from optexp.records.reading import find_runs
from optexp.report.figures import heat_map
from optexp.report.grouping import SEED, averaged, by_setting, edges, ranked
from optexp.report.html import write_sweep
from optexp.report.sweep_causes import causes_counted, diagnosed, needs_explaining
from optexp.report.tables import Column, print_table
from optexp.sweeps.record import MemberRecord, SweepRecord

METRICS = ("train/loss", "val/loss", "val/accuracy", "test/loss", "test/accuracy")


def collect(folder: Path, record: SweepRecord) -> SweepRecord:
    """Return the record with each member's end, as the run directories tell it; StorageError when all are gone.

    How a member ended whose directory is gone is in sweep.json, where there is one.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder}: the directory of the sweep is gone")
    noted = {}
    with contextlib.suppress(OSError, ValueError):  # without sweep.json, or half of one, the directories tell all
        noted = {member.directory: member for member in SweepRecord.read(folder).members}
    runs = {str(run.path.relative_to(folder)): run for run in find_runs(folder)}
    members = record.members or [
        MemberRecord(number, list(run.info.get("overrides", [])), str(run.path.relative_to(folder)), {})
        for number, run in enumerate(runs.values())
    ]
    for member in members:
        run = runs.get(member.directory)
        if run is not None:
            member.status, member.reason = run.status, run.info.get("reason")
            tags = METRICS if run.info.get("task", "train") == "train" else run.metrics
            member.metrics = {tag: _finite(run.metrics[tag]) for tag in tags if tag in run.metrics}
            member.exit_status = int(run.info.get("exit_status", 0))
            member.best = run.info.get("best")
            member.outcome, member.causes = run.info.get("outcome"), list(run.info.get("causes") or [])
        elif member.directory in noted:
            member.status, member.reason = noted[member.directory].status, noted[member.directory].reason
    return SweepRecord(record.command, record.swept, members, record.status)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def summarize(folder: Path, record: SweepRecord) -> None:
    """Print the tables of members and of means over seeds, best first; write `sweep.csv`, figures and `report.html`.

    Raises StorageError.
    """
    rows = [_row(member, record.swept) for member in record.members]
    try:
        _write_csv(folder / "sweep.csv", rows)
        figure = _heat_map(folder, record)
    except OSError as error:
        raise StorageError(f"cannot write the summary to {folder}: {error.strerror or error}") from error
    print()
    ranked = sorted(rows, key=lambda row: row.get("best val/loss", math.inf))
    print_table(ranked, _columns(record.swept, ranked))
    _print_means(rows, record.swept)
    print()
    counts = {status: sum(m.status == status for m in record.members) for m in record.members for status in [m.status]}
    print("  " + ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items()))
    _print_causes(folder, record, ranked)
    print(f"  results      {relative(folder)}")
    if figure is not None:
        print(f"  heat map     {relative(figure)}")
    if record.members:
        print(f"  report       {relative(write_sweep(folder))}")
    print(f"  tensorboard  {program('tensorboard')} --logdir {relative(folder)}")
    for member in record.members:
        if member.status == "interrupted":
            trust = [word for word in member.overrides if word.startswith("trust=")]
            words = ["resume", relative(folder / member.directory), *trust]
            print(f"  resume       {program('optexp')} {shlex.join(words)}")
        elif member.status == "not started":
            print(f"  start        {program('optexp')} {shlex.join([*_config_dir(record), *member.overrides])}")


def _print_causes(folder: Path, record: SweepRecord, rows: Sequence[dict[str, Any]]) -> None:
    """Say how many members did not train well and why, and what tells more of the first of them in `rows`.

    One with a cause goes before one without: there is more to tell of it.
    """
    unwell = sorted(filter(needs_explaining, rows), key=lambda row: "cause" not in row)
    if unwell:
        print(f"  {causes_counted(rows)}")
        directory = next(member.directory for member in record.members if member.number == unwell[0]["#"])
        print(f"  why          {program('optexp')} diagnose {shlex.quote(relative(folder / directory))}")


def load_what_draws() -> None:
    """Import what figures and pages are made with: a second that can be spent while members train."""
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "jinja2"):
        import_module(name)


def _print_means(rows: Sequence[dict[str, Any]], swept: Sequence[str]) -> None:
    """Print the means of members that differ in their seed only, and say when the best lies at the end of a range."""
    metric = "best val/loss"
    order = ranked(by_setting(rows, swept), metric)
    if SEED in swept and any(len(group.rows) > 1 for group in order):
        print(f"\nmeans over seeds, ± half of the 95 % interval; ranked by {metric}, the lowest first (↓)")
        shown = [name for name in (metric, "val/accuracy") if any(name in row for row in rows)]
        keys = [key for key in swept if key != SEED]
        lines = [averaged(group.rows, swept, shown)[0] for group in order]
        titles = {metric: f"{metric} ↓"} | {f"{tag} ±": "±" for tag in shown}
        numbers = [
            Column(name, titles.get(name, ""), text=measured, numeric=True)
            for tag in shown
            for name in (tag, f"{tag} ±")
            if any(name in line for line in lines)
        ]
        columns = [Column(key, key.removeprefix("optimizer."), numeric=True) for key in keys]
        print_table(lines, [*columns, *numbers, Column("seeds", numeric=True), Column("lost", numeric=True)])
    for key, value, side in edges(order[0], rows) if order else ():
        print(f"\nthe best value lies on the edge: {key}={setting(value)} is the {side} that was tried")


def _config_dir(record: SweepRecord) -> list[str]:
    """Return the words of the sweep's command line that name the user's own folder of groups, if any."""
    words = record.command
    return words[words.index("--config-dir") :][:2] if "--config-dir" in words else []


def _row(member: MemberRecord, swept: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"#": member.number, **{key: member.swept.get(key) for key in swept}}
    if not swept:
        row["overrides"] = " ".join(member.overrides)
    row["status"] = member.status
    row |= diagnosed(member.outcome, member.causes)
    row |= {tag: value for tag, value in member.metrics.items() if value is not None}
    if member.status in ("completed", "early_stopped") and _best(member) is not None:
        row["best val/loss"] = _best(member)
    return row


def _best(member: MemberRecord) -> float | None:
    return member.best["value"] if member.best else None


def _columns(swept: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Return the columns to show: those that some row fills, the swept keys and results always."""
    settings = [Column(key, key.removeprefix("optimizer."), numeric=True) for key in swept] or [Column("overrides")]
    metrics = [tag for tag in METRICS if any(tag in row for row in rows)]
    known = {"#", *swept, "overrides", "status", "outcome", "cause", *METRICS, "best val/loss"}
    metrics += dict.fromkeys(tag for row in rows for tag in row if tag not in known)  # of tasks that are no trainings
    best = [Column("best val/loss", text=measured, numeric=True)] if not metrics or set(metrics) & set(METRICS) else []
    optional = {"train/loss": 3, "test/loss": 2}
    diagnosis = [
        Column("outcome", style=lambda outcome: OUTCOME_STYLES.get(outcome, "red")),
        Column("cause", optional=1),
    ]
    return [
        Column("#", numeric=True),
        *settings,
        Column("status", text=lambda status: status.replace("_", " "), style=lambda s: STATUS_STYLES.get(s, "")),
        *(column for column in diagnosis if any(column.key in row for row in rows)),
        *(Column(tag, text=measured, numeric=True, optional=optional.get(tag, 0)) for tag in metrics),
        *best,
    ]


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _heat_map(folder: Path, record: SweepRecord) -> Path | None:
    """Draw the best val/loss over the two swept numbers, when two numbers were swept and nothing else but seeds."""
    keys = [key for key in record.swept if key != SEED]
    if len(keys) != 2 or not record.members:
        return None
    values = [member.swept[key] for member in record.members for key in keys]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    cells = [
        {
            **member.swept,
            "status": member.status,
            "val/loss": math.nan if _best(member) is None else _best(member),
        }
        for member in record.members
    ]
    path = folder / "figures" / "heat_map.png"
    path.parent.mkdir(exist_ok=True)
    x_key, y_key = keys
    heat_map(cells, x_key, y_key, "val/loss", path)
    return path
