"""The table of optimizers as pictures: a column of dots for each measure, and the metric over learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optexp.report.figures.learning import label_decades
from optexp.report.figures.scales import brief
from optexp.report.figures.style import FAINT, PALETTE, PAPER, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

LINE = 0.3
"""Inches for each optimizer."""

BEST, OTHER = PALETTE[1], PALETTE[0]
COLUMNS = 3


def table_figure(table: Mapping[str, Any]) -> Figure:
    """Draw a panel for each measure with a dot for every optimizer, in the order of the table.

    Lines are quartiles (time) or the interval of the mean (final metric). The best is orange, and what its line
    overlaps; titles say which side is better. A triangle is a lower limit. An optimizer without a number has none.
    """
    rows, quantity = table["optimizers"], table["metric"].removeprefix("val/")
    panels: list[tuple[str, str, list[tuple[float, float, float] | None]]] = [
        ("state, bytes per parameter", "less", [_point(row["state_bytes_per_parameter"]) for row in rows]),
        ("peak memory, bytes per parameter", "less", [_point(row["peak_bytes_per_parameter"]) for row in rows]),
        ("time of a step, × SGD", "less", [_spread(row["time_ratio"], "median") for row in rows]),
        (f"steps to {quantity} {_target(table)}", "less", [_point(row["steps_to_target"]) for row in rows]),
        (
            f"final validation {quantity}",
            "less" if table["lower_is_better"] else "more",
            [_spread(row["final"], "estimate") for row in rows],
        ),
        (
            "window of learning rates, decades",
            "more",
            [_point(row["window"] and row["window"]["decades"]) for row in rows],
        ),
    ]
    is_open = [bool(row["window"] and (row["window"]["open_low"] or row["window"]["open_high"])) for row in rows]
    with new_figure(10.0, 2 * (LINE * len(rows) + 0.75)) as figure:
        axes = figure.subplots(2, COLUMNS, sharey=True, squeeze=False)
        for place, (title, better, points) in zip(axes.flat, panels, strict=True):
            _draw_column(place, title, better, points, is_open if place is axes.flat[-1] else [False] * len(rows))
        for row in axes:
            row[0].set_yticks(range(len(rows)), [brief(entry["optimizer"], 30) for entry in rows])
            row[0].set_ylim(len(rows) - 0.4, -0.6)
        figure.supxlabel(
            "arrows: the better side; orange: the best, and what cannot be told from it; "
            "lines: quartiles of the time, interval of the final mean; triangle: the grid ends first",
            fontsize=8,
        )
    return figure


def _target(table: Mapping[str, Any]) -> str:
    return "" if table["target"] is None else f"{table['target']:.3g}"


def _point(value: float | None) -> tuple[float, float, float] | None:
    return None if value is None or not math.isfinite(value) else (value, value, value)


def _spread(found: Mapping[str, float] | None, middle: str) -> tuple[float, float, float] | None:
    return None if found is None else (found["low"], found[middle], found["high"])


def _draw_column(
    axes: Axes,
    title: str,
    better: str,
    points: Sequence[tuple[float, float, float] | None],
    is_open: Sequence[bool],
) -> None:
    known = [point for point in points if point is not None]
    best = (min if better == "less" else max)(known, key=lambda point: point[1], default=None)
    ends = [end for low, _, high in known for end in (low, high)]
    if ends and min(ends) > 0 and max(ends) / min(ends) > 30:
        axes.set_xscale("log")
        axes.set_xlim(min(ends) / 1.4, max(ends) * 1.4)
        label_decades(axes.xaxis)
    elif ends:
        from_zero = better == "less" and min(ends) < 0.6 * max(ends)
        low = 0.0 if from_zero or min(ends) == 0 else min(ends)
        margin = 0.06 * (max(ends) - low) or 0.1 * abs(low) or 0.5
        axes.set_xlim(low - margin, max(ends) + margin)
        axes.locator_params(axis="x", nbins=6)
    for place, point in enumerate(points):
        if point is None:
            axes.text(0.02, place, "none", color=FAINT, size=8, va="center", transform=axes.get_yaxis_transform())
            continue
        colour = BEST if best is not None and point[0] <= best[2] and point[2] >= best[0] else OTHER
        if point[0] < point[2]:
            axes.plot([point[0], point[2]], [place, place], color=colour, linewidth=2.2, alpha=0.55)
        marker = ">" if is_open[place] else "o"
        axes.plot(point[1], place, marker, color=colour, markersize=6, markeredgecolor=PAPER)
    axes.set_title(f"{title} {'←' if better == 'less' else '→'}", fontsize=9)
    axes.spines["left"].set_visible(False)


def rates_figure(table: Mapping[str, Any]) -> Figure:
    """Draw each optimizer's final metric over its learning rates, the best one, and the window around it.

    All panels have the same axes but for the learning rates, which span as many decades in each. A cross at the foot is
    a learning rate with which some run did not come to its end.
    """
    rows, quantity = table["optimizers"], table["metric"].removeprefix("val/")
    known = [value for row in rows for value in row["curve"]["values"] if value is not None]
    across = min(4, len(rows))
    down = -(-len(rows) // across)
    with new_figure(2.5 * across, 1.9 * down + 0.3) as figure:
        grid = figure.subplots(down, across, sharey=True, squeeze=False)
        for axes in grid.flat[len(rows) :]:
            axes.set_visible(False)
        for axes, row in zip(grid.flat, rows, strict=False):
            _draw_rates(axes, row, table)
        if known:
            _scale(grid[0, 0], known, table["lower_is_better"])
        for axes in grid[:, 0]:
            axes.set_ylabel(f"final val {quantity}")
        for axes in grid.flat[max(len(rows) - across, 0) : len(rows)]:
            axes.set_xlabel("learning rate")
    return figure


def _scale(axes: Axes, known: Sequence[float], lower_is_better: bool) -> None:
    """Scale the common axis: losses by decades, accuracies as they are; room at the foot for crosses."""
    if lower_is_better and min(known) > 0:
        top = min(max(known), 30 * min(known))
        axes.set_yscale("log")
        axes.set_ylim(min(known) / 1.4, top * 1.2)
        label_decades(axes.yaxis)
        return
    reach = max(known) - min(known) or 0.1
    axes.set_ylim(min(known) - 0.12 * reach, max(known) + 0.08 * reach)


def _draw_rates(axes: Axes, row: Mapping[str, Any], table: Mapping[str, Any]) -> None:
    rates, values, window = row["curve"]["rates"], row["curve"]["values"], row["window"]
    axes.set_xscale("log")
    axes.set_xlim(rates[0] / 1.5, rates[-1] * 1.5)
    _label_rates(axes.xaxis)
    if window is not None:
        axes.axvspan(window["low"], window["high"], color=PALETTE[2], alpha=0.16, linewidth=0)
    line = [math.nan if value is None else value for value in values]
    axes.plot(rates, line, "-o", color=OTHER, markersize=3.6, linewidth=1.3)
    lost = [rate for rate, value in zip(rates, values, strict=True) if value is None]
    axes.plot(lost, [0.05] * len(lost), "X", color=PALETTE[6], markersize=6, transform=axes.get_xaxis_transform())
    if row["lr"] is not None:
        axes.plot(row["lr"], values[rates.index(row["lr"])], "D", color=BEST, markersize=6, markeredgecolor=PAPER)
    told = ""
    if window is not None:
        told = f": {'≥ ' * bool(window['open_low'] or window['open_high'])}{window['decades']:.1f} decades"
    axes.set_title(f"{brief(row['optimizer'], 20)}{told}", fontsize=9)


def _label_rates(axis: Axis) -> None:
    """Write the small decades as 1e-4, which leaves room for their neighbours."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=12))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"1e{round(math.log10(value))}" if value < 9e-3 else f"{value:g}")
    )
    axis.set_minor_formatter(NullFormatter())
