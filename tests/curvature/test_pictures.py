"""The two ends of a way between checkpoints have names of their own, which a picture has room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from networks import perceptron

from optexp.curvature.lanczos import Spectrum
from optexp.curvature.loss import MeanLoss
from optexp.curvature.of_run import Checkpoint, Curvature
from optexp.curvature.pictures import Slicing, ends, landscape
from optexp.curvature.stability import Stability
from optexp.records.reading import Run
from optexp.report.figures.landscape import plane_figure, slices_figure


class Holder:
    """What a slice needs of a training: its model."""

    def __init__(self, loss: MeanLoss) -> None:
        self.model = loss.model


def checkpoint(path: str, name: str = "last", step: int = 10) -> Checkpoint:
    loss = perceptron()
    training: Any = Holder(loss)
    unknown = Stability(None, "unknown")
    return Checkpoint(Run(Path(path), {}), name, step, training, loss, loss, loss.count, unknown, 0.1, 0.1, [])


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("/out/x/run", "/out/y/run", ("x", "y")),
        ("/out/a", "/out/b", ("a", "b")),
        ("/run", "/x/run", ("/", "x")),
        ("/out/x/seed/run", "/out/y/seed/run", ("x", "y")),
        ("/out/120000-digits-sgd", "/out/120100-digits-sgd", ("120000-digits-sgd", "120100-digits-sgd")),
        ("/out/digits-resnet-adam-1", "/out/digits-resnet-adam-20", ("…-1", "…-20")),
        ("/out/a-rather-long-name", "/out/a-rather-long-name-2", ("…e", "…e-2")),
    ],
)
def test_two_runs_are_told_apart(first: str, second: str, names: tuple[str, str]) -> None:
    assert ends(checkpoint(first), checkpoint(second)) == names


def test_two_checkpoints_of_one_run_are_told_apart() -> None:
    names = ends(checkpoint("/out/run", "best", 1200), checkpoint("/out/other/../run", "last", 3000))
    assert names == ("best, step 1,200", "last, step 3,000")


def test_two_runs_of_one_name_leave_two_marks() -> None:
    first, second = checkpoint("/out/x/run"), checkpoint("/out/y/run")
    vectors = torch.zeros(1, first.loss.size, dtype=torch.float64)
    vectors[0, 0] = 1.0
    spectrum = Spectrum([1.0], [0.0], [True], 0.0, 0.0, vectors, 1)
    found = cast(Curvature, type("Found", (), {"spectrum": spectrum, "loss": first.loss.value()}))
    pictures = landscape(first, second, found, Slicing(5, 0, 3, 1.0), 0)
    assert pictures.plane is not None
    assert pictures.panels[1].marks == {"x": 0.0, "y": 1.0}
    assert pictures.plane.marks == {"x": (0.0, 0.0), "y": (1.0, 0.0)}
    assert [text.get_text().strip() for text in slices_figure(pictures.panels).axes[1].texts] == ["x", "y"]
    assert {"x", "y"} <= {text.get_text() for text in plane_figure(pictures.plane).axes[0].texts}
