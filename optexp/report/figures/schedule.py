"""The learning rate over a run, on a linear and on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optexp.report.figures.learning import label_decades
from optexp.report.figures.style import FAINT, PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_DRAWABLE = 1e100  # beyond this, matplotlib's own arithmetic overflows


def schedule_figure(
    steps: Sequence[int], rates: Sequence[float], factor: float, warmup: int, total_steps: int, title: str
) -> Figure:
    """Draw learning rates at optimizer steps (from 0), the first `warmup` of them shaded.

    `factor` is the effective learning rate over the learning rate; where it is not 1 a second axis on the right has the
    effective one. The logarithmic axis leaves out zeros and reaches over eight decades at most.
    """
    with new_figure(8.6, 3.0) as figure:
        figure.suptitle(title, x=0.01, ha="left", color=FAINT, fontsize=9)
        linear, logarithmic = figure.subplots(1, 2)
        finite = [(step, rate) for step, rate in zip(steps, rates, strict=True) if rate < _DRAWABLE]
        for axes in (linear, logarithmic):
            axes.step(*zip(*finite, strict=True), where="post", color=PALETTE[0], linewidth=1.7)
            axes.set(xlabel="optimizer step", xlim=(0, max(total_steps, 1)))
            if warmup:
                axes.axvspan(0, warmup, color=PALETTE[4], alpha=0.15, linewidth=0)
        linear.set_title(f"learning rate{', shaded: warm-up' * bool(warmup)}")
        logarithmic.set_title("the same, logarithmic")
        largest = max(rate for _, rate in finite)
        linear.set_ylim(0, 1.06 * largest or 1.0)
        if largest > 0:
            positive = min(rate for _, rate in finite if rate > 0)
            logarithmic.set_yscale("log")
            logarithmic.set_ylim(max(positive, largest / 1e8) / 1.5, largest * 1.5)
            label_decades(logarithmic.yaxis)
        if factor != 1:
            _add_effective(linear, factor)
            if largest > 0:
                label_decades(_add_effective(logarithmic, factor).yaxis)
    return figure


def _add_effective(axes: Axes, factor: float) -> Axes:
    """Add an axis on the right with the effective learning rate, which is `factor` times that on the left."""
    right = axes.twinx()
    low, high = axes.get_ylim()
    right.set_yscale(axes.get_yscale())
    right.set_ylim(low * factor, high * factor)
    right.set_ylabel("effective learning rate")
    right.grid(False)
    right.spines["right"].set_visible(True)
    return right
