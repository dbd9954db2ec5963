"""The picture that `optexp compare` writes: the learning curves of runs, or their means where only seeds differ."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optexp.records.reading import Run
from optexp.report.figures.learning import (
    SPLITS,
    THICK,
    THIN,
    diverged_at,
    draw_runs,
    legend_labels,
    looks_of,
    points,
)
from optexp.report.figures.panels import draw_settings
from optexp.report.figures.style import FAINT, new_figure, save_png
from optexp.report.grouping import SEED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND_WIDTH = 2.3
"""Inches; a picture is at least four times as wide."""

MOST_LINES = 36
"""Lines of text that stand in the legend below each other."""


def curves(groups: Sequence[Sequence[Run]], path: Path, labels: Sequence[str]) -> None:
    """Draw loss and accuracy against the optimizer step, one colour per group of runs that differ in their seed only.

    Runs that are alone have training thin and validation thick. Where a group has several, the thick line is their
    mean on validation data (on training data where there are none), and the thin ones are its runs. The legend says
    after the `labels` what differs between the groups. A run that diverged ends in a cross. Raises OSError when the
    file cannot be written.
    """
    runs = [run for group in groups for run in group]
    names = [
        name for name in ("loss", "accuracy") if any(points(run, f"{split}/{name}") for run in runs for split in SPLITS)
    ]
    firsts = [group[0] for group in groups]
    are_means = len(runs) > len(groups)
    texts = _legend_texts(groups, labels) if len(groups) > 1 else []
    lines = min(sum(1 + text.count("\n") for text in texts), MOST_LINES) + 2
    width = max(3.9 * len(names), 3 * LEGEND_WIDTH) + LEGEND_WIDTH if texts else 3.9 * max(len(names), 1)
    with new_figure(width, max(3.4, 0.17 * lines + 0.5)) as figure:
        figure.suptitle(_common_title(runs), x=0.01, ha="left", color=FAINT, fontsize=9)
        looks = looks_of(firsts)
        for axes, name in zip(figure.subplots(1, len(names) or 1, squeeze=False)[0], names, strict=False):
            if are_means:
                split = next(split for split in ("val", "train") if any(points(run, f"{split}/{name}") for run in runs))
                draw_settings(axes, groups, looks, f"{split}/{name}")
            else:
                draw_runs(axes, runs, looks, name)
        _add_legend(figure, texts, looks, ["seed", "mean"] if are_means else list(SPLITS.values()))
        save_png(figure, path)


def _common_title(runs: Sequence[Run]) -> str:
    """Return `resnet on digits`, with only the parts in which all runs agree."""
    model, dataset = ({run.choice(group) for run in runs} for group in ("model", "dataset"))
    parts = [choices.pop() if len(choices) == 1 else "" for choices in (model, dataset)]
    return " on ".join(part for part in parts if part)


def _legend_texts(groups: Sequence[Sequence[Run]], labels: Sequence[str]) -> list[str]:
    """Return what the legend says of each group: its label alone where the whole text of all has no room."""
    leaving_out = [SEED] if any(len(group) > 1 for group in groups) else []
    texts = []
    for group, label, text in zip(
        groups, labels, legend_labels([group[0] for group in groups], leaving_out), strict=True
    ):
        lost = [run for run in group if run.status == "diverged"]
        remark = f" ({len(lost)} of {len(group)} diverged)" if lost else ""
        if lost and len(group) == 1:
            remark = f" (diverged at step {diverged_at(lost[0])})"
        texts.append("\n".join(textwrap.wrap(f"{label}  {text}{remark}", 26, subsequent_indent="    ")))
    return texts if sum(1 + text.count("\n") for text in texts) <= MOST_LINES else list(labels)


def _add_legend(figure: Figure, texts: Sequence[str], looks: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Say which line is which; `names` are those of the thin and of the thick lines."""
    from matplotlib.lines import Line2D

    how = [Line2D([], [], color=FAINT, label=label, **look) for label, look in zip(names, (THIN, THICK), strict=True)]
    if not texts:
        figure.axes[0].legend(handles=how, loc="best")
        return
    lines = [Line2D([], [], label=text, **look, **THICK) for text, look in zip(texts, looks, strict=True)]
    room = 3 * MOST_LINES
    if len(lines) > room:
        lines[room - 1 :] = [Line2D([], [], linestyle="none", label=f"{len(lines) - room + 1} more")]
    columns = 1 + (len(lines) - 1) // MOST_LINES
    figure.legend(
        handles=lines + how, loc="outside right upper", fontsize=8, ncols=columns, columnspacing=1, handlelength=1.6
    )
