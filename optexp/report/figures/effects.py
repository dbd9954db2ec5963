"""What a study found: effects with their intervals against the smallest that matters, and what each arm measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from optexp.report.figures.learning import label_decades
from optexp.report.figures.scales import brief
from optexp.report.figures.style import FAINT, INK, PALETTE, PAPER, any_letter, new_figure
from optexp.report.grouping import mean_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICTS = {"supported": PALETTE[2], "refuted": PALETTE[1], "inconclusive": PALETTE[6]}


def effect_figure(answer: Mapping[str, Any]) -> Figure:
    """Draw an answer of a study: each seed's effect, the estimate in its interval, and the side that supports it."""
    with new_figure(4.6, 1.5) as figure:
        _draw_effect(figure.subplots(), answer)
        space_ticks(figure)
    return figure


def effects_figure(answers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw answers of a study below each other, each under its statement; those without an interval are left out."""
    drawn = [answer for answer in answers if answer.get("interval")]
    with new_figure(7.0, 1.45 * max(len(drawn), 1)) as figure:
        for axes, answer in zip(figure.subplots(max(len(drawn), 1), 1, squeeze=False)[:, 0], drawn, strict=False):
            _draw_effect(axes, answer)
            axes.set_title(f"{answer['verdict']}: {answer['statement']}", loc="left", fontsize=9, wrap=True)
        space_ticks(figure)
    return figure


def _draw_effect(axes: Axes, answer: Mapping[str, Any]) -> None:
    interval, smallest = answer["interval"], float(answer["smallest"])
    seeds = [float(value) for value in answer.get("per_seed") or [] if value is not None and math.isfinite(value)]
    bounds = [float(interval[name]) for name in ("low", "estimate", "high")]
    numbers = [*seeds, *bounds, smallest]
    axes.grid(False, axis="y")
    if min(numbers) > 0 and max(numbers) / min(numbers) > 100:
        axes.set_xscale("log")
        axes.set_xlim(min(numbers) / 2, max(numbers) * 2)
        label_decades(axes.xaxis)
    else:
        wide = [*numbers, 0.0] if _is_near_zero(numbers) else numbers
        margin = 0.08 * (max(wide) - min(wide)) or 0.1 * abs(smallest) or 1.0
        axes.set_xlim(min(wide) - margin, max(wide) + margin)
        axes.locator_params(axis="x", nbins=6)
        if min(axes.get_xlim()) < 0 < max(axes.get_xlim()):
            axes.axvline(0, color=FAINT, linewidth=0.8)
    left, right = axes.get_xlim()
    supported = (smallest, right) if answer.get("supported_if") == "above" else (left, smallest)
    axes.axvspan(*supported, color=VERDICTS["supported"], alpha=0.13, linewidth=0)
    axes.axvline(smallest, color=VERDICTS["supported"], linewidth=1.2, linestyle="--")
    colour = VERDICTS.get(str(answer.get("verdict")), INK)
    axes.plot(seeds, [-0.55] * len(seeds), "|", color=FAINT, markersize=9, markeredgewidth=1.2)
    axes.plot([bounds[0], bounds[2]], [0.2, 0.2], color=colour, linewidth=3, solid_capstyle="butt")
    axes.plot(bounds[1], 0.2, "D", color=colour, markersize=8, markeredgecolor=PAPER)
    axes.set(ylim=(-1, 1), yticks=[], xlabel=str(answer.get("unit") or ""))
    axes.spines["left"].set_visible(False)


def ranked_figure(effects: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw main effects and interactions below each other in the order given, each seed, mean and interval.

    An effect is `{"factors": names, "interval": …, "per_seed": …}`; one without an interval has its name only.
    """
    with new_figure(7.0, 0.36 * len(effects) + 0.95) as figure:
        axes = figure.subplots()
        axes.grid(False, axis="y")
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.locator_params(axis="x", nbins=6)
        for place, effect in enumerate(effects):
            seeds = [float(value) for value in effect["per_seed"] if value is not None and math.isfinite(value)]
            _draw_seeds(axes, place, seeds)
            if (interval := effect["interval"]) is not None:
                _draw_interval(axes, place, interval["low"], interval["estimate"], interval["high"])
        axes.set(title=title, ylim=(len(effects) - 0.4, -0.5))
        axes.set_yticks(range(len(effects)), [" × ".join(effect["factors"]) for effect in effects])
        axes.spines["left"].set_visible(False)
        space_ticks(figure)
    return figure


def space_ticks(figure: Figure) -> None:
    """Keep every tick of the horizontal axes, or every second, or every third …, so that no two labels touch."""
    with any_letter():
        figure.draw_without_rendering()  # places everything
    for axes in figure.axes:
        left, right = sorted(axes.get_xlim())
        ticks = [
            (place, label)
            for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if left <= place <= right and label.get_text()
        ]
        boxes = [label.get_window_extent() for _, label in ticks]
        gap = boxes[0].height / 2 if boxes else 0.0
        step = next(
            step for step in range(1, len(ticks) + 2) if all(a.x1 + gap <= b.x0 for a, b in pairwise(boxes[::step]))
        )
        kept = ticks[::step]
        axes.set_xticks([place for place, _ in kept], [label.get_text() for _, label in kept])


def _is_near_zero(numbers: Sequence[float]) -> bool:
    """Return whether zero can stand in a picture of these numbers without squeezing them."""
    low, high = min(numbers), max(numbers)
    return (low > 0 and low < 2 * (high - low)) or (high < 0 and -high < 2 * (high - low)) or low <= 0 <= high


def measure_figure(measured: Mapping[str, Mapping[str, Sequence[float | None]]], measure: str) -> Figure:
    """Draw one measure of all arms: each seed a stroke, the mean a diamond in its 95 % t interval.

    `measured` is arm to measure to one value per seed; what has no value is counted at the arm's end of the line.
    """
    arms = [arm for arm in measured if measured[arm].get(measure)]
    values = [[v for v in measured[arm][measure] if v is not None and math.isfinite(v)] for arm in arms]
    every = [value for line in values for value in line]
    with new_figure(4.6, 0.36 * len(arms) + 0.95) as figure:
        axes = figure.subplots()
        axes.grid(False, axis="y")
        if every and min(every) > 0 and max(every) / min(every) > 30:
            axes.set_xscale("log")
            axes.set_xlim(min(every) / 1.4, max(every) * 1.4)
            label_decades(axes.xaxis)
        else:
            axes.locator_params(axis="x", nbins=6)
        for place, (arm, line) in enumerate(zip(arms, values, strict=True)):
            _draw_seeds(axes, place, line)
            if line:
                _draw_mean(axes, line, place)
            missing = len(measured[arm][measure]) - len(line)
            if missing:
                edge = axes.get_yaxis_transform()
                axes.text(
                    1, place + 0.32, f"{missing} without a value", ha="right", va="center", size=8, transform=edge
                )
        axes.set(title=measure, ylim=(len(arms) - 0.4, -0.5))
        axes.set_yticks(range(len(arms)), [brief(arm) for arm in arms])
        axes.spines["left"].set_visible(False)
        space_ticks(figure)
    return figure


def _draw_mean(axes: Axes, line: Sequence[float], place: float) -> None:
    mean = mean_of(line)
    low = mean.low
    if low is not None and axes.get_xscale() == "log":
        low = max(low, axes.get_xlim()[0])
    _draw_interval(axes, place, low, mean.mean, mean.high)


def _draw_seeds(axes: Axes, place: float, values: Sequence[float]) -> None:
    axes.plot(values, [place + 0.28] * len(values), "|", color=FAINT, markersize=6, markeredgewidth=1.1)


def _draw_interval(axes: Axes, place: float, low: float | None, mean: float, high: float | None) -> None:
    """Draw a mean in its interval in ink: colours mean verdicts here, and arms in the curves of the same page."""
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=INK, linewidth=2.4, alpha=0.5)
    axes.plot(mean, place, "D", color=INK, markersize=6, markeredgecolor=PAPER)
