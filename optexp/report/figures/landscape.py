"""The loss along lines and over a plane through weight space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optexp.report.figures.learning import SPLITS, label_decades
from optexp.report.figures.scales import brief
from optexp.report.figures.style import FAINT, INK, PALETTE, PAPER, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """One picture of lines over the same positions.

    `lines` are (label, values, split) with split `train` (solid) or `val` (dashed); `expansion` is (value, slope,
    curvature) at position 0, drawn beside them; `marks` are positions with names.
    """

    title: str
    xlabel: str
    positions: Sequence[float]
    lines: Sequence[tuple[str, Sequence[float], str]]
    expansion: tuple[float, float, float] | None = None
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plane:
    """The loss over a grid, one list for each y; `marks` are points with names."""

    title: str
    xlabel: str
    ylabel: str
    xs: Sequence[float]
    ys: Sequence[float]
    losses: Sequence[Sequence[float]]
    marks: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def slices_figure(panels: Sequence[Panel]) -> Figure:
    """Draw 1-D slices side by side, with the loss on a logarithmic axis where it spans more than a decade."""
    with new_figure(4.3 * len(panels), 3.3) as figure:
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, panel)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    labels = list(dict.fromkeys(label for label, _, _ in panel.lines))
    for label, values, split in panel.lines:
        look: dict[str, Any] = {"color": PALETTE[labels.index(label) % len(PALETTE)]}
        look |= {"linestyle": "-", "linewidth": 1.8} if split == "train" else {"linestyle": "--", "linewidth": 1.2}
        name = ", ".join(part for part in (label, SPLITS[split]) if part)
        axes.plot(panel.positions, _finite(values), label=name, **look)
    drawn = [value for _, values, _ in panel.lines for value in values if math.isfinite(value)]
    if not drawn:
        axes.set(title=panel.title, xlabel=panel.xlabel)
        return
    low, high = min(drawn), max(drawn)
    if low > 0 and high / low > 10:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        label_decades(axes.yaxis)
    else:
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
        axes.set_ylim(low - margin, high + margin)
    if panel.expansion is not None:
        value, slope, curvature = panel.expansion
        fine = [panel.positions[0] + (panel.positions[-1] - panel.positions[0]) * step / 200 for step in range(201)]
        expected = [value + slope * t + curvature * t * t / 2 for t in fine]
        style: dict[str, Any] = {"color": INK, "linewidth": 1.0, "linestyle": ":"}
        axes.plot(fine, expected, label="slope and curvature at 0", **style)
    for name, position in panel.marks.items():
        axes.axvline(position, color=FAINT, linewidth=0.8)
        where = axes.get_xaxis_transform()
        axes.text(position, 0.98, f" {brief(name, 18)}", color=FAINT, size=8, va="top", transform=where)
    axes.set(title=panel.title, xlabel=panel.xlabel, ylabel="loss")
    axes.set_xlim(panel.positions[0], panel.positions[-1])
    axes.legend(loc="best", fontsize=7.5)


def _finite(values: Sequence[float]) -> list[float]:
    return [value if math.isfinite(value) else math.nan for value in values]


def plane_figure(plane: Plane) -> Figure:
    """Draw a 2-D slice as a map with contours; levels are logarithmic where the loss spans more than a decade.

    Places without a finite loss are left white.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    values = np.ma.masked_invalid(np.array(plane.losses, dtype=float))
    low, high = float(values.min()), float(values.max())
    is_log = low > 0 and high / low > 10
    norm = LogNorm(low, high) if is_log else Normalize(low, high)
    fine = np.geomspace(low, high, 40) if is_log else np.linspace(low, high, 40)
    with new_figure(5.4, 4.4) as figure:
        axes = figure.subplots()
        axes.grid(False)
        if high > low:
            filled = axes.contourf(plane.xs, plane.ys, values, levels=fine, norm=norm, cmap=colormaps["viridis_r"])
            lines = axes.contour(plane.xs, plane.ys, values, levels=fine[4::5], colors=INK, linewidths=0.5)
            axes.clabel(lines, fmt=_level, fontsize=7)
            bar = figure.colorbar(filled, ax=axes, pad=0.02, aspect=24)
            bar.outline.set_visible(False)
            bar.ax.set_title("loss", fontsize=8, loc="left", weight="normal")
            bar.set_ticks(fine[::8].tolist(), labels=[_level(level) for level in fine[::8].tolist()])
            bar.ax.minorticks_off()
        for name, (x, y) in plane.marks.items():
            axes.plot(x, y, "o", color=PALETTE[1], markersize=7, markeredgecolor=PAPER)
            at_left = x > (plane.xs[0] + plane.xs[-1]) / 2
            text: dict[str, Any] = {"ha": "right" if at_left else "left", "color": PALETTE[1], "weight": "bold"}
            axes.annotate(brief(name), (x, y), xytext=(-6 if at_left else 6, 5), textcoords="offset points", **text)
        axes.set(title=plane.title, xlabel=plane.xlabel, ylabel=plane.ylabel)
    return figure


def _level(value: float) -> str:
    return f"{value:.2g}"
