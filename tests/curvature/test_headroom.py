"""Stability headroom: against the Hessian of a linear regression, written down, and the limits of the update rules."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from command_line import here, only_run

from optexp.curvature.headroom import headroom
from optexp.datasets.line import line
from optexp.errors import BadInput

LINE = ("model=linear", "dataset=line", "dataset.batch_size=full", "engine.max_steps=20", "schedule=constant")


def curvature_of_line() -> float:
    """Return the largest eigenvalue of the Hessian of the mean squared error over slope and intercept."""
    inputs = line().train.inputs.double().flatten()
    design = torch.stack([inputs, torch.ones_like(inputs)], dim=1)
    return float(torch.linalg.eigvalsh(2 * design.T @ design / len(design))[-1])


def test_a_line_has_the_curvature_of_its_design_and_sgd_its_limit(tmp_path: Path) -> None:
    words = ("optimizer=sgd", "optimizer.lr=0.02", "optimizer.momentum=0.9", "optimizer.dampening=0.5")
    assert here(tmp_path, *LINE, *words).status == 0
    found = headroom(only_run(tmp_path).path)
    assert found.curvature == pytest.approx(curvature_of_line(), rel=0.02)
    assert found.limit == pytest.approx(2 * 1.9 / (0.02 * 0.5))
    assert found.decades == pytest.approx(math.log10(found.limit / found.curvature))  # type: ignore[operator]
    assert "decades of room" in found.sentence()


def test_a_rate_beyond_the_limit_is_said_to_be(tmp_path: Path) -> None:
    """Twice the limit of plain gradient descent, for few enough steps that the numbers stay finite."""
    lr = 2 * 2 / curvature_of_line()
    words = ("optimizer=sgd", f"optimizer.lr={lr}", "optimizer.momentum=0", "optimizer.weight_decay=0")
    assert here(tmp_path, *LINE, *words).status == 0
    found = headroom(only_run(tmp_path).path)
    assert found.decades == pytest.approx(-math.log10(2), abs=0.02)
    assert "0.3 decades beyond it" in found.sentence()


def test_a_rule_without_a_known_limit_has_none(tmp_path: Path) -> None:
    assert here(tmp_path, *LINE, "optimizer=lion").status == 0
    found = headroom(only_run(tmp_path).path)
    assert (found.limit, found.decades) == (None, None)
    assert "no stability limit is known" in found.sentence()


def test_diagnose_tells_it_when_asked(tmp_path: Path) -> None:
    assert here(tmp_path, *LINE, "optimizer=sgd", "optimizer.lr=0.02").status == 0
    path = only_run(tmp_path).path
    ended = here(tmp_path, "diagnose", str(path), "--curvature")
    assert ended.status == 0, ended.err
    assert "stability: largest curvature" in ended.out
    written = json.loads((path / "diagnosis.json").read_text())
    assert written["curvature"]["curvature"] == pytest.approx(curvature_of_line(), rel=0.02)


def test_without_a_checkpoint_there_is_nothing_to_measure(tmp_path: Path) -> None:
    assert here(tmp_path, *LINE, "engine.checkpoint_every=null").status == 0
    with pytest.raises(BadInput, match="checkpoint"):
        headroom(only_run(tmp_path).path)
