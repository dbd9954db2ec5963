"""Slices of the loss as pictures: what is on their axes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from matplotlib.colors import LogNorm

from optexp.report.figures.landscape import Panel, Plane, plane_figure, slices_figure
from optexp.report.figures.style import save_png

XS = [-1.0, -0.5, 0.0, 0.5, 1.0]


def bowl(scale: float, floor: float) -> list[list[float]]:
    return [[floor + scale * (x * x + y * y) for x in XS] for y in XS]


@pytest.mark.parametrize(("floor", "is_log"), [(0.01, True), (1.0, False), (-0.5, False)])
def test_levels_are_logarithmic_where_the_loss_spans_more_than_a_decade(
    floor: float, is_log: bool, tmp_path: Path
) -> None:
    figure = plane_figure(Plane("loss", "x", "y", XS, XS, bowl(1.0, floor), {"here": (0.0, 0.0)}))
    axes, bar = figure.axes
    filled = axes.collections[0]
    assert isinstance(filled.norm, LogNorm) is is_log
    assert filled.norm.vmin == pytest.approx(floor)
    assert filled.norm.vmax == pytest.approx(floor + 2)
    assert [text.get_text() for text in axes.texts if text.get_text() == "here"] == ["here"]
    save_png(figure, tmp_path / "plane.png")
    assert bar.get_title(loc="left") == "loss"


def test_places_without_a_finite_loss_are_left_white(tmp_path: Path) -> None:
    losses = bowl(1.0, 0.01)
    losses[0][0], losses[4][4] = math.nan, math.inf
    figure = plane_figure(Plane("loss", "x", "y", XS, XS, losses))
    assert figure.axes[0].collections[0].norm.vmax == pytest.approx(2.01)
    save_png(figure, tmp_path / "plane.png")


def test_a_flat_loss_has_no_contours(tmp_path: Path) -> None:
    figure = plane_figure(Plane("loss", "x", "y", XS, XS, bowl(0.0, 1.0)))
    assert len(figure.axes) == 1
    save_png(figure, tmp_path / "plane.png")


def test_lines_with_their_expansion_and_marks(tmp_path: Path) -> None:
    lines = [("", [4.0, 1.0, 0.1, 2.0, math.nan], "train"), ("", [4.0, 1.0, 0.3, 2.0, 5.0], "val")]
    figure = slices_figure(
        [
            Panel("one", "distance", XS, lines, expansion=(0.1, -1.0, 8.0)),
            Panel("two", "way", XS, [("direction 1", [1.0, 1.1, 1.2, 1.1, 1.0], "train")], marks={"first": 0.0}),
        ]
    )
    one, two = figure.axes
    assert (one.get_yscale(), two.get_yscale()) == ("log", "linear")
    labels = [line.get_label() for line in one.lines]
    assert labels == ["training", "validation", "slope and curvature at 0"]
    positions, values = one.lines[2].get_data()
    assert list(values) == pytest.approx([0.1 - t + 4 * t * t for t in positions])
    assert one.get_ylim() == pytest.approx((0.1 / 1.3, 5 * 1.3))
    assert two.lines[0].get_label() == "direction 1, training"
    assert two.texts[0].get_text() == " first"
    save_png(figure, tmp_path / "slices.png")


def test_lines_that_are_nowhere_finite(tmp_path: Path) -> None:
    figure = slices_figure([Panel("one", "distance", XS, [("", [math.nan] * 5, "train")])])
    save_png(figure, tmp_path / "slices.png")
    assert figure.axes[0].get_title(loc="left") == "one"
