"""What the page of a sweep says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from optexp.records.numbers import measured, setting
from optexp.report.grouping import (
    SEED,
    Mean,
    Setting,
    averaged,
    edges,
    finite_values,
    is_number,
    lower_is_better,
    ranked,
)
from optexp.report.parts import Gallery, alike, command_line, config_differences, in_common, provenance, short, words
from optexp.report.run_page import subtitle
from optexp.report.sweep_causes import causes_counted
from optexp.report.sweep_directory import Member, Sweep
from optexp.report.sweep_pictures import curve_pictures, is_narrow, result_pictures, settings_table

MOST_NOTES, MOST_RIVALS = 5, 3


def sweep_content(sweep: Sweep) -> dict[str, Any]:
    """Return what the template of a sweep shows."""
    gallery = Gallery()
    order = ranked(sweep.settings, sweep.metric)
    results, is_wide = result_pictures(sweep, gallery)
    pictures, legend, reading = curve_pictures(sweep, gallery)
    side_by_side = settings_table(sweep)
    return {
        "name": sweep.path.resolve().name,
        "subtitle": subtitle(sweep.runs),
        "metric": sweep.metric,
        "best": _best(sweep, order),
        "counts": status_counts(sweep.members),
        "causes": causes_counted(sweep.rows),
        "notes": _notes(sweep, order),
        "results": results,
        "is_wide": is_wide,
        "curves": pictures,
        "legend": legend,
        "reading": reading,
        "side_by_side": side_by_side if side_by_side and is_narrow(side_by_side) else None,
        "differences": config_differences(sweep.runs),
        "common": in_common(sweep.runs),
        "averages": _averages(sweep, order),
        "members": _table(sweep),
        "command": command_line(sweep.command),
        "provenance": provenance(sweep.runs),
    }


def status_counts(members: Sequence[Member]) -> list[tuple[str, int]]:
    """Return (status, how many members have it), the most frequent first."""
    return Counter(member.status for member in members).most_common()


def with_interval(mean: Mean) -> str:
    """Return `0.0982 (0.0811 to 0.1153, 3 seeds)`."""
    if mean.low is not None and mean.high is not None:
        estimate, low, high = alike(mean.mean, mean.low, mean.high)
        return f"{estimate} ({low} to {high}, {mean.n} seeds)"
    return measured(mean.mean) + (f" ({mean.n} seeds)" if mean.n > 1 else "")


def _name(values: dict[str, Any], member: Member) -> str:
    return words(values) or " ".join(member.overrides) or f"member {member.number}"


def _member(sweep: Sweep, row: Any) -> Member:
    return next(member for member in sweep.members if member.number == row["#"])


def _best(sweep: Sweep, order: Sequence[Setting]) -> dict[str, str] | None:
    """Return the best setting with its values, what it is tied with, and the best single member."""
    if not order:
        return None
    best, mean = order[0], order[0].mean(sweep.metric)
    assert mean is not None
    sign = 1 if lower_is_better(sweep.metric) else -1
    having = [row for row in sweep.rows if finite_values([row], sweep.metric)]
    row = min(having, key=lambda row: sign * row[sweep.metric])
    accuracy = best.mean("val/accuracy")
    top = _member(sweep, row)
    remark = f"Member #{top.number}."
    if len(best.rows) > 1:
        kind = "with its 95 % interval" if mean.low is not None else "too few of them for an interval"
        value = measured(row[sweep.metric])
        remark = f"Mean over seeds, {kind}. Best single member: #{top.number} {_name(top.swept, top)} with {value}."
    if mean.low is None and len(order) > 1:
        seeds = "one seed" if mean.n == 1 else f"{mean.n} seeds"
        remark += f" With {seeds} for the best setting, close ranks mean nothing: three give an interval."
    return {
        "setting": _name(best.values, _member(sweep, best.rows[0])),
        "tied": _tied(order, sweep.metric),
        "detail": with_interval(mean),
        "accuracy": with_interval(accuracy) if accuracy else "",
        "remark": remark,
    }


def _tied(order: Sequence[Setting], metric: str) -> str:
    """Return the settings whose mean lies in the interval of the best: `tied with lr=0.1, within …`, or nothing."""
    best = order[0].mean(metric)
    if best is None or best.low is None or best.high is None:
        return ""
    means = [(group, group.mean(metric)) for group in order[1:]]
    rivals = [words(group.values) for group, mean in means if mean and best.low <= mean.mean <= best.high]
    if not rivals:
        return ""
    more = f" and {len(rivals) - MOST_RIVALS} more" if len(rivals) > MOST_RIVALS else ""
    return f"tied with {', '.join(rivals[:MOST_RIVALS])}{more}, within the interval of the seeds"


def _notes(sweep: Sweep, order: Sequence[Setting]) -> list[str]:
    """Return what a reader must know before trusting the best value."""
    notes = []
    if order:
        for key, value, side in edges(order[0], sweep.rows):
            notes.append(
                f"The best value lies on the edge of the swept range: {key}={setting(value)} is the {side} that was "
                "tried. A wider range may hold a better one."
            )
        best = order[0].mean(sweep.metric)
        if best is not None and best.n < len(order[0].rows):
            notes.append("No setting has a value of every seed; the mean of the best is that of its survivors.")
    elif sweep.members:
        notes.append(f"No member has a value of {sweep.metric.removeprefix('best ')}.")
    torn = [group for group in sweep.settings if 0 < group.lost < len(group.rows)]
    for group in torn[:MOST_NOTES]:
        notes.append(f"{words(group.values) or 'One setting'}: {group.lost} of {len(group.rows)} seeds lost.")
    if len(torn) > MOST_NOTES:
        notes.append(f"{len(torn) - MOST_NOTES} more settings lost some of their seeds; the table below has them all.")
    return notes


Cell = tuple[str, str, str]
"""The text of a cell, what it is sorted by, and its CSS class."""


def _cell(value: Any, text: str | None = None, kind: str = "") -> Cell:
    if value is None:
        return "", "", kind
    shown = setting(value) if text is None else text
    return (shown, repr(float(value)), kind or "number") if is_number(value) else (shown, str(value), kind)


def _averages(sweep: Sweep, order: Sequence[Setting]) -> tuple[list[str], list[list[Cell]]] | None:
    """Return headings and rows of the table of settings, best first; None when no setting has two seeds."""
    if not any(len(group.rows) > 1 for group in sweep.settings):
        return None
    keys = [key for key in sweep.keys if key != SEED]
    metrics = _shown_metrics(sweep)
    without = [group for group in sweep.settings if group not in order]
    table = averaged([row for group in [*order, *without] for row in group.rows], keys, metrics)
    rows = []
    for line in table:
        cells = [_cell(line.get(key)) for key in keys]
        cells += [_cell(line["seeds"]), _cell(line["lost"], kind="number bad" if line["lost"] else "number")]
        for metric in metrics:
            half = f" ± {measured(line[f'{metric} ±'])}" if f"{metric} ±" in line else ""
            cells.append(_cell(line.get(metric), measured(line.get(metric)) + half))
        rows.append(cells)
    return [*map(short, keys), "seeds", "lost", *metrics], rows


def _shown_metrics(sweep: Sweep) -> list[str]:
    tags = dict.fromkeys(tag for row in sweep.rows for tag in row if "/" in tag and not tag.startswith("best "))
    wanted = [tag for tag in ("val/loss", "val/accuracy", "test/loss", "test/accuracy", "train/loss") if tag in tags]
    others = [tag for tag in tags if tag.startswith(("val/", "test/"))]
    return list(dict.fromkeys([sweep.metric, *wanted, *others]))


def _table(sweep: Sweep) -> tuple[list[str], list[list[Cell]]]:
    """Return headings and rows of the table of members, best first, those without a value last."""
    metrics, keys = _shown_metrics(sweep), sweep.keys or ["overrides"]
    sign = 1 if lower_is_better(sweep.metric) else -1
    reasons = any(row["reason"] for row in sweep.rows)
    diagnosis = [key for key in ("outcome", "cause") if any(key in row for row in sweep.rows)]
    pairs = sorted(
        zip(sweep.members, sweep.rows, strict=True),
        key=lambda pair: (sweep.metric not in pair[1], sign * pair[1].get(sweep.metric, 0)),
    )
    rows = []
    for member, row in pairs:
        cells = [_cell(member.number)]
        cells += [_cell(row[key]) if key in row else ("", "", "") for key in sweep.keys]
        cells += [] if sweep.keys else [_cell(" ".join(member.overrides))]
        cells.append(_cell(member.status.replace("_", " "), kind=f"status {member.status.replace(' ', '_')}"))
        cells += [_cell(row.get(key)) for key in diagnosis]
        cells += [_cell(row.get(metric), measured(row[metric]) if metric in row else "") for metric in metrics]
        rows.append([*cells, _cell(member.reason, kind="reason")] if reasons else cells)
    return ["#", *map(short, keys), "status", *diagnosis, *metrics, *(["reason"] if reasons else [])], rows
