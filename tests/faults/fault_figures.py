"""The figures of docs/diagnosis.md: confidence against the share that is right, and estimated against true decades."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import scoring
from fault_tables import Outcome
from plants import STEP_CAUSES

from optexp.report.figures.style import FAINT, PALETTE, new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Draw both figures, with all outcomes side by side: `reliability.png` and `decades.png`. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with new_figure(8.6, 3.6) as figure:
        for axes, outcome, colour in zip(_row(figure, outcomes), outcomes, PALETTE, strict=False):
            _reliability(axes, outcome, colour)
        save_png(figure, folder / "reliability.png")
    with new_figure(8.6, 3.6) as figure:
        for axes, outcome in zip(_row(figure, outcomes), outcomes, strict=True):
            _decades(axes, outcome)
        save_png(figure, folder / "decades.png")


def _row(figure: Figure, outcomes: Sequence[Outcome]) -> list[Axes]:
    """Return the axes of a picture for each outcome."""
    return list(figure.subplots(1, len(outcomes), squeeze=False)[0])


def _reliability(axes: Axes, outcome: Outcome, colour: str) -> None:
    """Draw share that is right over mean confidence of each bin, with intervals and how many findings are in it."""
    axes.plot([0.5, 1], [0.5, 1], color=FAINT, linewidth=1)
    for each in scoring.reliability(outcome.answers):
        share, interval = each.right.value, each.right.interval
        if each.confidence is None or share is None or interval is None:
            continue
        axes.plot([each.confidence] * 2, interval, color=colour, linewidth=1.5)
        axes.plot(each.confidence, share, "o", color=colour, markersize=5)
        text = f"{each.right.hits}/{each.right.of}"
        under = (each.confidence, interval[0])
        axes.annotate(text, under, (0, -3), textcoords="offset points", ha="center", va="top", fontsize=7)
    axes.set(xlim=(0.48, 1.02), ylim=(-0.08, 1.03), title=outcome.title)
    axes.set(xlabel="confidence (mean of a bin)", ylabel="share of findings that are right")


def _decades(axes: Axes, outcome: Outcome) -> None:
    """Draw the distance of the step from the good one as the first finding states it, over the true one."""
    span = [-6.0, 5.0]
    axes.plot(span, span, color=FAINT, linewidth=1)
    axes.fill_between(span, [x - 0.5 for x in span], [x + 0.5 for x in span], color=FAINT, alpha=0.15, linewidth=0)
    for cause, colour in zip(STEP_CAUSES, PALETTE, strict=False):
        pairs = scoring.decade_pairs(outcome.answers, cause)
        axes.plot(*zip(*pairs, strict=True) if pairs else ([], []), ".", color=colour, label=cause)
    axes.set(xlim=span, ylim=span, title=outcome.title, xlabel="true decades", ylabel="estimated decades")
    axes.legend(loc="upper left")
