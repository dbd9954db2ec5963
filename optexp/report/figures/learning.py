"""Learning curves of runs: how lines look, what their legend says, and the picture that `optexp compare` writes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import setting
from optexp.records.reading import ABSENT, Run, differences
from optexp.report.figures.style import FAINT, PALETTE, PAPER, new_figure, on_scale, save_png
from optexp.report.grouping import SEED, is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DASHES = ["-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1, 1.5))]
SPLITS = {"train": "training", "val": "validation"}
THIN: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.6}
THICK: dict[str, Any] = {"linewidth": 1.9, "solid_capstyle": "round"}

Points = Sequence[tuple[float, float]]


def curves(runs: Sequence[Run], path: Path, labels: Sequence[str] | None = None) -> None:
    """Draw loss and accuracy against the optimizer step: training thin, validation thick, one colour per run.

    The legend says what differs between the runs, after their `labels` when given. A run that diverged ends in a
    cross. Raises OSError when the file cannot be written.
    """
    names = [
        name for name in ("loss", "accuracy") if any(points(run, f"{split}/{name}") for run in runs for split in SPLITS)
    ]
    several = len(runs) > 1
    width = 3.9 * max(len(names), 1) + (2.4 if several else 0.2)
    with new_figure(width, max(3.4, 0.2 * min(len(runs), 24) + 0.9)) as figure:
        figure.suptitle(_common_title(runs), x=0.01, ha="left", color=FAINT, fontsize=9)
        looks = looks_of(runs)
        for axes, name in zip(figure.subplots(1, len(names) or 1, squeeze=False)[0], names, strict=False):
            draw_runs(axes, runs, looks, name)
        _add_legend(figure, runs, looks, labels)
        save_png(figure, path)


def draw_runs(axes: Axes, runs: Sequence[Run], looks: Sequence[Mapping[str, Any]], name: str) -> None:
    """Draw `loss` or `accuracy` of runs: training thin, validation thick, a cross where a run diverged."""
    lines = [[points(run, f"{split}/{name}") for split in SPLITS] for run in runs]
    for (training, validation), look in zip(lines, looks, strict=True):
        thin = THIN | ({"alpha": 0.25} if len(runs) > 6 else {})
        axes.plot(*xy(thinned(training)), color=look["color"], **thin)
        dots: dict[str, Any] = {"marker": "o", "markersize": 3.2} if len(validation) <= 40 else {}
        axes.plot(*xy(thinned(validation)), **look, **THICK, **dots)
    diverged = [run.status == "diverged" for run in runs]
    if name == "loss":
        scale_loss(axes, [training + validation for training, validation in lines], diverged)
    for (training, validation), look, lost in zip(lines, looks, diverged, strict=True):
        if lost:
            draw_cross(axes, training or validation, look["color"])
    axes.set(title=name, xlabel="optimizer step")
    axes.set_xlim(left=0)


def legend_labels(runs: Sequence[Run], leaving_out: Sequence[str] = ()) -> list[str]:
    """Return the shortest text that tells each run from the others.

    That is its experiment where each run is a different one, else the settings that differ (`lr=0.1 momentum=0.9`),
    and the name of its directory at worst. Keys to leave out count as equal.
    """
    experiments = [run.choice("experiment") for run in runs]
    if all(experiments) and len(set(experiments)) == len(runs):
        return experiments
    differing = {key: values for key, values in differences(runs).items() if key not in leaving_out}
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


# Lines ----------------------------------------------------------------------------------------------------------


def points(run: Run, tag: str) -> list[tuple[float, float]]:
    """Return the finite (step, value) pairs of a metric."""
    steps, values = run.series(tag)
    return [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]


def xy(pairs: Points) -> tuple[list[float], list[float]]:
    """Return points as the two lists that matplotlib takes."""
    return [x for x, _ in pairs], [y for _, y in pairs]


def thinned(pairs: Points, most: int = 400) -> Points:
    """Return at most about `most` of the points: of each stretch of the line the lowest and the highest."""
    if len(pairs) <= most:
        return pairs
    stretch = math.ceil(2 * len(pairs) / most)
    kept = {0, len(pairs) - 1}
    for start in range(0, len(pairs), stretch):
        here = range(start, min(start + stretch, len(pairs)))
        kept |= {min(here, key=lambda index: pairs[index][1]), max(here, key=lambda index: pairs[index][1])}
    return [pairs[index] for index in sorted(kept)]


def draw_cross(axes: Axes, pairs: Points, colour: Any) -> None:
    """Mark where the numbers of a diverged run end, or where they leave the picture."""
    top = axes.get_ylim()[1]
    leaving = next((index for index, (_, value) in enumerate(pairs) if value > top), None)
    if leaving is not None:
        position = axes.yaxis.get_transform().transform  # the line is straight on this scale
        (x0, y0), (x1, y1) = pairs[max(leaving - 1, 0)], pairs[leaving]
        share = float((position(top) - position(y0)) / (position(y1) - position(y0))) if leaving else 0.0
        pairs = [(x0 + share * (x1 - x0), top)]
    if pairs:
        style: dict[str, Any] = {"marker": "X", "markersize": 8, "markeredgecolor": PAPER, "markeredgewidth": 0.8}
        axes.plot(*xy(pairs[-1:]), color=colour, clip_on=False, zorder=5, **style)


def scale_loss(axes: Axes, lines: Sequence[Points], diverged: Sequence[bool]) -> None:
    """Use a logarithmic axis when the losses span more than a decade, and keep explosions from flattening the rest.

    `lines` are the losses of each run, `diverged` says which of the runs did.
    """
    losses = [[y for _, y in line] for line in lines]
    values = [value for line in losses for value in line]
    if not values:
        return
    calm = [y for line, lost in zip(losses, diverged, strict=True) if not lost for y in line]
    beginnings = [line[0] for line in losses if line]
    low, high = min(values), max(values)
    top = min(high, max([*calm, *(3 * y for y in beginnings)]), 30 * max(beginnings))
    if low > 0 and top / low > 10:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.25, top * 1.25)
        label_decades(axes.yaxis)
    else:
        margin = 0.05 * (top - low) or 0.1
        axes.set_ylim(low - margin, top + margin)


def label_decades(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers: 0.1, 0.2, 0.5, 1, or the decades alone when many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e4 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: setting(float(value))))
    axis.set_minor_formatter(NullFormatter())


# Looks ----------------------------------------------------------------------------------------------------------


def looks_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the line style of each run.

    A few runs get distinct colours. Where a number varies, its values lie along a colour scale in their order; what
    varies beside it is told apart by dashes.
    """
    differing = {key: values for key, values in differences(runs).items() if key != SEED}
    scaled = next((v for v in differing.values() if all(map(is_number, v)) and len(set(v)) > 2), None)
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
        {"color": on_scale(position / max(max(positions), 1)), "linestyle": dashes[other]}
        for position, other in zip(positions, others, strict=True)
    ]


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
