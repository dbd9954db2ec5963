"""`task=line_fit`: the paths of all four fits are those of the guide's trainer, written out in float64."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import here
from PIL import Image

from optexp.config.compose import Composer
from optexp.datasets.line import line
from optexp.errors import BadInput
from optexp.tasks import prepare
from optexp.tasks.line_fit import Fit

SGD, ADAMW = "SGD momentum 0.9", "AdamW betas 0.9, 0.95"


def found(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return result


def guide(optimizer: str, with_helpers: bool, start: tuple[float, float]) -> torch.Tensor:
    """Return slope and intercept at each step, [101, 2], of row 20 of the guide's systems."""
    split = line(num_points=142).train
    assert split.targets is not None
    x, y = split.inputs.double().flatten(), split.targets.double().flatten()
    assert len(x) == 100
    weight, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in start)
    decay = 0.01 if with_helpers else 0.0
    groups = [{"params": [weight], "weight_decay": decay}, {"params": [bias], "weight_decay": 0.0}]
    rule: torch.optim.Optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    if optimizer == ADAMW:
        rule = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.95))
    restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(rule, T_0=50, T_mult=2)
    path = [start]
    for _ in range(100):
        rule.zero_grad()
        torch.nn.functional.mse_loss(weight * x + bias, y).backward()
        if with_helpers:
            torch.nn.utils.clip_grad_norm_([weight, bias], 1.0)
        rule.step()
        if with_helpers:
            restarts.step()
        path.append((weight.item(), bias.item()))
    return torch.tensor(path, dtype=torch.float64)


def test_all_four_fits_are_those_of_the_guide(tmp_path: Path) -> None:
    ended = here(tmp_path, "task=line_fit", "hydra.run.dir=run", "seed=3")
    assert (ended.status, ended.err) == (0, "")
    result = found(tmp_path)
    runs = {(run["trainer"], run["optimizer"]): run for run in result["runs"]}
    assert len(runs) == 4
    starts = {(run["slopes"][0], run["intercepts"][0]) for run in runs.values()}
    assert len(starts) == 1  # the same initial weights
    for (trainer, optimizer), run in runs.items():
        expected = guide(optimizer, trainer != "plain", *starts)
        path = torch.tensor([run["slopes"], run["intercepts"]], dtype=torch.float64).T
        torch.testing.assert_close(path, expected, rtol=0, atol=2e-5)  # the task computes in single precision
        assert run["slope"] == run["slopes"][-1]
        assert run["loss"] >= result["least_squares"]["loss"]
    assert result["points"] == 100
    assert runs["plain", SGD]["overshoot"] == pytest.approx(max(runs["plain", SGD]["slopes"]) - 2)
    for name in ("line_fit.png", "slope.png"):
        with Image.open(tmp_path / "run" / "figures" / name) as picture:
            assert picture.format == "PNG"
    assert "stays within 5 %" in ended.out
    assert "least squares" in ended.out


def test_the_commands_it_names_train_the_same(tmp_path: Path) -> None:
    assert here(tmp_path, "task=line_fit", "hydra.run.dir=run", "task.steps=7").status == 0
    run = found(tmp_path)["runs"][2]
    assert "'~schedule.T_0'" in run["command"]
    words = [word.strip("'") for word in run["command"].split()[1:]]
    assert here(tmp_path, *words, "hydra.run.dir=alone", "engine.log_every=1").status == 0
    lines = (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()
    losses = [row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row]
    assert losses == pytest.approx(run["losses"][:7], rel=1e-5)


def test_divergence_is_a_result(tmp_path: Path) -> None:
    ended = here(tmp_path, "task=line_fit", "hydra.run.dir=run", "task.lr=1e9")
    assert ended.status == 0
    assert found(tmp_path)["runs"][2]["settling"] is None
    assert "never" in ended.out


def test_overshoot_and_settling_are_counted_from_where_the_slope_starts() -> None:
    fit = Fit("o", "t", [0.0, 1.95, 2.3, 1.99, 2.02], [0.0, 1.0, 1.0, 1.04, 0.96], [1.0] * 5)
    assert (fit.overshoot, fit.arrival, fit.settling) == (pytest.approx(0.3), 1, 3)
    above = Fit("o", "t", [3.0, 1.5, 2.0], [1.0, 1.0, 1.2], [1.0] * 3)
    assert (above.overshoot, above.arrival, above.settling) == (0.5, None, None)
    assert Fit("o", "t", [1.0, math.nan], [1.0, math.nan], [1.0, math.nan]).settling is None


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["task.steps=0"], "task.steps=0: allowed is an integer ≥ 1"),
        (["task.lr=0"], "task.lr=0: allowed is a finite number > 0"),
        (["optimizer=adam"], "optimizer: task=line_fit does not use the group 'optimizer'"),
    ],
)
def test_mistakes_are_refused_in_one_line(composer: Composer, words: list[str], error: str) -> None:
    with pytest.raises(BadInput, match=re.escape(error)) as caught:
        prepare(composer.compose(["task=line_fit", *words]))
    assert "\n" not in str(caught.value)
