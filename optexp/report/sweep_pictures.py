"""The pictures of a sweep's page: results over what was swept, learning curves, and the settings side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optexp.records.reading import Run
from optexp.report.figures.grid import heat_map_figure
from optexp.report.figures.learning import legend_labels, looks_of, points
from optexp.report.figures.panels import response_panel, settings_panel
from optexp.report.figures.style import PALETTE
from optexp.report.grouping import LOST, SEED, finite_values, is_number, levels
from optexp.report.parts import Entry, Gallery, Picture, entry, side_by_side
from optexp.report.sweep_directory import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = ("val/loss", "val/accuracy", "train/loss")
MOST_RESPONSES, MOST_COLUMNS = 6, 8

PAGE_WIDTH, LEAST_COLUMN = 125, 15
"""Characters that fit beside each other on the widest page, and those that a column takes at least (see the style)."""

ARM = "arm"
"""The key that tells the members of a study apart; their settings would make long names."""


def result_pictures(sweep: Sweep, gallery: Gallery) -> tuple[list[tuple[Picture, list[Entry]]], bool]:
    """Return the metric over what was swept, and whether the pictures are wide.

    That is a heat map for two numbers, else one picture per setting, with the lines of its legend.
    """
    keys = [key for key in sweep.keys if key != SEED]
    metrics = [m for m in (sweep.metric, "val/accuracy") if any(finite_values([row], m) for row in sweep.rows)]
    if not keys or not metrics:
        return [], False
    numeric = [key for key in keys if all(map(is_number, levels(sweep.rows, key)))]
    if len(keys) == 2 and len(numeric) == 2:
        figures = [_map(sweep, keys, metric) for metric in metrics]
        seeded = "cells: mean over seeds; " if any(len(group.rows) > 1 for group in sweep.settings) else ""
        caption = f"{seeded}brighter is better, the best is framed; hatched: no value"
        titles = [f"{metric} over {' and '.join(keys)}" for metric in metrics]
        pictures = [gallery.picture(figure, title, caption) for figure, title in zip(figures, titles, strict=True)]
        return [(picture, []) for picture in pictures], figures[0].get_size_inches()[0] > 6.5
    across = numeric[:1] or keys[:1] if len(keys) <= 2 else (numeric or keys)[:MOST_RESPONSES]
    found = []
    for key in across:
        for metric in metrics if len(across) == 1 else metrics[:1]:
            figure, families = response_panel(sweep.rows, key, metric, keys)
            lines = [entry(text, "", {"color": colour}) for text, colour in zip(families, PALETTE, strict=False)]
            caption = _response_caption(sweep, alone=bool(families))
            picture = gallery.picture(figure, f"{metric} against {key}", caption)
            found.append((picture, lines if len(lines) > 1 else []))
    return found, False


def _response_caption(sweep: Sweep, alone: bool) -> str:
    sizes = [len(group.rows) for group in sweep.settings]
    if not alone:
        return "small dots: members; large dots: the best at each value"
    if max(sizes) == 1:
        return "dots: members"
    return "small dots: seeds; large dots: their mean" + (", in its 95 % interval" if max(sizes) > 2 else "")


def _map(sweep: Sweep, keys: Sequence[str], metric: str) -> Figure:
    x_key, y_key = sorted(keys, key=lambda key: -len(levels(sweep.rows, key)))
    return heat_map_figure(sweep.rows, x_key, y_key, metric)


def curve_pictures(sweep: Sweep, gallery: Gallery) -> tuple[list[Picture], list[Entry], str]:
    """Return the learning curves, one picture per metric; their legend, one line per setting; and how to read them."""
    runs = {member.number: member.run for member in sweep.members if member.run is not None}
    groups = [[runs[row["#"]] for row in group.rows if row["#"] in runs] for group in sweep.settings]
    groups = [group for group in groups if group]
    if not groups:
        return [], [], ""
    firsts = [group[0] for group in groups]
    looks, labels = looks_of(firsts), setting_names(sweep, firsts)
    legend = [entry(text, _remark(group), look) for text, group, look in zip(labels, groups, looks, strict=True)]
    tags = [tag for tag in CURVES if any(points(run, tag) for group in groups for run in group)]
    pictures = [
        gallery.picture(settings_panel(groups, looks, tag), f"{tag} against the step, one line per setting")
        for tag in tags
    ]
    return pictures, legend, _curve_caption(groups)


def setting_names(sweep: Sweep, firsts: Sequence[Run]) -> list[str]:
    """Return what to call each setting, given its first run: the arm of a study, else what differs in the configs."""
    if ARM in sweep.keys:
        swept = {id(member.run): member.swept for member in sweep.members}
        arms = [str(swept[id(run)][ARM]) for run in firsts]
        if len(set(arms)) == len(arms):
            return arms
        return [" ".join(str(swept[id(run)][key]) for key in sweep.keys if key != SEED) for run in firsts]
    if len(firsts) == 1:
        return ["all members"] if len(sweep.runs) > 1 else [firsts[0].name]
    return legend_labels(firsts, leaving_out=[SEED])


def settings_table(sweep: Sweep) -> tuple[list[str], list[list[str]]] | None:
    """Return the settings in which few groups differ, side by side: headings, and one row per key. None for many."""
    runs = {member.number: member.run for member in sweep.members if member.run is not None}
    having = [next((runs[row["#"]] for row in group.rows if row["#"] in runs), None) for group in sweep.settings]
    firsts = [run for run in having if run is not None]
    if not 2 <= len(firsts) <= MOST_COLUMNS:
        return None
    rows = [[key, *values] for key, values in side_by_side(firsts) if key != SEED]
    return ["", *setting_names(sweep, firsts)], rows


def is_narrow(table: tuple[list[str], list[list[str]]]) -> bool:
    """Return whether a table of settings fits into a page; headings and keys are never broken, values are."""
    headings, rows = table
    first = max((len(row[0]) for row in rows), default=0)
    return first + sum(max(len(heading) + 3, LEAST_COLUMN) for heading in headings[1:]) <= PAGE_WIDTH


def _curve_caption(groups: Sequence[Sequence[Run]]) -> str:
    parts = []
    if any(len(group) > 1 for group in groups):
        parts.append("thick: mean over seeds; thin: each seed")
    if any(len(group) > 2 for group in groups):
        parts.append("band: 95 % interval of the mean")
    if any(run.status == "diverged" for group in groups for run in group):
        parts.append("cross: diverged")
    return "; ".join(parts)


def _remark(group: Sequence[Run]) -> str:
    """Return how many of a setting's runs ended in another way than well."""
    counts = Counter(run.status for run in group if run.status in (*LOST, "interrupted", "running"))
    of = f" of {len(group)}" if len(group) > 1 else ""
    return ", ".join(f"{count}{of} {status}" if of else status for status, count in counts.items())
