"""Loss curves beside the fitted lines, and the slope on its way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import measured
from optexp.report.figures.learning import label_decades
from optexp.report.figures.style import FAINT, INK, PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A group of fits is a mapping: title, restarts (steps), and fits, a list of mappings with optimizer, slopes, intercepts
# and losses at step 0 (the start), 1, …
Group = Mapping[str, Any]
Points = Sequence[tuple[float, float]]


def line_fit_figure(groups: Sequence[Group], points: Points, line: tuple[float, float]) -> Figure:
    """Draw a row for each group: the losses of its fits, and their last lines among the points and the true `line`."""
    with new_figure(9.2, 3.1 * len(groups)) as figure:
        for (left, right), group in zip(figure.subplots(len(groups), 2, squeeze=False), groups, strict=True):
            _draw_over_steps(left, group, "losses")
            left.set_yscale("log")
            label_decades(left.yaxis)
            left.set_title(f"loss, {group['title']}")
            left.legend(loc="upper right", bbox_to_anchor=(1, 0.94))
            _draw_lines(right, group, points, line)
            right.set_title(f"y = {line[0]:g}x + {line[1]:g}, fitted")
    return figure


def slope_figure(groups: Sequence[Group], slope: float, tolerance: float) -> Figure:
    """Draw the slope of every fit against the step, one panel a group; a band is `tolerance` around the true one."""
    with new_figure(9.2, 3.1) as figure:
        for axes, group in zip(figure.subplots(1, len(groups), sharey=True, squeeze=False)[0], groups, strict=True):
            axes.axhspan(slope * (1 - tolerance), slope * (1 + tolerance), color=PALETTE[2], alpha=0.15, linewidth=0)
            axes.axhline(slope, color=FAINT, linewidth=0.9)
            _draw_over_steps(axes, group, "slopes")
            axes.set_title(f"slope, {group['title']}")
            axes.legend(loc="lower right")
    return figure


def _draw_over_steps(axes: Axes, group: Group, key: str) -> None:
    for restart in group["restarts"]:
        axes.axvline(restart, color=FAINT, linestyle=":", linewidth=1)
        axes.text(restart, 1, " restart", transform=axes.get_xaxis_transform(), size=8, color=FAINT, va="top")
    for fit, colour in zip(group["fits"], PALETTE, strict=False):
        numbers = [(step, value) for step, value in enumerate(fit[key]) if math.isfinite(value)]
        axes.plot(*zip(*numbers, strict=True), color=colour, linewidth=1.6, label=fit["optimizer"])
    axes.set_xlabel("optimizer step")
    axes.set_xlim(left=0)


def _draw_lines(axes: Axes, group: Group, points: Points, line: tuple[float, float]) -> None:
    axes.plot(*zip(*points, strict=True), "o", color=FAINT, markersize=3, alpha=0.6)
    ends = (min(x for x, _ in points), max(x for x, _ in points))
    axes.plot(ends, [line[0] * x + line[1] for x in ends], color=INK, linewidth=1, linestyle="--", label="true line")
    for fit, colour in zip(group["fits"], PALETTE, strict=False):
        slope, intercept = fit["slopes"][-1], fit["intercepts"][-1]
        if math.isfinite(slope) and math.isfinite(intercept):
            text = f"{fit['optimizer']}: {measured(slope)} x + {measured(intercept)}"
            axes.plot(ends, [slope * x + intercept for x in ends], color=colour, linewidth=1.6, label=text)
    low, high = min(y for _, y in points), max(y for _, y in points)
    axes.set(xlabel="x", ylabel="y", ylim=(low - 0.3, high + 0.3))
    axes.legend(loc="upper left", fontsize=8)
