"""Figures: what is drawn is what was recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from optexp.records.reading import Run, read_run
from optexp.report.figures import curves, heat_map, legend_labels

MakeRun = Callable[..., Path]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Collect the figures that are saved, to look at what is in them."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def runs_of(make_run: MakeRun, tmp_path: Path, *configs: dict[str, Any]) -> list[Run]:
    return [read_run(make_run(tmp_path / str(number), **config)) for number, config in enumerate(configs)]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_show_the_recorded_numbers(make_run: MakeRun, tmp_path: Path, drawn: list[Figure]) -> None:
    runs = runs_of(make_run, tmp_path, {"lr": 0.1}, {"lr": 0.2})
    curves([[run] for run in runs], tmp_path / "c.png", ["A", "B"])
    height, width = imread(tmp_path / "c.png").shape[:2]
    assert width > 1200
    assert height > 400
    loss, accuracy = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in (loss, accuracy)] == ["loss", "accuracy"]
    training, validation = loss.lines[:2]
    assert list(training.get_xdata()) == [10 * i for i in range(1, 11)]
    assert list(training.get_ydata()) == [1 / i for i in range(1, 11)]
    assert list(validation.get_ydata()) == [0.3, 0.15]
    assert validation.get_linewidth() > training.get_linewidth()
    assert loss.lines[0].get_color() != loss.lines[2].get_color()
    assert legend(drawn[0]) == ["A  lr=0.1", "B  lr=0.2", "training", "validation"]
    assert drawn[0].get_suptitle() == "resnet on digits"


def test_one_run_needs_no_names(make_run: MakeRun, tmp_path: Path, drawn: list[Figure]) -> None:
    curves([runs_of(make_run, tmp_path, {})], tmp_path / "c.png", ["A"])
    assert not drawn[0].legends
    texts = drawn[0].axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["training", "validation"]


def test_divergence_is_a_cross_and_a_word(make_run: MakeRun, tmp_path: Path, drawn: list[Figure]) -> None:
    runs = runs_of(make_run, tmp_path, {"lr": 0.1}, {"lr": 9.0, "status": "diverged"})
    curves([[run] for run in runs], tmp_path / "c.png", ["A", "B"])
    crosses = [line for line in drawn[0].axes[0].lines if line.get_marker() == "X"]
    assert [list(cross.get_xdata()) for cross in crosses] == [[90, 100]]  # from the last number to the step of nan
    assert [list(cross.get_markevery()) for cross in crosses] == [[1]]
    assert legend(drawn[0])[:2] == ["A  lr=0.1", "B  lr=9 (diverged at step\n    100)"]


def test_an_explosion_does_not_flatten_the_other_runs(make_run: MakeRun, tmp_path: Path, drawn: list[Figure]) -> None:
    calm, wild = runs_of(make_run, tmp_path, {"lr": 0.1}, {"lr": 9.0, "status": "diverged"})
    with (wild.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 110, "epoch": 2, "time": 1, "train/loss": 1e30}\n')
    wild.info["last_step"] = 110
    curves([[calm], [wild]], tmp_path / "c.png", ["A", "B"])
    axes = drawn[0].axes[0]
    top = axes.get_ylim()[1]
    assert top < 10
    (exit_,) = [line for line in axes.lines if line.get_marker() == "^"]
    assert 90 < exit_.get_xdata()[0] < 110
    (cross,) = [line for line in axes.lines if line.get_marker() == "X"]
    assert list(cross.get_ydata()) == pytest.approx([top, top])
    assert cross.get_xdata()[1] == 111  # the numbers of step 110 are finite: those of the next were not
    assert "▲ beyond: up to 1.00e+30" in [text.get_text() for text in axes.texts]


def test_where_all_diverged_nothing_leaves_the_picture(make_run: MakeRun, tmp_path: Path, drawn: list[Figure]) -> None:
    (wild,) = runs_of(make_run, tmp_path, {"lr": 9.0, "status": "diverged"})
    rows = [{"step": 1, "time": 0, "train/loss": 2.3}, {"step": 8, "time": 1, "train/loss": 4.9e18}]
    (wild.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wild.info["last_step"] = 8
    curves([[wild]], tmp_path / "c.png", ["A"])
    axes = drawn[0].axes[0]
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "log"
    assert low < 2.3 < 4.9e18 < high
    assert not axes.texts
    (cross,) = [line for line in axes.lines if line.get_marker() == "X"]
    assert list(cross.get_xdata()) == [8, 9]
    assert list(cross.get_ydata()) == [4.9e18] * 2


def test_a_run_that_recovers_is_never_cut(make_run: MakeRun, tmp_path: Path, drawn: list[Figure]) -> None:
    (run,) = runs_of(make_run, tmp_path, {"lr": 20.0})
    rows = [{"step": step, "time": 0, "train/loss": loss} for step, loss in enumerate((2.3, 8e6, 30.0))]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curves([[run]], tmp_path / "c.png", ["A"])
    assert drawn[0].axes[0].get_ylim()[1] > 8e6
    assert drawn[0].axes[0].get_yscale() == "log"


def test_seeds_become_a_mean(make_run: MakeRun, tmp_path: Path, drawn: list[Figure]) -> None:
    runs = runs_of(make_run, tmp_path, *({"lr": lr, "seed": seed} for lr in (0.1, 0.2) for seed in range(4)))
    curves([runs[:4], runs[4:]], tmp_path / "c.png", ["A", "B"])
    loss = drawn[0].axes[0]
    assert loss.get_title(loc="left") == "val/loss"
    thick = [line for line in loss.lines if line.get_linewidth() > 1.5]
    assert [list(line.get_ydata()) for line in thick] == [pytest.approx([0.3, 0.15])] * 2
    assert len(loss.lines) == 8 + 2
    assert legend(drawn[0]) == ["A  lr=0.1", "B  lr=0.2", "seed", "mean"]


@pytest.mark.parametrize("number", [2, 7, 24, 36, 150])
@pytest.mark.parametrize("remark", ["", " a remark of some words that would make a long line"])
def test_the_legend_leaves_three_quarters_to_the_curves(
    make_run: MakeRun, tmp_path: Path, drawn: list[Figure], number: int, remark: str
) -> None:
    decays = [{"lr": 0.1, "weight_decay": index / 1000, "note": f"{index}{remark}"} for index in range(number)]
    runs = runs_of(make_run, tmp_path, *decays)
    labels = [f"L{index}" for index in range(number)]
    curves([[run] for run in runs], tmp_path / "c.png", labels)
    figure = drawn[0]
    box = figure.legends[0].get_window_extent()
    width, height = figure.get_size_inches() * figure.dpi
    assert box.width <= width / 4
    assert box.height <= height
    texts = legend(figure)
    assert texts[-2:] == ["training", "validation"]
    assert [text.split()[0] for text in texts[:7]] == labels[: min(7, number)] + texts[number:7]
    assert ("43 more" in texts) == (number == 150)


def test_runs_without_numbers_are_an_empty_picture(make_run: MakeRun, tmp_path: Path) -> None:
    run = runs_of(make_run, tmp_path, {})[0]
    (run.path / "metrics.jsonl").unlink()
    curves([[run]], tmp_path / "c.png", ["A"])
    assert (tmp_path / "c.png").stat().st_size > 0


def test_legend_says_what_differs_in_the_fewest_words(make_run: MakeRun, tmp_path: Path) -> None:
    runs = runs_of(
        make_run,
        tmp_path,
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.001, "target": "torch.optim.AdamW", "eps": 1e-8},
        {"lr": 0.1, "momentum": 0.0},
    )
    assert legend_labels(runs[:2]) == ["SGD lr=0.1", "AdamW lr=0.001"]
    assert legend_labels(runs)[2] == "SGD lr=0.1 momentum=0"  # lr alone does not tell it from the first
    assert legend_labels([runs[0], runs[0]]) == ["0", "0"]


def test_a_grid_is_coloured_by_one_number_and_dashed_by_the_other(
    make_run: MakeRun, tmp_path: Path, drawn: list[Figure]
) -> None:
    grid = [{"lr": lr, "weight_decay": decay} for lr in (0.1, 0.2, 0.3) for decay in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    curves([[run] for run in runs_of(make_run, tmp_path, *grid)], tmp_path / "c.png", list("ABCDEFGHIJKLMNOPQR"))
    lines = drawn[0].legends[0].get_lines()[:18]
    assert len({line.get_color() for line in lines}) == 3
    assert len({str(line._dash_pattern) for line in lines}) == 6
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == 18


def cells(figure: Figure) -> dict[tuple[float, float], str]:
    """Return the text in each cell, its lines joined."""
    found: dict[tuple[float, float], list[str]] = {}
    for text in figure.axes[0].texts:
        found.setdefault(text.get_position(), []).append(text.get_text())
    return {place: "\n".join(lines) for place, lines in found.items()}


def test_heat_map_writes_each_value_where_it_belongs(tmp_path: Path, drawn: list[Figure]) -> None:
    values = {(0.1, 0.0): 0.5, (0.01, 0.0): 0.25, (0.01, 1e-4): 2.0}
    rows: list[dict[str, Any]] = [
        {"lr": lr, "wd": wd, "val/loss": loss, "status": "completed"} for (lr, wd), loss in values.items()
    ]
    rows.append({"lr": 0.1, "wd": 1e-4, "val/loss": math.nan, "status": "diverged"})
    heat_map(rows, "lr", "wd", "val/loss", tmp_path / "h.png")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.0001"]
    assert cells(drawn[0]) == {(0, 0): "0.2500", (1, 0): "0.5000", (0, 1): "2.0000", (1, 1): "diverged"}
    rectangles = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [patch.get_xy() for patch in rectangles if patch.get_hatch()] == [(0.5, 0.5)]
    frame = rectangles[-1]
    assert not frame.get_fill()
    assert (round(frame.get_x()), round(frame.get_y())) == (0, 0)  # around the lowest loss


def test_brighter_is_better_for_losses_and_accuracies(tmp_path: Path, drawn: list[Figure]) -> None:
    for metric in ("val/loss", "val/accuracy"):
        rows = [{"lr": x, "wd": 0, metric: value, "status": "completed"} for x, value in ((1, 0.1), (2, 0.9))]
        heat_map(rows, "lr", "wd", metric, tmp_path / "h.png")
    low_loss, high_loss = (sum(patch.get_facecolor()[:3]) for patch in drawn[0].axes[0].patches[:2])
    low_accuracy, high_accuracy = (sum(patch.get_facecolor()[:3]) for patch in drawn[1].axes[0].patches[:2])
    assert low_loss > high_loss
    assert low_accuracy < high_accuracy


def test_seeds_share_a_cell_and_lost_ones_are_counted(tmp_path: Path, drawn: list[Figure]) -> None:
    rows: list[dict[str, Any]] = [{"lr": 1, "wd": 0, "val/loss": value, "status": "completed"} for value in (1.0, 2.0)]
    rows.append({"lr": 2, "wd": 0, "val/loss": 4.0, "status": "completed"})
    rows.append({"lr": 2, "wd": 0, "val/loss": 0.1, "status": "diverged"})  # from before it diverged: does not count
    heat_map(rows, "lr", "wd", "val/loss", tmp_path / "h.png")
    assert cells(drawn[0]) == {(0, 0): "1.5000\nn=2", (1, 0): "4.0000\n1 of 2 lost"}


def test_a_heat_map_in_which_everything_diverged(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [{"lr": lr, "wd": 0, "val/loss": None, "status": "diverged"} for lr in (1, 2)]
    heat_map(rows, "lr", "wd", "val/loss", tmp_path / "h.png")
    assert set(cells(drawn[0]).values()) == {"diverged"}


def test_log_spaced_settings_stand_at_their_decades(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [
        {"lr": lr, "wd": wd, "val/loss": lr, "status": "completed"} for lr in (1, 0.1, 100) for wd in (0, 1e-4, 0.01)
    ]
    heat_map(rows, "lr", "wd", "val/loss", tmp_path / "h.png")
    axes = drawn[0].axes[0]
    assert [(t.get_text(), x) for t, x in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)] == [
        ("0.1", 0),
        ("1", pytest.approx(1)),
        ("100", pytest.approx(3)),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.0001", "0.01"]
    assert list(axes.get_yticks()) == [0, 1, 2]  # two decades are the unit here, and zero stands one unit apart
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lr (log)", "wd (log, 0 apart)")
    cells_of_a_row = {(round(patch.get_x(), 9), round(patch.get_width(), 9)) for patch in axes.patches[:-1]}
    assert cells_of_a_row == {(-0.5, 1), (0.5, 1.5), (2, 1.5)}  # each ends half way to its neighbour


def test_a_setting_with_a_lost_seed_is_not_framed(tmp_path: Path, drawn: list[Figure]) -> None:
    rows: list[dict[str, Any]] = [{"lr": 1, "wd": 0, "val/loss": 0.1, "status": "completed"}]
    rows.append({"lr": 1, "wd": 0, "val/loss": None, "status": "diverged"})
    rows.append({"lr": 2, "wd": 0, "val/loss": 0.5, "status": "completed"})
    heat_map(rows, "lr", "wd", "val/loss", tmp_path / "h.png")
    frame = drawn[0].axes[0].patches[-1]
    assert round(frame.get_x()) == 1


def test_settings_drawn_at_random_are_points(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [{"lr": 10.0**-i, "wd": 1.0 + i, "val/loss": float(i), "status": "completed"} for i in range(14)]
    rows.append({"lr": 5.0, "wd": 30.0, "val/loss": None, "status": "diverged"})
    heat_map(rows, "lr", "wd", "val/loss", tmp_path / "h.png")
    axes = drawn[0].axes[0]
    assert axes.get_xscale() == "log"
    assert [line.get_marker() for line in axes.lines].count("X") == 1
    assert len([line for line in axes.lines if line.get_marker() == "o"]) == 14 + 1  # and the ring around the best
