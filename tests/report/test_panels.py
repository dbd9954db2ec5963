"""Pictures of pages: what is drawn is what was recorded, intervals are those of scipy, and nothing lost is dropped."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from report_directories import write_run
from scipy import stats

from optexp.records.reading import Run, read_run
from optexp.report.figures.effects import effect_figure, measure_figure, ranked_figure
from optexp.report.figures.grid import heat_map_figure
from optexp.report.figures.learning import points, thinned
from optexp.report.figures.panels import mean_curve, quantity_panel, response_panel, run_panel, settings_panel
from optexp.report.figures.style import ON_DARK, PALETTE, css_colour, svg, themed


def runs_of(tmp_path: Path, seeds: int, **options: Any) -> list[Run]:
    return [read_run(write_run(tmp_path / f"{seed}", seed=seed, **options)) for seed in range(seeds)]


LOOKS: list[dict[str, Any]] = [{"color": PALETTE[0], "linestyle": "-"}]


def band(figure: Figure) -> dict[float, tuple[float, float]]:
    """Return the lower and upper border of the only band, by step."""
    (collection,) = figure.axes[0].collections
    corners = collection.get_paths()[0].vertices
    by_step: dict[float, list[float]] = {}
    for x, y in corners:
        by_step.setdefault(float(x), []).append(float(y))
    return {step: (min(values), max(values)) for step, values in by_step.items()}


def test_a_setting_is_the_mean_of_its_seeds_in_a_t_interval(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, 3)
    figure = settings_panel([runs], LOOKS, "val/loss")
    values = [dict(points(run, "val/loss")) for run in runs]
    thick = max(figure.axes[0].lines, key=lambda line: line.get_linewidth())
    for step, y in zip(thick.get_xdata(), thick.get_ydata(), strict=True):
        at_step = [table[step] for table in values]
        assert y == pytest.approx(sum(at_step) / 3, rel=1e-12)
        expected = stats.t.interval(0.95, 2, loc=y, scale=stats.sem(at_step))
        assert band(figure)[step] == pytest.approx(expected, rel=1e-9)
    assert list(thick.get_xdata()) == [20, 40, 60, 80, 100]
    assert len(figure.axes[0].lines) == 4  # each seed has its thin line


def test_a_diverged_seed_is_a_line_with_a_cross_and_no_part_of_the_mean(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, 2)
    runs.append(read_run(write_run(tmp_path / "lost", "diverged", seed=2)))
    figure = settings_panel([runs], LOOKS, "val/loss")
    lines = figure.axes[0].lines
    thick = max(lines, key=lambda line: line.get_linewidth())
    last = [points(run, "val/loss")[-1][1] for run in runs[:2]]
    assert thick.get_ydata()[-1] == pytest.approx(sum(last) / 2)
    assert [list(line.get_xdata()) for line in lines if line.get_marker() == "X"] == [[40, 60]]
    assert not figure.axes[0].collections  # two values have no interval


def test_the_mean_stands_where_all_have_a_value() -> None:
    mean = mean_curve([[(1, 1.0), (2, 3.0), (3, 5.0)], [(2, 5.0), (3, 7.0), (4, 9.0)]])
    assert [(step, m.mean) for step, m in mean] == [(2, 4.0), (3, 6.0)]
    assert mean_curve([]) == []


def test_long_lines_keep_their_peaks() -> None:
    line = [(float(step), 100.0 if step == 5003 else math.sin(step)) for step in range(10_000)]
    short = thinned(line, 400)
    assert len(short) <= 404
    assert (5003.0, 100.0) in short
    assert (short[0], short[-1]) == (line[0], line[-1])
    assert thinned(line[:400], 400) == line[:400]


def test_a_run_has_its_baselines(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, 1)
    axes = run_panel(run, "loss", {"bigram": 0.5}).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [0.5]
    assert [text.get_text() for text in axes.texts] == ["bigram 0.5000"]
    low, high = axes.get_ylim()
    assert low < 0.5 < high


def test_quantities_over_several_decades_have_a_logarithmic_axis(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, 1)
    assert quantity_panel(run, ["optim/grad_norm"], "gradient norm").axes[0].get_yscale() == "log"
    both = quantity_panel(run, ["optim/lr", "optim/effective_lr"], "learning rate").axes[0]
    assert [text.get_text() for text in both.get_legend().get_texts()] == ["lr", "effective_lr"]


def test_a_single_point_is_a_dot(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, 1)
    row = {"step": 1, "time": 0, "train/loss": 2.3, "val/loss": 2.2, "optim/update_ratio": 40.0}
    (run.path / "metrics.jsonl").write_text(json.dumps(row))
    quantity = quantity_panel(run, ["optim/update_ratio"], "update")
    for figure in (quantity, run_panel(run, "loss", {}), settings_panel([[run]], LOOKS, "val/loss")):
        assert {line.get_marker() for line in figure.axes[0].lines} == {"o"}


def test_a_quantity_that_leaves_its_axis_says_so(tmp_path: Path) -> None:
    (run,) = runs_of(tmp_path, 1)
    rates = [1.0, 0.5, 1e-17]  # what rounding makes of a schedule that ends in zero
    rows = [{"step": step, "time": 0, "optim/lr": rate} for step, rate in enumerate(rates)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    axes = quantity_panel(run, ["optim/lr"], "learning rate").axes[0]
    assert axes.get_ylim()[0] > 1e-17
    assert [text.get_text() for text in axes.texts] == ["▼ beyond: down to 1.00e-17"]


def rows(**statuses: str) -> list[dict[str, Any]]:
    """Return three seeds at each of three learning rates; a status given as lr_seed replaces the good end."""
    return [
        {"lr": lr, "seed": seed, "loss": None if status != "completed" else lr * (1 + seed), "status": status}
        for lr in (0.01, 0.1, 1.0)
        for seed in range(3)
        for status in [statuses.get(f"lr{lr:g}_{seed}".replace(".", ""), "completed")]
    ]


def test_a_metric_against_one_number(tmp_path: Path) -> None:
    figure, _ = response_panel(rows(lr1_0="diverged", lr1_1="failed"), "lr", "loss", ["lr", "seed"])
    axes = figure.axes[0]
    line = next(line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3)
    assert list(line.get_xdata()) == pytest.approx([0, 1, 2])
    assert list(line.get_ydata()) == pytest.approx([0.02, 0.2, 3.0])
    interval = next(line for line in axes.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2)
    expected = stats.t.interval(0.95, 2, loc=0.02, scale=stats.sem([0.01, 0.02, 0.03]))
    assert interval.get_ydata()[1] == pytest.approx(expected[1])
    assert axes.get_xlabel() == "lr (log)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1", "1"]
    assert [text.get_text() for text in axes.texts] == ["2 lost"]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "X"] == [pytest.approx(2)]


def test_another_setting_makes_a_line_of_its_own() -> None:
    table = [row | {"optimizer": name} for name in ("sgd", "adamw") for row in rows()]
    figure, names = response_panel(table, "lr", "loss", ["lr", "optimizer", "seed"])
    assert names == ["optimizer=sgd", "optimizer=adamw"]
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]) == 2


def test_many_combinations_share_one_line_through_the_best() -> None:
    table = [row | {"other": other, "loss": row["loss"] + other} for other in range(9) for row in rows()]
    figure, names = response_panel(table, "lr", "loss", ["lr", "other", "seed"])
    assert names == []
    (line,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert list(line.get_ydata()) == pytest.approx([0.02, 0.2, 2.0])


def answer(**changes: Any) -> dict[str, Any]:
    interval = {"estimate": 0.5, "low": 0.4, "high": 0.6, "level": 0.95, "n": 3, "method": "t"}
    content = {"unit": "accuracy", "smallest": 0.2, "supported_if": "above", "interval": interval}
    return {**content, "per_seed": [0.4, 0.5, None, 0.6], "verdict": "supported", **changes}


@pytest.mark.parametrize(("side", "left_is_shaded"), [("above", False), ("below", True)])
def test_an_effect_stands_against_the_smallest_that_matters(side: str, left_is_shaded: bool) -> None:
    axes = effect_figure(answer(supported_if=side)).axes[0]
    strokes = next(line for line in axes.lines if line.get_marker() == "|")
    assert list(strokes.get_xdata()) == [0.4, 0.5, 0.6]
    interval = next(line for line in axes.lines if list(line.get_ydata()) == [0.2, 0.2])
    assert list(interval.get_xdata()) == [0.4, 0.6]
    assert next(line for line in axes.lines if line.get_marker() == "D").get_xdata()[0] == 0.5
    (shade,) = axes.patches
    left, right = axes.get_xlim()
    expected = (left, 0.2) if left_is_shaded else (0.2, right)
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx(expected)


def test_effects_over_decades_have_a_logarithmic_axis() -> None:
    interval = {"estimate": 1000.0, "low": 500.0, "high": 2000.0}
    assert effect_figure(answer(interval=interval, per_seed=[900.0], smallest=2.0)).axes[0].get_xscale() == "log"


def test_arms_show_their_seeds_and_what_has_no_value() -> None:
    axes = measure_figure({"a": {"m": [1.0, 2.0, 4.0]}, "b": {"m": [3.0, None]}, "c": {}}, "m").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert means == pytest.approx([7 / 3, 3.0])
    assert [text.get_text() for text in axes.texts] == ["1 without a value"]


def test_arms_have_no_colours_which_mean_something_else_in_the_curves() -> None:
    effects = [{"factors": ["a"], "per_seed": [1.0, 2.0], "interval": {"low": 0.0, "estimate": 1.5, "high": 3.0}}]
    for figure in (measure_figure({"a": {"m": [1.0, 2.0, 4.0]}}, "m"), ranked_figure(effects, "m")):
        assert not {line.get_color() for line in figure.axes[0].lines} & set(PALETTE)


@pytest.mark.parametrize("values", [[0.0001, 0.0003, 0.0005, 0.004], [0.123456, 0.123457], [1e-9, 1.0], [12345.0, 1e5]])
@pytest.mark.parametrize("arm", ["a", "a name that takes much room"])
def test_ticks_never_touch(values: list[float], arm: str) -> None:
    low, high = min(values), max(values)
    interval = {"low": low, "estimate": (low + high) / 2, "high": high}
    effects = [{"factors": [arm, arm], "per_seed": values, "interval": interval}]
    figures = [measure_figure({arm: {"m": values}}, "m"), ranked_figure(effects, "m")]
    figures.append(effect_figure(answer(interval=interval, per_seed=values, smallest=low)))
    for figure in figures:
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_text()]
        assert len(boxes) >= 1
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_a_figure_in_a_page_is_small_text_with_names_of_its_own() -> None:
    table = [{"lr": lr, "wd": wd, "loss": lr + wd, "status": "completed"} for lr in (1, 2) for wd in (3, 4)]
    table.append({"lr": 3, "wd": 3, "loss": None, "status": "diverged"})
    pictures = [svg(heat_map_figure(table, "lr", "wd", "loss"), name, 'a "title"') for name in ("f1", "f2")]
    names = [set(re.findall(r'id="([^"]+)"', picture)) for picture in pictures]
    assert names[0]
    assert not names[0] & names[1]
    for picture, own in zip(pictures, names, strict=True):
        references = set(re.findall(r'(?:url\(|href=")#([^")]+)', picture))
        assert references <= own
        root = ElementTree.fromstring(picture)
        assert root.get("aria-label") == 'a "title"'
        texts = {"".join(element.itertext()).strip() for element in root.iter("text")}
        assert {"loss", "4.0000", "diverged", "lr", "wd"} <= texts
        assert not re.search(r"https?:|DejaVu|<metadata", picture)
        assert "var(--font)" in picture


def test_labels_are_text_whatever_they_hold() -> None:
    table = {"$x_$ <b>&amp;": {"m": [1.0]}, "\x1b[31m模": {"m": [2.0]}, "long " * 9: {"m": [3.0]}}
    root = ElementTree.fromstring(svg(measure_figure(table, "m"), "f1", "t"))
    texts = {"".join(element.itertext()).strip() for element in root.iter("text")}
    assert {"$x_$ <b>&amp;", "[31m模", "long long long long lon…"} <= texts


def test_lines_change_with_the_page_and_cells_of_a_heat_map_do_not() -> None:
    assert css_colour(PALETTE[0]) == "var(--c0)"
    for name in ("viridis", "viridis_r"):
        assert not {to_hex(colormaps[name](step)) for step in range(256)} & themed().keys()
    names = [name for name, _ in themed().values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("palette", [PALETTE, ON_DARK])
def test_colours_of_the_palette_are_far_apart(palette: tuple[str, ...]) -> None:
    parts = [[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in palette]
    distances = [math.dist(a, b) for index, a in enumerate(parts) for b in parts[:index]]
    assert len(palette) == len(PALETTE)
    assert min(distances) > 50


@pytest.mark.parametrize("paper", ["light", "dark"])
def test_lines_can_be_told_from_the_paper(paper: str) -> None:
    """At least 3:1 as WCAG 2.2 asks of graphics (1.4.11); the lightest of Okabe and Ito's colours reach 2 on white."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    shown = {name: light if paper == "light" else dark for light, (name, dark) in themed().items()}
    for name, colour in shown.items():
        if re.fullmatch(r"[cs]\d+", name):
            low, high = sorted([luminance(colour), luminance(shown["paper"])])
            least = 3.0 if paper == "dark" else 1.6
            assert (high + 0.05) / (low + 0.05) >= least, (name, colour)
