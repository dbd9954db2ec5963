"""The same numbers as text, Markdown, CSV and pictures; what could not be measured leaves a gap and a remark."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from tables import NOTHING, row, table

from optexp.optimizer_table.table import cells, definitions, headings, print_results, to_csv, to_markdown
from optexp.report.figures.optimizer_table import rates_figure, table_figure
from optexp.report.figures.style import save_png

OPEN = {"decades": 2.0, "low": 0.01, "high": 1.0, "open_low": False, "open_high": True}
SOME = table(row("sgd"), row("adam", window=OPEN, reached=4, remarks=["too fast"]), row("slow", **NOTHING))


def test_cells() -> None:
    assert cells(row("sgd"), 5) == {
        "optimizer": "sgd",
        "lr": "0.1",
        "state": "4.0",
        "peak": "6.5",
        "time": "1.25 (1.20 to 1.31)",
        "steps": "40",
        "final": "0.960 ± 0.010",
        "window": "1.2",
    }
    assert cells(row("adam", window=OPEN, reached=4), 5)["window"] == "≥ 2.0"
    assert cells(row("adam", reached=4), 5)["steps"] == "40 (4/5 seeds)"
    assert set(cells(row("slow", **NOTHING), 5).values()) == {"slow", "-", "- (0/5 seeds)"}
    assert cells(row("sgd", time_ratio={"median": 1.0, "low": 1.0, "high": 1.0}), 5)["time"] == "1.00"


def test_units_and_definitions_follow_the_metric() -> None:
    assert headings(SOME)["steps"] == "steps to accuracy ≥ 0.92"
    of_loss = table(row("sgd"), metric="val/loss", lower_is_better=True, target=0.3, target_tolerance=None)
    assert headings(of_loss)["steps"] == "steps to loss ≤ 0.3"
    assert "1.1 × its best" in "".join(definitions(of_loss))
    assert "0.9 × its best" in "".join(definitions(SOME))
    assert "0.95 × the best final mean of all" in "".join(definitions(SOME))
    assert "9 learning rates 0.5 decades apart" in "".join(definitions(SOME))
    assert "profiler" in "".join(definitions(SOME))
    on_cuda = table(row("sgd"), setting=SOME["setting"] | {"device": "cuda (H100)"})
    assert "CUDA's caching allocator" in "".join(definitions(on_cuda))


def test_markdown_and_screen(capsys: pytest.CaptureFixture[str]) -> None:
    text = to_markdown(SOME).splitlines()
    assert len({line.count("|") for line in text[:5]}) == 1, "as many cells in every line"
    assert text[3].startswith("| adam | 0.1 | 4.0 | 6.5 |")
    assert "- adam: too fast" in text
    print_results(SOME)
    shown = capsys.readouterr().out
    assert "adam: too fast" in shown
    assert "1.25 (1.20 to 1.31)" in shown


def test_csv_has_plain_numbers() -> None:
    first, _, slow = csv.DictReader(io.StringIO(to_csv(SOME)))
    assert (first["optimizer"], float(first["time_ratio"]), float(first["final_low"])) == ("sgd", 1.25, 0.95)
    assert first["window_is_open"] == "False"
    assert {slow["lr"], slow["final"], slow["time_ratio"], slow["window_decades"], slow["window_is_open"]} == {""}


@pytest.mark.parametrize("shown", [SOME, table(row("slow", **NOTHING)), table(*(row(f"a{n}") for n in range(5)))])
def test_pictures_show_every_optimizer(shown: dict, tmp_path: Path) -> None:
    names = [entry["optimizer"] for entry in shown["optimizers"]]
    dots, rates = table_figure(shown), rates_figure(shown)
    assert [label.get_text() for label in dots.axes[0].get_yticklabels()] == names
    assert len(dots.axes) == 6
    titles = [axes.get_title(loc="left") for axes in rates.axes if axes.get_visible()]
    assert [title.split(":")[0] for title in titles] == names
    save_png(dots, tmp_path / "dots.png")
    save_png(rates, tmp_path / "rates.png")
    assert min((tmp_path / name).stat().st_size for name in ("dots.png", "rates.png")) > 1000


def test_the_best_and_what_cannot_be_told_from_it_stand_out() -> None:
    spread = {"median": 1.4, "low": 1.33, "high": 1.5}
    figure = table_figure(table(row("sgd"), row("adam", time_ratio=spread), row("lion", state_bytes_per_parameter=8.0)))
    times = [line.get_color() for line in figure.axes[2].lines if line.get_marker() == "o"]
    assert times[0] == times[2] != times[1]
    states = [line.get_color() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert states[0] == states[1] != states[2]
