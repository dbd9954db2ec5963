"""A quantity of every layer, from the first to the last: where gradients vanish, explode, or updates are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optexp.records.reading import Run
from optexp.report.figures.learning import label_decades
from optexp.report.figures.style import PALETTE, PANEL, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Profile = tuple[int, list[float]]
"""A step, and one value for each layer."""


def layer_names(run: Run, quantity: str) -> list[str]:
    """Return the weights for which `layer/…/<quantity>` was logged, in the order of the model."""
    rows = (row for row in run.rows if any(tag.startswith("layer/") for tag in row))
    tags = dict.fromkeys(tag for row in rows for tag in row)
    ends = f"/{quantity}"
    return [tag[len("layer/") : -len(ends)] for tag in tags if tag.startswith("layer/") and tag.endswith(ends)]


def layer_profiles(run: Run, quantity: str) -> list[Profile]:
    """Return the quantity of every layer at the first, middle and last probe; nan where a row has no value."""
    names = layer_names(run, quantity)
    tags = [f"layer/{name}/{quantity}" for name in names]
    rows = [row for row in run.rows if any(tag in row for tag in tags)]
    places = sorted({0, len(rows) // 2, len(rows) - 1}) if rows else []
    return [(int(rows[place]["step"]), [rows[place].get(tag, math.nan) for tag in tags]) for place in places]


def layer_panel(profiles: Sequence[Profile], title: str) -> Figure:
    """Draw profiles over the layers, logarithmically; a value of zero has no place and leaves a gap."""
    with new_figure(*PANEL) as figure:
        axes = figure.subplots()
        for (step, values), colour, dash in zip(profiles, PALETTE, ("-", "--", ":"), strict=False):
            shown = [value if value > 0 else math.nan for value in values]
            axes.plot(
                range(1, len(shown) + 1), shown, dash, color=colour, marker="o", markersize=3, label=f"step {step:,}"
            )
        axes.set_yscale("log")
        label_decades(axes.yaxis)
        axes.set(title=title, xlabel="weight, from the input to the output")
        axes.locator_params(axis="x", integer=True)
        if profiles:
            axes.legend(loc="best", fontsize=8)
    return figure
