"""Figures of runs as PNG files. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import measured, setting
from optexp.records.reading import ABSENT, Run, differences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#8a8a8a"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d5d5d", "#8c6d31")
"""The colours of Okabe and Ito (told apart with any colour vision), yellow and black replaced."""

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "hatch.color": "#b5b5b5",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 160,
}

DASHES = ["-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1, 1.5))]
SPLITS = {"train": "training", "val": "validation"}
THIN: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.6}
THICK: dict[str, Any] = {"linewidth": 1.9, "solid_capstyle": "round"}


@contextmanager
def _new_figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure (inches) in the common style and save it; nothing of matplotlib's global state changes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, format="png")


# Curves ---------------------------------------------------------------------------------------------------------


def curves(runs: Sequence[Run], path: Path, labels: Sequence[str] | None = None) -> None:
    """Draw loss and accuracy against the optimizer step: training thin, validation thick, one colour per run.

    The legend says what differs between the runs, after their `labels` when given. A run that diverged ends in a
    cross. Raises OSError when the file cannot be written.
    """
    names = [
        name for name in ("loss", "accuracy") if any(_points(run, split, name) for run in runs for split in SPLITS)
    ]
    several = len(runs) > 1
    width = 3.9 * max(len(names), 1) + (2.4 if several else 0.2)
    with _new_figure(path, width, max(3.4, 0.2 * min(len(runs), 24) + 0.9)) as figure:
        figure.suptitle(_common_title(runs), x=0.01, ha="left", color=FAINT, fontsize=9)
        looks = _looks(runs)
        for axes, name in zip(figure.subplots(1, len(names) or 1, squeeze=False)[0], names, strict=False):
            for run, look in zip(runs, looks, strict=True):
                _draw_run(axes, run, name, look, crowded=len(runs) > 6)
            if name == "loss":
                _scale_loss(axes, runs)
            for run, look in zip(runs, looks, strict=True):
                if run.status == "diverged":
                    _draw_cross(axes, run, name, look["color"])
            axes.set(title=name, xlabel="optimizer step")
            axes.set_xlim(left=0)
        _add_legend(figure, runs, looks, labels)


def legend_labels(runs: Sequence[Run]) -> list[str]:
    """Return the shortest text that tells each run from the others.

    That is its experiment where each run is a different one, else the settings that differ (`lr=0.1 momentum=0.9`),
    and the name of its directory at worst.
    """
    experiments = [run.choice("experiment") for run in runs]
    if all(experiments) and len(set(experiments)) == len(runs):
        return experiments
    differing = differences(runs)
    common = [key for key, values in differing.items() if ABSENT not in values]
    for keys in (common, list(differing)):
        texts = [
            " ".join(_assignment(key, differing[key][index], keys) for key in keys if differing[key][index] != ABSENT)
            for index in range(len(runs))
        ]
        if keys and len(set(texts)) == len(texts):
            return texts
    return [run.name for run in runs]


def _assignment(key: str, value: Any, keys: Iterable[str]) -> str:
    """Return `lr=0.1` for `optimizer.lr` (in full where another key ends alike), and `SGD` for a class."""
    if key.endswith("._target_"):
        return str(value).rpartition(".")[2]
    short = key.rpartition(".")[2]
    is_ambiguous = sum(other.rpartition(".")[2] == short for other in keys) > 1
    return f"{key if is_ambiguous else short}={setting(value)}"


def _common_title(runs: Sequence[Run]) -> str:
    """Return `resnet on digits`, with only the parts in which all runs agree."""
    model, dataset = ({run.choice(group) for run in runs} for group in ("model", "dataset"))
    parts = [choices.pop() if len(choices) == 1 else "" for choices in (model, dataset)]
    return " on ".join(part for part in parts if part)


def _points(run: Run, split: str, name: str) -> list[tuple[float, float]]:
    """Return the finite (step, value) pairs of a metric."""
    steps, values = run.series(f"{split}/{name}")
    return [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]


def _draw_run(axes: Axes, run: Run, name: str, look: Mapping[str, Any], crowded: bool) -> None:
    training, validation = (_points(run, split, name) for split in SPLITS)
    axes.plot(*_xy(training), color=look["color"], **THIN | ({"alpha": 0.25} if crowded else {}))
    dots: dict[str, Any] = {"marker": "o", "markersize": 3.2} if len(validation) <= 40 else {}
    axes.plot(*_xy(validation), **look, **THICK, **dots)


def _xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _draw_cross(axes: Axes, run: Run, name: str, colour: Any) -> None:
    """Mark where the numbers of a diverged run end, or where they leave the picture."""
    points = _points(run, "train", name) or _points(run, "val", name)
    top = axes.get_ylim()[1]
    leaving = next((index for index, (_, value) in enumerate(points) if value > top), None)
    if leaving:
        position = axes.yaxis.get_transform().transform  # the line is straight on this scale
        (x0, y0), (x1, y1) = points[leaving - 1], points[leaving]
        share = float((position(top) - position(y0)) / (position(y1) - position(y0)))
        points = [(x0 + share * (x1 - x0), top)]
    if points:
        style: dict[str, Any] = {"marker": "X", "markersize": 8, "markeredgecolor": "white", "markeredgewidth": 0.8}
        axes.plot(*_xy(points[-1:]), color=colour, clip_on=False, zorder=5, **style)


def _scale_loss(axes: Axes, runs: Sequence[Run]) -> None:
    """Use a logarithmic axis when the losses span more than a decade, and keep explosions from flattening the rest."""
    losses = {id(run): [y for split in SPLITS for _, y in _points(run, split, "loss")] for run in runs}
    values = [value for run in runs for value in losses[id(run)]]
    calm = [y for run in runs if run.status != "diverged" for y in losses[id(run)]]
    beginnings = [losses[id(run)][0] for run in runs if losses[id(run)]]
    low, high = min(values), max(values)
    top = min(high, max([*calm, *(3 * y for y in beginnings)]))
    if low > 0 and top / low > 10:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.25, top * 1.25)
        _label_decades(axes.yaxis)
    else:
        margin = 0.05 * (top - low) or 0.1
        axes.set_ylim(low - margin, top + margin)


def _looks(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the line style of each run.

    A few runs get distinct colours. Where a number varies, its values lie along a colour scale in their order; what
    varies beside it is told apart by dashes.
    """
    from matplotlib import colormaps

    differing = {key: values for key, values in differences(runs).items() if key != "seed"}
    scaled = next(
        (values for values in differing.values() if all(map(_is_number, values)) and len(set(values)) > 2), None
    )
    if len(runs) <= len(PALETTE) and (scaled is None or len(differing) > 1 or len(runs) < 4):
        return [{"color": colour} for colour in PALETTE[: len(runs)]]
    positions = list(range(len(runs))) if scaled is None else [sorted(set(scaled)).index(value) for value in scaled]
    others = [
        str([values[index] for values in differing.values() if values is not scaled]) for index in range(len(runs))
    ]
    dashes = (
        dict(zip(dict.fromkeys(others), DASHES * len(runs), strict=False)) if scaled else dict.fromkeys(others, "-")
    )
    return [
        {"color": colormaps["viridis"](0.86 * position / max(max(positions), 1)), "linestyle": dashes[other]}
        for position, other in zip(positions, others, strict=True)
    ]


def _label_decades(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers: 0.1, 0.2, 0.5, 1, or the decades alone when many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e4 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: setting(float(value))))
    axis.set_minor_formatter(NullFormatter())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _add_legend(
    figure: Figure, runs: Sequence[Run], looks: Sequence[Mapping[str, Any]], labels: Sequence[str] | None
) -> None:
    from matplotlib.lines import Line2D

    how = [Line2D([], [], color=FAINT, label=SPLITS["train"], **THIN)]
    how.append(Line2D([], [], color=FAINT, label=SPLITS["val"], **THICK))
    if len(runs) == 1:
        figure.axes[0].legend(handles=how, loc="best")
        return
    lines = []
    for index, (run, text) in enumerate(zip(runs, legend_labels(runs), strict=True)):
        label = f"{labels[index]}  {text}" if labels else text
        label += f" (diverged at step {run.last_step})" if run.status == "diverged" else ""
        label = "\n".join(textwrap.wrap(label, 46, subsequent_indent="    " if labels else "  "))
        lines.append(Line2D([], [], label=label, **looks[index], **THICK))
    figure.legend(handles=lines + how, loc="outside right upper", fontsize=8, ncols=1 + len(lines) // 24)


# Heat maps ------------------------------------------------------------------------------------------------------


def heat_map(rows: Sequence[Mapping[str, Any]], x_key: str, y_key: str, value: str, path: Path) -> None:
    """Draw a metric over two settings, each cell with its number; brighter is better, the best cell is framed.

    `rows` are flat: settings, metrics and `status`. Rows with the same two settings (seeds) share a cell, which shows
    their mean and number. A cell whose rows have no finite value is hatched and shows their status (`diverged`).
    Values of metrics whose name ends in `loss` are better when low, all others when high. Raises OSError when the file
    cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.patches import Rectangle

    columns, lines = _levels(rows, x_key), _levels(rows, y_key)
    lower_is_better = value.endswith("loss")
    means = {cell: sum(numbers) / len(numbers) for cell, numbers in _numbers(rows, x_key, y_key, value).items()}
    best = (min if lower_is_better else max)(means, key=means.__getitem__) if means else None
    norm = _norm(list(means.values()), lower_is_better)
    colour_map = colormaps["viridis_r" if lower_is_better else "viridis"]
    with _new_figure(path, 1.05 * len(columns) + 2.4, 0.62 * len(lines) + 1.5) as figure:
        axes = figure.subplots()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        for x, column in enumerate(columns):
            for y, line in enumerate(lines):
                here = [row for row in rows if row.get(x_key) == column and row.get(y_key) == line]
                mean = means.get((column, line))
                face = "#f2f2f2" if mean is None else colour_map(norm(mean))
                hatch = "////" if mean is None and here else None
                edges: dict[str, Any] = {"edgecolor": "white", "linewidth": 2}
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, **edges))
                if hatch:
                    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch=hatch, **edges))
                weight = "bold" if (column, line) == best else "normal"
                text = _cell_text(here, mean, value)
                axes.text(x, y, text, ha="center", va="center", color=_readable_on(face), weight=weight)
        if best is not None:
            x, y = columns.index(best[0]), lines.index(best[1])
            axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=1.8))
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(lines) - 0.5), xlabel=x_key, ylabel=y_key)
        axes.set_xticks(range(len(columns)), [setting(column) for column in columns])
        axes.set_yticks(range(len(lines)), [setting(line) for line in lines])
        axes.set_title(value)
        if len(set(means.values())) > 1:
            bar = figure.colorbar(ScalarMappable(norm, colour_map), ax=axes, pad=0.02, aspect=14)
            bar.outline.set_visible(False)
            if lower_is_better:
                bar.ax.invert_yaxis()
            if norm.vmin > 0 and norm.vmax / norm.vmin > 10:
                _label_decades(bar.ax.yaxis)
            bar.ax.set_title("better", fontsize=7, loc="left", weight="normal")


def _levels(rows: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """Return the values of a setting: numbers in increasing order, anything else in order of appearance."""
    levels = list(dict.fromkeys(row.get(key) for row in rows))
    if all(isinstance(level, (int, float)) for level in levels):
        return sorted(levels)
    return levels


def _numbers(
    rows: Sequence[Mapping[str, Any]], x_key: str, y_key: str, value: str
) -> dict[tuple[Any, Any], list[float]]:
    """Return the finite values of each cell that has any; those of diverged and failed rows do not count."""
    cells: dict[tuple[Any, Any], list[float]] = {}
    for row in rows:
        number = row.get(value)
        if number is not None and math.isfinite(number) and row.get("status") not in ("diverged", "failed"):
            cells.setdefault((row.get(x_key), row.get(y_key)), []).append(number)
    return cells


def _cell_text(rows: Sequence[Mapping[str, Any]], mean: float | None, value: str) -> str:
    if not rows:
        return ""
    statuses = [str(row.get("status", "")).replace("_", " ") for row in rows]
    if mean is None:
        return statuses[0] if statuses[0] not in ("", "completed") else "no value"
    lost = sum(status in ("diverged", "failed") for status in statuses)
    more = f"\n{lost} of {len(rows)} lost" if lost else f"\nn={len(rows)}" if len(rows) > 1 else ""
    return measured(mean) + more


def _norm(values: Sequence[float], lower_is_better: bool) -> Any:
    """Return a logarithmic scale for losses that span more than a decade, else a linear one."""
    from matplotlib.colors import LogNorm, Normalize

    if not values:
        return Normalize(0, 1)
    low, high = min(values), max(values)
    return LogNorm(low, high) if lower_is_better and low > 0 and high / low > 10 else Normalize(low, high)


def _readable_on(colour: Any) -> str:
    """Return black or white, whichever is read more easily on a colour (relative luminance of ITU-R BT.709)."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"
