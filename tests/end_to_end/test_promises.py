"""The numbers the project promises, with whole runs: slow, so only with -m slow."""

from __future__ import annotations

import math
import time
from pathlib import Path

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
