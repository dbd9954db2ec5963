"""Learning curves of runs: how lines look, what their legend says, and where an axis ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import measured, setting
from optexp.records.reading import ABSENT, Run, differences
from optexp.report.figures.style import FAINT, PALETTE, PAPER, on_scale
from optexp.report.grouping import SEED, is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

DASHES = ["-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (9, 3)), (0, (3, 1.2, 1, 1.2, 1, 1.2))]
SPLITS = {"train": "training", "val": "validation"}
THIN: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.6}
THICK: dict[str, Any] = {"linewidth": 1.9, "solid_capstyle": "round"}

Points = Sequence[tuple[float, float]]


def draw_runs(axes: Axes, runs: Sequence[Run], looks: Sequence[Mapping[str, Any]], name: str) -> None:
    """Draw `loss` or `accuracy` of runs: training thin, validation thick, a cross where a run diverged."""
    lines = [[points(run, f"{split}/{name}") for split in SPLITS] for run in runs]
    for (training, validation), look in zip(lines, looks, strict=True):
        thin = THIN | ({"alpha": 0.25} if len(runs) > 6 else {})
        draw_line(axes, training, color=look["color"], **thin)
        dots: dict[str, Any] = {"marker": "o", "markersize": 3.2} if len(validation) <= 40 else {}
        draw_line(axes, validation, **look, **THICK, **dots)
    if name == "loss":
        scale_loss(axes, [training + validation for training, validation in lines], [run.status for run in runs])
    for run, (training, validation), look in zip(runs, lines, looks, strict=True):
        mark_end(axes, run, training or validation, look["color"])
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


def draw_line(axes: Axes, pairs: Points, most: int = 400, **style: Any) -> None:
    """Draw a line through at most about `most` of the points; a single point, which makes no line, is a dot."""
    dot: dict[str, Any] = {"marker": "o", "markersize": 3.2} if len(pairs) == 1 else {}
    axes.plot(*xy(thinned(pairs, most)), **(dot | style))


def diverged_at(run: Run) -> int:
    """Return the step at which a diverged run ended: that of the row which says so, else the one after the last done.

    What is not finite before an update is no row: the update was not applied, and the step does not count as done.
    """
    last = run.rows[-1] if run.rows else {"step": -1}
    is_told = last["step"] >= run.last_step and not all(map(math.isfinite, last.values()))
    return int(last["step"]) if is_told else run.last_step + 1


def mark_end(axes: Axes, run: Run, pairs: Points, colour: Any) -> None:
    """Mark with a cross the step at which a run diverged, and with a triangle where its line leaves the picture.

    A dotted line leads to the cross from the last number that the picture holds.
    """
    if run.status != "diverged" or not pairs:
        return
    top = axes.get_ylim()[1]
    style: dict[str, Any] = {"color": colour, "markeredgecolor": PAPER, "markeredgewidth": 0.8, "clip_on": False}
    leaving = next((index for index, (_, value) in enumerate(pairs) if value > top), None)
    here = pairs[-1]
    if leaving is not None:
        exit_step = _crossing(axes, pairs[max(leaving - 1, 0)], pairs[leaving], top)
        axes.plot(exit_step, top, "^", markersize=7, zorder=4, **style)
        here = (exit_step, top) if here[1] > top else here
    axes.plot([here[0], diverged_at(run)], [here[1]] * 2, ":X", markersize=8, markevery=[1], zorder=5, **style)


def _crossing(axes: Axes, before: tuple[float, float], after: tuple[float, float], top: float) -> float:
    """Return the step at which the line between two points, straight on the axis' scale, reaches `top`."""
    place = axes.yaxis.get_transform().transform
    if before[1] >= top:
        return before[0]
    share = float((place(top) - place(before[1])) / (place(after[1]) - place(before[1])))
    return before[0] + share * (after[0] - before[0])


def scale_loss(axes: Axes, lines: Sequence[Points], statuses: Sequence[str]) -> None:
    """Use a logarithmic axis when the losses span more than a decade, and keep explosions from flattening the rest.

    `lines` are the losses of each run. What a diverged run reached beyond three times all that the others had leaves
    the picture, which says so; where all diverged, nothing does.
    """
    losses = [[y for _, y in line] for line in lines]
    values = [value for line in losses for value in line]
    if not values:
        return
    calm = [y for line, status in zip(losses, statuses, strict=True) if status != "diverged" for y in line]
    low, high = min(values), max(values)
    top = min(high, 3 * max([*calm, *(line[0] for line in losses if line)])) if calm else high
    if low > 0 and top / low > 10:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.25, top * 1.25)
        label_decades(axes.yaxis)
    else:
        margin = 0.05 * (top - low) or 0.1
        axes.set_ylim(low - margin, top + margin)
    say_what_is_beyond(axes, values)


def say_what_is_beyond(axes: Axes, values: Sequence[float]) -> None:
    """Write over the picture how far values go that its axis does not reach."""
    low, high = axes.get_ylim()
    texts = [f"▲ beyond: up to {measured(max(values))}"] if max(values) > high else []
    texts += [f"▼ beyond: down to {measured(min(values))}"] if min(values) < low else []
    if texts:
        style: dict[str, Any] = {"ha": "right", "va": "bottom", "size": 8, "color": FAINT}
        axes.text(1, 1.03, ", ".join(texts), transform=axes.transAxes, **style)


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
