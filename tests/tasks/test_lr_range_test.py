"""`optexp task=lr_range_test` from the command line: what it says, what it leaves, and what it refuses."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from statistics import stdev

import pytest
from command_line import everything_in, here, only_run, runs_in

WORDS = ("task=lr_range_test", "model=mlp", "model.hidden=[16]", "dataset.batch_size=16")
FEW = (*WORDS, "task.num_iter=120", "task.seeds=3")
SHORT = (*FEW, "task.start_lr=1e-5")


def result(folder: Path) -> dict:
    return json.loads((only_run(folder).path / "result.json").read_text())


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_range_test_end_to_end(tmp_path: Path) -> None:
    ended = here(tmp_path, *SHORT, "optimizer.dampening=0.5", "task.confirm=true", "task.confirm_steps=20")
    assert ended.status == 0, ended.err
    run, found = only_run(tmp_path), result(tmp_path)
    assert run.status == "completed"
    low, high = found["window"]
    steepest = found["means"]["steepest"]
    assert (low, high) == pytest.approx((0.1 * steepest, 0.5 * steepest))
    assert found["window_effective"] == pytest.approx([5 * low, 5 * high])  # (1 − 0.5) / (1 − 0.9)
    per_seed = [math.log10(seed["rates"]["steepest"]) for seed in found["per_seed"]]
    assert found["spreads_in_decades"]["steepest"] == pytest.approx(stdev(per_seed))
    assert run.info["metrics"]["lr/steepest"] == pytest.approx(steepest)
    assert ("use a learning rate from" in ended.out) == found["trusted"] == ("DO NOT TRUST" not in ended.out)
    assert "effective, lr·(1 − dampening)/(1 − momentum)" in ended.out
    assert "spread in decades" in ended.out
    assert found["confirmation"]["lr"] == pytest.approx(steepest * math.sqrt(0.05))
    assert f"The suggestion {'held' if found['confirmation']['held'] else 'did NOT hold'}" in ended.out
    curves, suggestions = (table(run.path / name) for name in ("curves.csv", "suggestions.csv"))
    assert [len([row for row in curves if row["seed"] == str(seed)]) for seed in range(3)] == [
        seed["steps"] for seed in found["per_seed"]
    ]
    assert float(curves[0]["lr"]) == 1e-5
    assert float(curves[0]["effective_lr"]) == pytest.approx(5e-5)
    assert len(suggestions) == 15
    assert (run.path / "figures" / "lr_range_test.png").read_bytes()[:4] == b"\x89PNG"


def test_the_same_command_gives_the_same_answer_and_another_seed_another(tmp_path: Path) -> None:
    for words in ((), (), ("seed=1",)):
        assert here(tmp_path, *SHORT, *words).status == 0
    first, again, other = ((run.path / "curves.csv").read_text() for run in runs_in(tmp_path))
    assert first == again
    assert first != other


def test_a_curve_that_never_falls_is_a_result(tmp_path: Path) -> None:
    ended = here(tmp_path, *FEW, "task.start_lr=1e-9", "task.end_lr=1e-7", "task.confirm=true")
    assert ended.status == 0
    assert "no learning rate can be suggested" in ended.out
    assert "never falls on 3 of 3 seeds" in ended.out
    assert result(tmp_path)["window"] is None


def test_what_is_not_to_be_trusted_is_said_in_plain_words(tmp_path: Path) -> None:
    """A tenth of the range, where the loss only begins to fall, without smoothing: no two seeds agree."""
    ended = here(tmp_path, *SHORT, "task.end_lr=3e-3", "task.smoothing=0")
    assert "DO NOT TRUST THIS SUGGESTION" in ended.out
    assert not result(tmp_path)["trusted"]


def test_what_is_known_of_the_optimizer_is_said(tmp_path: Path) -> None:
    ended = here(tmp_path, *WORDS, "task.num_iter=60", "task.seeds=1", "optimizer=asgd", "optimizer.weight_decay=0.5")
    assert ended.status == 0, ended.err
    assert "note: weight decay 0.5 on 2 tensors" in ended.out
    assert "note: ASGD of torch" in ended.out
    assert "the schedule acts one step late" in ended.out
    assert len(result(tmp_path)["notes"]) == 2


EXTREME = (
    ("task.num_iter=20", "task.smoothing=8"),
    ("task.num_iter=20", "task.smoothing=5e-324", "task.start_lr=1e-30", "task.end_lr=1e30"),
    ("task.stop_factor=1e300", "task.end_lr=1e30", "engine.precision=fp64"),
    ("task.stop_factor=1.0000001", "task.smoothing=0"),
    ("task.start_lr=0.1", "task.end_lr=0.11", "task.smoothing=0", "task.num_iter=1000"),
)


@pytest.mark.parametrize("words", EXTREME)
def test_extreme_settings_give_a_result(tmp_path: Path, words: tuple[str, ...]) -> None:
    given = {word.partition("=")[0]: word for word in (*WORDS, "task.num_iter=60", "task.seeds=2", *words)}
    ended = here(tmp_path, *given.values())
    assert (ended.status, ended.err) == (0, "")
    assert 0 <= result(tmp_path)["sweep"]["beta"] < 1
    assert len(result(tmp_path)["per_seed"]) == 2


BAD = {
    "task.end_lr=1e-8": "task.end_lr=1e-08: allowed is a number > task.start_lr=1e-07, by a factor of 1.1 at least",
    "task.start_lr=10": "task.end_lr=10: allowed is a number > task.start_lr=10, by a factor of 1.1 at least",
    "task.start_lr=1.9999999999999998 task.end_lr=2": "task.end_lr=2: allowed is a number > task.start_lr=2, by a",
    "task.smoothing=1e20": "task.smoothing=1e+20: allowed is a number from 0 to 8, the decades from task.start_lr to",
    "task.end_lr=1e300": "task.end_lr=1e+300: allowed is a finite number in [1e-30, 1e+30]",
    "optimizer=rprop": "optimizer=rprop: a range test of it would mean nothing: Rprop of torch ",
    "optimizer=pytorch_optimizer optimizer.name=adafactor": "lr and the schedule have no effect: relative_step is true",
    "optimizer=pytorch_optimizer optimizer.name=apollodqn": "the schedule has no effect in its own warmup",
    "task.num_iter=5": "task.num_iter=5: allowed is an integer ≥ 20",
    "task.seeds=0": "task.seeds=0: allowed is an integer ≥ 1",
    "task.start_lr=0": "task.start_lr=0: allowed is a finite number in [1e-30, 1e+30]",
    "task.stop_factor=1": "task.stop_factor=1: allowed is a finite number > 1",
    "task.confirm=true task.seeds=2": "task.seeds=2: task.confirm=true needs an interval; allowed is an integer ≥ 3",
    "task.iterations=5": "task.iterations",
    "engine.max_steps=5": "engine.max_steps=5: task=lr_range_test does not use it; its length is task.num_iter",
    "schedule=cosine": "task=lr_range_test does not use the group 'schedule'",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, words: str) -> None:
    ended = here(tmp_path, *WORDS, *words.split())
    assert ended.status == 2
    assert BAD[words] in ended.err
    assert ended.err.count("\n") == 1
    assert everything_in(tmp_path) == []
