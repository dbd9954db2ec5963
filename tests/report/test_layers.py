"""Profiles over the layers, from the rows of a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from optexp.records.metrics_file import MetricsFile
from optexp.records.reading import Run, read_run
from optexp.report.figures.layers import layer_names, layer_panel, layer_profiles


@pytest.fixture
def run(tmp_path: Path, make_run: Callable[..., Path]) -> Run:
    path = make_run(tmp_path / "run")
    (path / "metrics.jsonl").unlink()
    file = MetricsFile(path / "metrics.jsonl")
    for step in (10, 20, 40, 80):
        layers = {f"layer/{name}/grad_norm": step * 10.0**-place for place, name in enumerate(("in", "mid.w", "out"))}
        file.log({"step": step, "epoch": 0.1, "time": 0.1, "train/loss": 1.0, **layers})
    file.log({"step": 90, "epoch": 0.1, "time": 0.1, "train/loss": 1.0})
    file.close({})
    return read_run(path)


def test_profiles_are_those_of_the_first_the_middle_and_the_last_probe(run: Run) -> None:
    assert layer_names(run, "grad_norm") == ["in", "mid.w", "out"]
    profiles = layer_profiles(run, "grad_norm")
    assert [step for step, _ in profiles] == [10, 40, 80]
    assert profiles[-1][1] == pytest.approx([80, 8, 0.8])
    assert layer_profiles(run, "update_ratio") == []


def test_the_picture_has_a_line_for_each_and_a_gap_for_zero(run: Run) -> None:
    figure = layer_panel([(10, [1.0, 0.0, 3.0]), *layer_profiles(run, "grad_norm")], "gradient norm by layer")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.get_lines()] == ["step 10", "step 10", "step 40"]
    assert math.isnan(axes.get_lines()[0].get_ydata()[1])  # type: ignore[index, arg-type]


def test_a_run_without_probes_has_an_empty_picture_and_no_legend() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = layer_panel([], "gradient norm by layer")
    assert figure.axes[0].get_legend() is None
