"""An attribution as a picture: each key's share, and every combination of changes with what it came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optexp.report.figures.learning import label_decades
from optexp.report.figures.scales import brief
from optexp.report.figures.style import EMPTY, FAINT, INK, PALETTE, PAPER, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Answer = Mapping[str, Any]

VERDICTS = {"repairs": PALETTE[2], "does not": PALETTE[1], "undecided": PALETTE[6]}
FEW = 6
"""Of more keys the dots of a combination are not joined: lines beside lines would say nothing."""

ROW = 0.3
"""Inches for each key."""


def attribution_figure(answer: Answer) -> Figure:
    """Draw the shares of all keys with their intervals, and the combinations as columns of dots under their metric.

    A filled dot is a key taken from the working side. Combinations stand in the order of how many keys they take, then
    of the metric, the better ones to the right. Decades of the effective learning rate have a panel where measured.
    """
    keys, columns = answer["keys"], len(answer["combinations"])
    bars = [kind for kind in ("shares", "decades") if answer[kind] is not None]
    above, matrix = ROW * len(keys) + 0.8, ROW * len(keys) + 0.25
    heights = [*([above] if bars else []), 2.3, matrix]
    with new_figure(max(7.5, 2.0 + 0.2 * columns), sum(heights) + 0.4) as figure:
        grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
        if bars:
            row = grid[0].subgridspec(1, len(bars))
            for place, kind in enumerate(bars):
                _draw_bars(figure.add_subplot(row[place]), answer, kind, named=place == 0)
        ordered = _ordered(answer)
        top = figure.add_subplot(grid[-2])
        _draw_metric(top, answer, ordered)
        _draw_matrix(figure.add_subplot(grid[-1], sharex=top), answer, ordered)
    return figure


def _draw_bars(axes: Axes, answer: Answer, kind: str, named: bool) -> None:
    """Draw one bar per key from zero, with its interval in ink."""
    number, scale = ("share", 100.0) if kind == "shares" else ("contribution", 1.0)
    entries = [entry[number] for entry in answer[kind]["keys"]]
    for place, found in enumerate(entries):
        low, middle, high = (scale * found[end] for end in ("low", "estimate", "high"))
        axes.barh(place, middle, height=0.62, color=PALETTE[0 if kind == "shares" else 5])
        if low < high:
            axes.plot([low, high], [place, place], color=INK, linewidth=1.6)
        text = f"{round(middle) + 0:d} %" if kind == "shares" else f"{middle:+.2f}" if abs(middle) >= 0.005 else "0"
        axes.annotate(
            text, (max(middle, high, 0.0), place), (5, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.grid(False, axis="y")
    ends = [scale * found[end] for found in entries for end in ("low", "estimate", "high")]
    reach = max(*ends, 0.0) - min(*ends, 0.0) or 1.0
    axes.set_xlim(min(*ends, 0.0) - 0.03 * reach, max(*ends, 0.0) + 0.16 * reach)
    axes.set_ylim(len(entries) - 0.4, -0.6)
    names = [brief(key["name"]) for key in answer["keys"]]
    axes.set_yticks(range(len(names)), names if named else [""] * len(names))
    axes.spines["left"].set_visible(False)
    whole = answer[kind]["whole"]["estimate"]
    if kind == "shares":
        axes.set_title(f"share of the improvement in {answer['metric']}, %", fontsize=9)
    else:
        axes.set_title(f"effective lr, decades ({whole:+.2f} in all)", fontsize=9)


def _ordered(answer: Answer) -> list[Mapping[str, Any]]:
    sign = -1 if answer["lower_is_better"] else 1
    return sorted(answer["combinations"], key=lambda each: (len(each["changed"]), sign * each["metric"]["estimate"]))


def _draw_metric(axes: Axes, answer: Answer, ordered: Sequence[Mapping[str, Any]]) -> None:
    """Draw each seed's metric and the mean in its interval, and the line from which on a combination repairs."""
    values = [value for each in ordered for value in each["per_seed"]]
    means = {len(each["changed"]): each["metric"]["estimate"] for each in ordered}
    if answer["lower_is_better"] and min(values) > 0 and max(values) / min(values) > 10:
        axes.set_yscale("log")
        axes.set_ylim(min(values) / 1.25, max(values) * 1.25)
        label_decades(axes.yaxis)
    for place, each in enumerate(ordered):
        colour = VERDICTS.get(each["verdict"] or "", INK)
        own, found = each["per_seed"], each["metric"]
        axes.plot([place] * len(own), own, "o", color=colour, markersize=3, alpha=0.35, markeredgewidth=0)
        axes.plot([place, place], [found["low"], found["high"]], color=colour, linewidth=2.2)
        axes.plot(place, found["estimate"], "D", color=colour, markersize=5.5, markeredgecolor=PAPER)
    if answer["attributable"]:
        nothing, everything = means[0], means[len(answer["keys"])]
        line = nothing + answer["recovery"] * (everything - nothing)
        axes.axhline(line, color=VERDICTS["repairs"], linewidth=1.1, linestyle="--")
        for verdict, colour in VERDICTS.items():
            if any(each["verdict"] == verdict for each in ordered):
                axes.plot([], [], "D", color=colour, markersize=5.5, markeredgecolor=PAPER, label=verdict)
        label = f"{100 * answer['recovery']:g} % of the way"
        axes.plot([], [], color=VERDICTS["repairs"], linewidth=1.1, linestyle="--", label=label)
        axes.figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    axes.set_xlim(-0.6, len(ordered) - 0.4)
    axes.grid(False, axis="x")
    axes.tick_params(axis="x", labelbottom=False)
    seeds = len(answer["seeds"])
    axes.set_title(f"{answer['metric']} at the end, {seeds} seeds, mean and {answer['level']:.0%} interval", fontsize=9)


def _draw_matrix(axes: Axes, answer: Answer, ordered: Sequence[Mapping[str, Any]]) -> None:
    """Draw which keys each combination takes from the working side."""
    for row, key in enumerate(answer["keys"]):
        taken = [place for place, each in enumerate(ordered) if key["key"] in each["changed"]]
        left = [place for place in range(len(ordered)) if place not in taken]
        axes.plot(left, [row] * len(left), "o", color=EMPTY, markersize=8, markeredgecolor=FAINT, markeredgewidth=0.5)
        axes.plot(taken, [row] * len(taken), "o", color=INK, markersize=8)
    for place, each in enumerate(ordered):
        rows = [row for row, key in enumerate(answer["keys"]) if key["key"] in each["changed"]]
        if len(rows) > 1 and len(answer["keys"]) <= FEW:
            axes.plot([place, place], [rows[0], rows[-1]], color=INK, linewidth=1.4, zorder=1)
    axes.set_ylim(len(answer["keys"]) - 0.5, -0.5)
    axes.set_yticks(range(len(answer["keys"])), [brief(key["name"]) for key in answer["keys"]])
    axes.tick_params(axis="x", labelbottom=False)
    axes.grid(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(f"filled: as in {answer['working']}; empty: as in {answer['failing']}", fontsize=8)
