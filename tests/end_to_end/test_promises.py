"""The numbers the project promises, with whole runs: slow, so only with -m slow."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import in_a_process, only_run, runs_in

pytestmark = pytest.mark.slow


def test_the_default_run_learns_digits_in_half_a_minute(tmp_path: Path) -> None:
    start = time.monotonic()
    ended = in_a_process(tmp_path)
    assert ended.status == 0
    assert time.monotonic() - start < 30
    assert (only_run(tmp_path).metrics["val/accuracy"] or 0) >= 0.97


def test_the_language_model_learns_what_a_bigram_model_cannot(tmp_path: Path) -> None:
    start = time.monotonic()
    ended = in_a_process(tmp_path, "model=transformer", "dataset=pydocs", "optimizer=adamw", "schedule=cosine")
    assert ended.status == 0
    assert time.monotonic() - start < 90
    run = only_run(tmp_path)
    (bigram,) = run.info["baselines"].values()
    assert (run.metrics["val/loss"] or math.inf) <= 1.65 < bigram


def test_the_experiments_of_the_post_mortem_end_as_it_says(tmp_path: Path) -> None:
    ended = in_a_process(tmp_path, "-m", "experiment=exp1_adam_B32,exp2_sgd_B32,exp2_sgd_B32_fixed")
    assert ended.status == 0
    accuracy = {run.choice("experiment"): run.metrics["val/accuracy"] or 0 for run in runs_in(tmp_path)}
    assert accuracy["exp1_adam_B32"] > 0.9
    assert accuracy["exp2_sgd_B32"] < 0.5
    assert accuracy["exp2_sgd_B32_fixed"] > 0.95


def test_nine_members_are_summarized(tmp_path: Path) -> None:
    ended = in_a_process(tmp_path, "-m", "optimizer.lr=1e-3,1e-2,1e-1", "optimizer.weight_decay=0,1e-4,1e-2")
    assert ended.status == 0
    assert [run.status for run in runs_in(tmp_path)] == ["completed"] * 9
    assert list(tmp_path.glob("outputs/sweeps/*/*/figures/heat_map.png"))


def study(folder: Path, name: str) -> dict[str, Any]:
    ended = in_a_process(folder, f"study={name}", timeout=300)
    assert ended.status == 0, ended.err
    [file] = folder.glob(f"outputs/studies/*/*-{name}/study.json")
    return dict(json.loads(file.read_text()))


def test_the_post_mortem_is_reproduced_over_eight_seeds(tmp_path: Path) -> None:
    found = study(tmp_path, "exp1_vs_exp2")
    means = {arm: sum(measured["accuracy"]) / 8 for arm, measured in found["measured"].items()}
    assert means["exp1"] >= 0.93
    assert means["exp2"] <= 0.30
    assert means["repaired"] >= 0.97
    assert found["seconds"] < 180
    assert {answer["verdict"] for answer in found["answers"].values()} == {"supported"}


def test_all_combinations_of_the_corrections_are_ranked(tmp_path: Path) -> None:
    found = study(tmp_path, "which_fix")
    assert found["runs"] == {"final": {"completed": 64}}
    on_accuracy = [row["factors"] for row in found["effects"]["accuracy"]]
    assert on_accuracy[:2] == [["lr"], ["dampening"]]
    assert len(on_accuracy) == 7
    decades = {tuple(row["factors"]): row["interval"]["estimate"] for row in found["effects"]["log10(rate)"]}
    assert decades["lr",] == pytest.approx(2)
    assert decades["dampening",] == pytest.approx(1)
    assert decades["decay",] == pytest.approx(0, abs=1e-9)
