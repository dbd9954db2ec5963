"""The pictures of a page, one quantity each and as wide as a phone: curves, and a metric against a setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import measured, setting
from optexp.records.reading import Run
from optexp.report.figures.learning import (
    THICK,
    Points,
    draw_line,
    draw_runs,
    label_decades,
    mark_end,
    points,
    say_what_is_beyond,
    scale_loss,
    xy,
)
from optexp.report.figures.scales import brief, scale_of
from optexp.report.figures.style import FAINT, INK, PALETTE, PANEL, PAPER, new_figure
from optexp.report.grouping import (
    LOST,
    SEED,
    Mean,
    Row,
    Setting,
    by_setting,
    finite_values,
    levels,
    lower_is_better,
    mean_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Look = Mapping[str, Any]

# Curves ---------------------------------------------------------------------------------------------------------


def run_panel(run: Run, name: str, baselines: Mapping[str, float]) -> Figure:
    """Draw `loss` or `accuracy` of one run: training thin, validation thick; a dashed line for each baseline."""
    with new_figure(*PANEL) as figure:
        axes = figure.subplots()
        draw_runs(axes, [run], [{"color": PALETTE[0]}], name)
        _draw_baselines(axes, baselines)
    return figure


def quantity_panel(run: Run, tags: Sequence[str], title: str) -> Figure:
    """Draw quantities of one run that share a unit, such as learning rates; logarithmic over more than a decade."""
    with new_figure(*PANEL) as figure:
        axes = figure.subplots()
        lines = [points(run, tag) for tag in tags]
        for line, tag, colour, dash in zip(lines, tags, PALETTE, ("-", "--", ":"), strict=False):
            draw_line(axes, line, color=colour, linestyle=dash, label=tag.partition("/")[2], linewidth=1.4)
        values = [y for line in lines for _, y in line if y > 0]
        if values and max(values) / min(values) > 10:
            axes.set_yscale("log")
            low = max(min(values), max(values) / 1e12)  # a schedule that ends in zero must not flatten all before it
            axes.set_ylim(low / 1.3, max(values) * 1.3)
            label_decades(axes.yaxis)
            say_what_is_beyond(axes, [y for line in lines for _, y in line])
        axes.set(title=title, xlabel="optimizer step")
        axes.set_xlim(left=0)
        if len(tags) > 1:
            axes.legend(loc="best", fontsize=8)
    return figure


def _draw_baselines(axes: Axes, baselines: Mapping[str, float]) -> None:
    low, high = axes.get_ylim()
    for name, value in baselines.items():
        if math.isfinite(value):
            axes.axhline(value, color=FAINT, linestyle="--", linewidth=1.1)
            place = axes.get_yaxis_transform()
            style: dict[str, Any] = {"ha": "right", "va": "bottom", "size": 8, "transform": place, "in_layout": False}
            axes.text(0.99, value, f"{brief(name)} {measured(value)}", **style)
            low, high = (min(low, value * 0.9), max(high, value * 1.1)) if value > 0 else (low, high)
    if baselines:
        axes.set_ylim(low, high)


def settings_panel(settings: Sequence[Sequence[Run]], looks: Sequence[Look], tag: str) -> Figure:
    """Draw a metric of a sweep as `draw_settings` does."""
    with new_figure(*PANEL) as figure:
        draw_settings(figure.subplots(), settings, looks, tag)
    return figure


def draw_settings(axes: Axes, settings: Sequence[Sequence[Run]], looks: Sequence[Look], tag: str) -> None:
    """Draw one line per setting, the mean of a metric over its seeds, in a band that is its 95 % t interval.

    Each seed is a thin line below; the band needs three. A run that diverged or failed is not part of the mean and
    remains visible as its thin line, ending in a cross where it diverged.
    """
    runs = [run for group in settings for run in group]
    crowded = len(runs) > 24
    most = max(40, min(240, 20_000 // len(runs)))  # points of a line: pages stay small
    lines = [[points(run, tag) for run in group] for group in settings]
    for group, seeds, look in zip(settings, lines, looks, strict=True):
        whole = [line for run, line in zip(group, seeds, strict=True) if run.status not in LOST]
        faint: dict[str, Any] = {"color": look["color"], "linewidth": 0.6, "alpha": 0.3 if crowded else 0.5}
        for line in seeds if len(group) > 1 else ():
            draw_line(axes, line, most, **faint)
        mean = mean_curve(whole)
        band = [(step, m.low, m.high) for step, m in mean if m.low is not None and m.high is not None]
        if band:
            steps, low, high = zip(*band[:: math.ceil(len(band) / most)], strict=True)
            axes.fill_between(steps, low, high, color=look["color"], alpha=0.1 if crowded else 0.18, linewidth=0)
        line = [(step, m.mean) for step, m in mean] or (seeds[0] if len(group) == 1 else [])
        style = THICK if len(settings) <= 16 else THICK | {"linewidth": 1.1}
        draw_line(axes, line, most, **look, **style)
    if tag.endswith("loss"):
        scale_loss(axes, [line for seeds in lines for line in seeds], [run.status for run in runs])
    for group, seeds, look in zip(settings, lines, looks, strict=True):
        for run, line in zip(group, seeds, strict=True):
            mark_end(axes, run, line, look["color"])
    keep_shares(axes, tag)
    axes.set(title=tag, xlabel="optimizer step")
    axes.set_xlim(left=0)


def keep_shares(axes: Axes, metric: str) -> None:
    """Let no interval stretch the axis of an accuracy beyond what an accuracy can be."""
    if metric.endswith("accuracy"):
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.03), min(high, 1.03))


def mean_curve(lines: Sequence[Points]) -> list[tuple[float, Mean]]:
    """Return the mean at each step at which all of the lines have a value."""
    if not lines:
        return []
    tables = [dict(line) for line in lines]
    shared = set(tables[0]).intersection(*tables[1:])
    return [(step, mean_of([table[step] for table in tables])) for step in sorted(shared)]


# A metric over a setting ----------------------------------------------------------------------------------------


def response_panel(rows: Sequence[Row], key: str, metric: str, keys: Sequence[str]) -> tuple[Figure, list[str]]:
    """Draw a metric against one swept setting: dots are runs, lines go through the means over seeds.

    Intervals (95 %, t) stand where there are three seeds. The other swept `keys` make lines of their own when there
    are at most eight combinations of their values; otherwise one line goes through the best mean at each value.
    What diverged or failed stands as a cross above the picture. Returns the figure and the name of each line.
    """
    scale = scale_of(levels(rows, key))
    others = [other for other in keys if other not in (key, SEED)]
    families = by_setting(rows, others)
    together = len(families) > len(PALETTE)
    with new_figure(*PANEL) as figure:
        axes = figure.subplots()
        if metric.endswith("loss"):
            scale_loss(axes, [list(enumerate(finite_values(rows, metric)))], ["completed"])
        for family, colour in zip([Setting({}, list(rows))] if together else families, PALETTE, strict=False):
            dots = [(scale.place(row.get(key)), y) for row in family.rows for y in finite_values([row], metric)]
            axes.plot(*xy(dots), "o", color=FAINT if together else colour, markersize=3.5, alpha=0.55)
            cells = by_setting(family.rows, [key, *others])
            means = [(scale.place(cell.values[key]), mean) for cell in cells if (mean := cell.mean(metric))]
            _draw_means(axes, _best_at_each(means, metric), colour, joined=scale.is_spaced)
        keep_shares(axes, metric)
        lost = [scale.place(row.get(key)) for row in rows if row.get("status") in LOST]
        _draw_lost(axes, lost)
        axes.set_title(metric, pad=16 if lost else None)
        axes.set_xlabel(scale.label(key))
        reach = scale.places[-1] - scale.places[0] or 1.0
        axes.set_xlim(scale.places[0] - 0.06 * reach, scale.places[-1] + 0.06 * reach)
        scale.mark(axes.xaxis, gap=reach / 8 if scale.is_spaced else 0.0)
    if together:
        return figure, []
    names = [[f"{k.rpartition('.')[2]}={setting(v)}" for k, v in family.values.items()] for family in families]
    return figure, [" ".join(name) for name in names]


def _draw_means(axes: Axes, means: Sequence[tuple[float, Mean]], colour: str, joined: bool) -> None:
    floor = axes.get_ylim()[0] if axes.get_yscale() == "log" else -math.inf  # an interval may reach below zero
    style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 5, "linewidth": 1.5}
    axes.plot(*xy([(x, mean.mean) for x, mean in means]), **style, linestyle="-" if joined else "none")
    for x, mean in means:
        if mean.low is not None and mean.high is not None:
            axes.plot([x, x], [max(mean.low, floor), mean.high], color=colour, linewidth=2.4, alpha=0.5)


def _draw_lost(axes: Axes, places: Sequence[float]) -> None:
    """Mark above the picture where runs diverged or failed, and how many."""
    top = axes.get_ylim()[1]
    for place in sorted(set(places)):
        axes.plot(place, top, "X", color=INK, markersize=8, markeredgecolor=PAPER, clip_on=False, zorder=5)
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": 8}
        axes.annotate(f"{places.count(place)} lost", (place, top), (0, 6), **style)


def _best_at_each(means: Sequence[tuple[float, Mean]], metric: str) -> list[tuple[float, Mean]]:
    """Return the best mean at each place, from left to right."""
    sign = 1 if lower_is_better(metric) else -1
    best: dict[float, Mean] = {}
    for place, mean in sorted(means, key=lambda pair: pair[0]):
        if place not in best or sign * mean.mean < sign * best[place].mean:
            best[place] = mean
    return list(best.items())
