"""What stands in the picture of a range test, read back from matplotlib's own objects."""

from __future__ import annotations

import numpy as np
import pytest

from optexp.range_test.sweep import Sweep
from optexp.report.figures.range_test import range_test_figure

RATES = Sweep(num_iter=50).rates
POINTS = {"steepest": 1e-2, "valley": 1e-3, "slide": 3e-2, "minimum/10": 2e-2, "knee": 5e-4}


def losses(offset: float, steps: int) -> list[float]:
    return (offset + 2 / (1 + np.exp((np.log10(RATES) + 2) / 0.4)))[:steps].tolist()


def test_curves_band_suggestions_and_window() -> None:
    smoothed = [losses(0.1, 50), losses(0.2, 45), losses(0.3, 48)]
    figure = range_test_figure(RATES, smoothed, smoothed, POINTS, [9e-3, 1.1e-2], (1e-3, 5e-3), "mlp", 10.0)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [
        "mean of 3 seeds,\n95 % interval",
        "1/10 to 1/2 of the steepest:\n0.001 to 0.005",
        *("steepest: 0.01", "valley: 0.001", "slide: 0.03", "minimum/10: 0.02", "knee: 0.0005"),
    ]
    mean = next(line for line in axes.lines if line.get_label() == labels[0])
    assert len(mean.get_xdata()) == 45  # where all seeds have a value
    np.testing.assert_allclose(mean.get_ydata(), np.mean([seed[:45] for seed in smoothed], axis=0))
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with 2 degrees of freedom
    vertices = axes.collections[0].get_paths()[0].vertices
    at_start = vertices[np.isclose(vertices[:, 0], RATES[0])][:, 1]
    assert (at_start.min(), at_start.max()) == pytest.approx((smoothed[1][0] - half, smoothed[1][0] + half), rel=1e-4)
    steepest = next(line for line in axes.lines if line.get_label() == "steepest: 0.01")
    assert steepest.get_xdata()[0] == 1e-2
    (above,) = axes.child_axes
    assert above.get_xlabel() == "effective learning rate"


def test_one_seed_shows_its_losses_and_no_window_where_there_is_none() -> None:
    figure = range_test_figure(RATES, [losses(0, 50)], [losses(0, 50)], {}, [], None, "mlp")
    axes = figure.axes[0]
    assert axes.get_legend_handles_labels()[1] == ["1 seed"]
    assert axes.lines[0].get_marker() == "."
    assert axes.child_axes == []
