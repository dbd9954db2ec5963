"""The picture of a range test: loss against the learning rate, what each rule suggests, and the recommended window."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import setting
from optexp.report.figures.learning import label_decades, xy
from optexp.report.figures.style import FAINT, INK, PALETTE, new_figure
from optexp.report.grouping import mean_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = ("D", "s", "^", "v", "o")
WINDOW = PALETTE[2]


def range_test_figure(
    rates: Sequence[float],
    smoothed: Sequence[Sequence[float]],
    raw: Sequence[Sequence[float]],
    suggestions: Mapping[str, float],
    steepest: Sequence[float],
    window: tuple[float, float] | None,
    title: str,
    amplification: float = 1.0,
) -> Figure:
    """Draw the smoothed loss of each seed (thin), their mean where all have one, and its 95 % t interval.

    `raw` are the losses themselves, drawn as dots for a single seed only. `suggestions` are the means over seeds by
    rule, marked on the mean curve; `steepest` is that point of each seed, a tick at the bottom. `amplification` is
    effective learning rate over learning rate; where it is not 1, the upper axis has the effective one.
    """
    with new_figure(8.2, 4.0) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        for losses in raw if len(raw) == 1 else ():
            axes.plot(rates[: len(losses)], losses, ".", color=PALETTE[0], markersize=2, alpha=0.35)
        for losses in smoothed:
            axes.plot(rates[: len(losses)], losses, color=PALETTE[0], linewidth=0.7, alpha=0.4)
        shared = min(len(losses) for losses in smoothed)
        means = [mean_of([losses[step] for losses in smoothed]) for step in range(shared)]
        band = [
            (rate, mean.low, mean.high)
            for rate, mean in zip(rates, means, strict=False)
            if mean.low is not None and mean.high is not None
        ]
        if band:
            x, low, high = zip(*band, strict=True)
            axes.fill_between(x, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
        mean_line = [(rate, mean.mean) for rate, mean in zip(rates, means, strict=False)]
        axes.plot(*xy(mean_line), color=PALETTE[0], linewidth=1.9, label=_name_of_mean(len(smoothed)))
        bottom, top = _limits([value for losses in smoothed for value in losses])
        axes.set_ylim(bottom, top)
        if window is not None:
            label = f"1/10 to 1/2 of the steepest:\n{_short(window[0])} to {_short(window[1])}"
            axes.axvspan(*window, color=WINDOW, alpha=0.16, linewidth=0, label=label)
        axes.plot(steepest, [bottom] * len(steepest), "|", color=PALETTE[1], markersize=11, markeredgewidth=1)
        for (name, rate), marker, colour in zip(suggestions.items(), MARKERS, PALETTE[1:], strict=False):
            height = _height(mean_line, rate)
            axes.axvline(rate, color=colour, linewidth=0.8, linestyle=":")
            style: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "markersize": 7,
                "linestyle": "none",
                "zorder": 4,
            }
            axes.plot(rate, height, markeredgecolor=INK, markeredgewidth=0.5, label=f"{name}: {_short(rate)}", **style)
        axes.set_title(title, pad=10)
        axes.set(xlabel="learning rate", ylabel="training loss, smoothed")
        axes.set_xlim(rates[0], rates[-1])
        label_decades(axes.xaxis)
        if not math.isclose(amplification, 1.0):
            above = axes.secondary_xaxis("top", functions=_scaling(amplification))
            above.set_xlabel("effective learning rate", color=FAINT)
            above.xaxis.set_view_interval(rates[0] * amplification, rates[-1] * amplification)
            label_decades(above.xaxis)
        figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _name_of_mean(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"mean of {seeds} seeds" + (",\n95 % interval" if seeds > 2 else "")


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _height(line: Sequence[tuple[float, float]], rate: float) -> float:
    """Return the loss of the mean curve nearest to a learning rate."""
    return min(line, key=lambda point: abs(math.log(point[0] / rate)))[1]


def _scaling(factor: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return multiplication and division by a factor, as matplotlib wants them, of numbers and arrays."""
    return lambda x: x * factor, lambda x: x / factor


def _short(rate: float) -> str:
    return setting(float(f"{rate:.2g}"))
