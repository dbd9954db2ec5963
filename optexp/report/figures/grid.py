"""A metric over two settings: a heat map where they form a grid, else points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import measured
from optexp.report.figures.learning import label_decades
from optexp.report.figures.scales import Scale, scale_of
from optexp.report.figures.style import EMPTY, INK, ON_CELL, PAPER, new_figure, save_png
from optexp.report.grouping import Row, Setting, by_setting, levels, lower_is_better, ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def heat_map(rows: Sequence[Row], x_key: str, y_key: str, value: str, path: Path) -> None:
    """Write the picture of `heat_map_figure` to a PNG file. Raises OSError when the file cannot be written."""
    save_png(heat_map_figure(rows, x_key, y_key, value), path)


def heat_map_figure(rows: Sequence[Row], x_key: str, y_key: str, value: str) -> Figure:
    """Draw a metric over two settings, each cell with its number; brighter is better, the best cell is framed.

    Rows with the same two settings (seeds) share a cell, which shows their mean and number. A cell whose rows have no
    finite value is hatched and shows their status (`diverged`). Settings on a logarithmic scale stand on one. Values
    of metrics whose name ends in `loss` are better when low, all others when high. Settings drawn at random, which
    share no lines and columns, make points instead of cells.
    """
    columns, lines = levels(rows, x_key), levels(rows, y_key)
    cells = by_setting(rows, (x_key, y_key))
    if len(cells) < 0.3 * len(columns) * len(lines) and len(cells) > 12:
        return _points(cells, x_key, y_key, value)
    x_scale, y_scale = _compact(columns), _compact(lines)
    best = next(iter(ranked(cells, value)), None)
    norm, colour_map = _colours(cells, value)
    with new_figure(1.05 * (x_scale.places[-1] + 1) + 2.4, 0.62 * (y_scale.places[-1] + 1) + 1.5) as figure:
        axes = figure.subplots()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        for cell in cells:
            x, y = cell.values[x_key], cell.values[y_key]
            mean = cell.mean(value)
            face = EMPTY if mean is None else colour_map(norm(mean.mean))
            _draw_cell(axes, *_box(x_scale, y_scale, x, y), face, hatched=mean is None)
            text: dict[str, Any] = {"ha": "center", "color": INK if mean is None else _readable_on(face)}
            text["weight"] = "bold" if cell is best else "normal"
            place = x_scale.place(x), y_scale.place(y)
            above, below = _cell_text(cell, value)
            axes.text(*place, above, va="bottom" if below else "center", **text)
            if below:
                axes.text(*place, below, va="top", **text, size=7.5)
        if best is not None:
            (left, right), (bottom, top) = _box(x_scale, y_scale, best.values[x_key], best.values[y_key])
            _draw_frame(axes, (left + 0.03, right - 0.03), (bottom + 0.03, top - 0.03))
        axes.set(xlabel=x_scale.label(x_key), ylabel=y_scale.label(y_key))
        axes.set(xlim=(-0.5, x_scale.places[-1] + 0.5), ylim=(-0.5, y_scale.places[-1] + 0.5))
        x_scale.mark(axes.xaxis)
        y_scale.mark(axes.yaxis)
        axes.set_title(value)
        _add_bar(figure, axes, norm, colour_map, value)
    return figure


def _compact(found: Sequence[Any]) -> Scale:
    """Return a scale whose cells are not much wider than one, else the values side by side."""
    scale = scale_of(found, by_size=False)
    if scale.places[-1] <= 2 * len(found):
        return scale
    return Scale(found, [float(place) for place in range(len(found))], False, False)


def _box(x_scale: Scale, y_scale: Scale, x: Any, y: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    return x_scale.borders(x_scale.levels.index(x)), y_scale.borders(y_scale.levels.index(y))


def _draw_cell(axes: Axes, x: tuple[float, float], y: tuple[float, float], face: Any, hatched: bool) -> None:
    from matplotlib.patches import Rectangle

    edges: dict[str, Any] = {"edgecolor": PAPER, "linewidth": 2}
    axes.add_patch(Rectangle((x[0], y[0]), x[1] - x[0], y[1] - y[0], facecolor=face, **edges))
    if hatched:
        axes.add_patch(Rectangle((x[0], y[0]), x[1] - x[0], y[1] - y[0], fill=False, hatch="////", **edges))


def _draw_frame(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    frame = Rectangle((x[0], y[0]), x[1] - x[0], y[1] - y[0], fill=False, edgecolor=ON_CELL[0], linewidth=1.8)
    axes.add_patch(frame)


def _cell_text(cell: Setting, value: str) -> tuple[str, str]:
    """Return what stands in a cell: the mean or the status, and below it how many rows it is made of."""
    mean, number = cell.mean(value), len(cell.rows)
    statuses = [str(row.get("status", "")).replace("_", " ") for row in cell.rows]
    if mean is None:
        alike = len(set(statuses)) == 1
        status = statuses[0] if alike and statuses[0] not in ("", "completed") else "no value"
        return status, f"n={number}" if number > 1 else ""
    if cell.lost:
        return measured(mean.mean), f"{cell.lost} of {number} lost"
    if mean.n < number:
        return measured(mean.mean), f"n={mean.n} of {number}"
    return measured(mean.mean), f"n={number}" if number > 1 else ""


def _colours(cells: Sequence[Setting], value: str) -> tuple[Any, Any]:
    """Return how means become colours: logarithmic for losses that span more than a decade, else linear."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    low_is_good = lower_is_better(value)
    means = [mean.mean for cell in cells if (mean := cell.mean(value)) is not None] or [0.0, 1.0]
    low, high = min(means), max(means)
    norm = LogNorm(low, high) if low_is_good and low > 0 and high / low > 10 else Normalize(low, high)
    return norm, colormaps["viridis_r" if low_is_good else "viridis"]


def _readable_on(colour: Any) -> str:
    """Return black or white, whichever is read more easily on a colour (relative luminance of ITU-R BT.709)."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return ON_CELL[0] if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else ON_CELL[1]


def _add_bar(figure: Figure, axes: Axes, norm: Any, colour_map: Any, value: str) -> None:
    from matplotlib.cm import ScalarMappable

    if norm.vmin == norm.vmax:
        return
    bar = figure.colorbar(ScalarMappable(norm, colour_map), ax=axes, pad=0.02, aspect=14)
    bar.outline.set_visible(False)
    if lower_is_better(value):
        bar.ax.invert_yaxis()
    if norm.vmin > 0 and norm.vmax / norm.vmin > 10:
        label_decades(bar.ax.yaxis)
    bar.ax.set_title("better", fontsize=7, loc="left", weight="normal")


def _points(cells: Sequence[Setting], x_key: str, y_key: str, value: str) -> Figure:
    """Draw one point per pair of settings, coloured by the metric; what was lost is a cross."""
    norm, colour_map = _colours(cells, value)
    best = next(iter(ranked(cells, value)), None)
    with new_figure(6.4, 4.2) as figure:
        axes = figure.subplots()
        for cell in cells:
            mean, place = cell.mean(value), (cell.values[x_key], cell.values[y_key])
            if mean is None:
                axes.plot(*place, "X", color=INK, markersize=7, markeredgecolor=PAPER)
            else:
                colour = colour_map(norm(mean.mean))
                axes.plot(*place, "o", markersize=9, markeredgecolor=PAPER, markerfacecolor=colour)
                if cell is best:
                    axes.plot(*place, "o", markersize=12, markerfacecolor="none", markeredgecolor=INK)
        for axis, key, set_scale in ((axes.xaxis, x_key, axes.set_xscale), (axes.yaxis, y_key, axes.set_yscale)):
            values = [cell.values[key] for cell in cells]
            if min(values) > 0 and max(values) / min(values) > 30:
                set_scale("log")
                label_decades(axis)
        lost = any(cell.mean(value) is None for cell in cells)
        axes.set(xlabel=x_key, ylabel=y_key, title=value + (" (crosses: diverged or failed)" if lost else ""))
        _add_bar(figure, axes, norm, colour_map, value)
    return figure
