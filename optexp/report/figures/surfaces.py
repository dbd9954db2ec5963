"""Paths of optimizers over surfaces: one contour picture each with their losses, all in one, and as an animation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import setting
from optexp.report.figures.learning import label_decades
from optexp.report.figures.style import FAINT, INK, PALETTE, PAPER, STYLE, new_figure, on_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    Growing = tuple[Line2D, Sequence[tuple[float, float]]]

# A surface to be drawn is a mapping: name, formula, x and y (places along the borders), heights at [y][x], minima, and
# paths: a list of mappings with optimizer, lr, places [start][step] = (x, y) and mean_losses [step].
Picture = Mapping[str, Any]

LEVELS = 16
DECADES = 5
"""How far below the highest point of a picture its lowest contour line lies."""

LARGEST_GIF = 3_000_000
"""Bytes."""

GIF_DPI = 72


def colours(number: int) -> list[str]:
    """Return a colour for each of `number` optimizers."""
    if number <= len(PALETTE):
        return list(PALETTE[:number])
    return [on_scale(index / (number - 1)) for index in range(number)]


def surface_figure(picture: Picture) -> Figure:
    """Draw one contour panel per optimizer with the paths from all starts, and a panel with their losses.

    A path that leaves the picture is cut off at its border, and the panel says how many do.
    """
    paths = picture["paths"]
    columns = min(4, len(paths) + 1)
    rows = math.ceil((len(paths) + 1) / columns)
    with new_figure(3.3 * columns, 2.75 * rows + 0.3) as figure:
        figure.suptitle(f"{picture['name']}: {picture['formula']}", x=0.01, ha="left", color=FAINT, fontsize=9)
        panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        for axes, path, colour in zip(panels, paths, colours(len(paths)), strict=False):
            _draw_contours(axes, picture)
            outside = sum(_draw_path(axes, picture, places, colour) for places in path["places"])
            axes.set_title(f"{path['optimizer']}  lr {setting(path['lr'])}", fontsize=9)
            if outside:
                text = f"{outside} of {len(path['places'])} leave the picture"
                axes.text(0.98, 0.02, text, transform=axes.transAxes, ha="right", size=7.5, color=INK)
        _draw_losses(panels[len(paths)], paths)
        for axes in panels[len(paths) + 1 :]:
            axes.remove()
    return figure


def overview_figure(pictures: Sequence[Picture]) -> Figure:
    """Draw all surfaces beside each other, each with every optimizer's path from the first start."""
    with new_figure(*_overview_size(pictures)) as figure:
        panels = _draw_grounds(figure, pictures)
        for line, places in _empty_lines(panels, pictures):
            line.set_data(*zip(*places, strict=True))
    return figure


def write_animation(pictures: Sequence[Picture], path: Path, frames: int = 48, limit: int = LARGEST_GIF) -> int:
    """Write the overview as an animated GIF of at most `limit` bytes, paths growing; return its size.

    Time runs slowly at first: frame k of K shows the first (k / K)² of the steps. Where the file would be too large, it
    is written again with fewer frames. Raises OSError.
    """
    from matplotlib import rc_context
    from matplotlib.animation import PillowWriter

    with rc_context(STYLE):
        figure, lines, clock = _over_a_still(pictures)
        steps = max(len(places) - 1 for _, places in lines)
        while True:
            writer = PillowWriter(fps=10)
            moments = sorted({round(steps * (frame / frames) ** 2) for frame in range(frames + 1)})
            with writer.saving(figure, str(path), dpi=GIF_DPI):
                for moment in [*moments, *[steps] * 10]:
                    for line, places in lines:
                        line.set_data(*zip(*places[: moment + 1], strict=True))
                    clock.set_text(f"step {moment}")
                    writer.grab_frame()
            size = path.stat().st_size
            if size <= limit or frames <= 6:
                return size
            frames = max(6, min(frames - 2, int(0.9 * frames * limit / size)))


def _over_a_still(pictures: Sequence[Picture]) -> tuple[Figure, list[Growing], Text]:
    """Return a figure whose surfaces are one image, with empty lines over them, and the text that tells the step.

    Surfaces are drawn once and not in every frame, which takes most of the time, and in 32 shades: a GIF has 256
    colours, and leaves out those of thin lines where there are too many greys.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    size = _overview_size(pictures)
    with new_figure(*size) as still:
        panels = _draw_grounds(still, pictures)
        still.set_dpi(GIF_DPI)
        canvas = FigureCanvasAgg(still)
        canvas.draw()
        image = np.asarray(canvas.buffer_rgba()) // 8 * 8 + 7
    with new_figure(*size) as figure:
        figure.set_layout_engine("none")
        figure.set_dpi(GIF_DPI)
        figure.figimage(image, zorder=-1)
        copies = []
        for panel in panels:
            copy = figure.add_axes(panel.get_position().bounds)
            copy.axis("off")
            copy.set(xlim=panel.get_xlim(), ylim=panel.get_ylim())
            copies.append(copy)
        last = copies[-1]
        clock = last.text(0.5, 0.92, "", transform=last.transAxes, ha="center", size=11, color=INK)
        return figure, _empty_lines(copies, pictures), clock


def _overview_size(pictures: Sequence[Picture]) -> tuple[float, float]:
    """Return width and height in inches."""
    return 3.3 * _columns(pictures), 2.7 * math.ceil((len(pictures) + 1) / _columns(pictures)) + 0.2


def _columns(pictures: Sequence[Picture]) -> int:
    return min(3, len(pictures) + 1)


def _draw_grounds(figure: Figure, pictures: Sequence[Picture]) -> list[Axes]:
    """Draw the surfaces with the place where paths start, and a legend in a panel behind them; return all panels."""
    from matplotlib.lines import Line2D

    names = [path["optimizer"] for path in pictures[0]["paths"]]
    columns = _columns(pictures)
    grid = figure.subplots(math.ceil((len(pictures) + 1) / columns), columns, squeeze=False)
    panels: list[Axes] = grid.flatten().tolist()
    for axes, picture in zip(panels, pictures, strict=False):
        _draw_contours(axes, picture)
        axes.set_title(picture["name"])
        axes.plot(*picture["paths"][0]["places"][0][0], "o", color=INK, markersize=5, markeredgecolor=PAPER)
    for axes in panels[len(pictures) :]:
        axes.axis("off")
    handles = [
        Line2D([], [], color=colour, linewidth=2, label=name)
        for name, colour in zip(names, colours(len(names)), strict=True)
    ]
    panels[len(pictures)].legend(handles=handles, loc="center", ncols=1 + len(handles) // 10, fontsize=8)
    return panels[: len(pictures) + 1]


def _empty_lines(panels: Sequence[Axes], pictures: Sequence[Picture]) -> list[Growing]:
    """Return a line without points for each path from a first start, and the places that it is to show."""
    found = []
    for axes, picture in zip(panels, pictures, strict=False):
        for path, colour in zip(picture["paths"], colours(len(picture["paths"])), strict=True):
            style: dict[str, Any] = {"linewidth": 1.5, "marker": "o", "markersize": 5, "markeredgecolor": PAPER}
            (line,) = axes.plot([], [], color=colour, markevery=[-1], **style)
            found.append((line, _near(axes, path["places"][0])))
    return found


def _draw_contours(axes: Axes, picture: Picture) -> None:
    """Draw contour lines at levels spaced by their logarithm, and a star at each minimum."""
    from matplotlib.colors import LogNorm

    highest = max(max(line) for line in picture["heights"])
    levels = [highest * 10 ** (-DECADES * (1 - index / (LEVELS - 1))) for index in range(LEVELS)]
    heights = [[max(height, levels[0] / 10) for height in line] for line in picture["heights"]]
    norm = LogNorm(levels[0], highest)
    axes.contourf(picture["x"], picture["y"], heights, [levels[0] / 10, *levels], cmap="Greys_r", norm=norm, alpha=0.35)
    axes.contour(picture["x"], picture["y"], heights, levels, colors=FAINT, linewidths=0.4)
    axes.plot(*zip(*picture["minima"], strict=True), "*", color=INK, markersize=9, markeredgecolor=PAPER, zorder=3)
    axes.grid(False)
    axes.set(xlim=(picture["x"][0], picture["x"][-1]), ylim=(picture["y"][0], picture["y"][-1]))
    axes.tick_params(labelsize=7)


def _draw_path(axes: Axes, picture: Picture, places: Sequence[tuple[float, float]], colour: str) -> bool:
    """Draw a path with a ring at its start and a dot at its end; return whether it leaves the picture."""
    drawn = _near(axes, places)
    axes.plot(*zip(*drawn, strict=True), color=colour, linewidth=1.1, alpha=0.9)
    axes.plot(*drawn[0], "o", color=PAPER, markersize=5.5, markeredgecolor=colour, markeredgewidth=1.4, zorder=4)
    axes.plot(*drawn[-1], "o", color=colour, markersize=5.5, markeredgecolor=PAPER, zorder=5)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    inside = all(left <= x <= right and low <= y <= high for x, y in drawn)
    return len(drawn) < len(places) or not inside


def _near(axes: Axes, places: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return a path up to where it goes twenty pictures away: what is 1e200 away has no place on a screen."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for index, (x, y) in enumerate(places):
        if not (abs(x) <= 20 * (right - left) and abs(y) <= 20 * (high - low)):
            return places[:index]
    return places


def _draw_losses(axes: Axes, paths: Sequence[Mapping[str, Any]]) -> None:
    """Draw the mean losses against the steps, over thirteen decades at most."""
    first, least = 0.0, math.inf
    for path, colour in zip(paths, colours(len(paths)), strict=True):
        means = path["mean_losses"]
        finite = [(step, mean) for step, mean in enumerate(means) if math.isfinite(mean)]
        axes.plot(*zip(*finite, strict=True), color=colour, linewidth=1.4)
        first = max(first, means[0])
        least = min([least, *(mean for _, mean in finite if mean > 0)])
    axes.set_yscale("log")
    axes.set_ylim(max(least, first * 1e-13) / 2, 3 * first)
    label_decades(axes.yaxis)
    axes.set_xlim(left=0)
    axes.set_title("mean loss", fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
