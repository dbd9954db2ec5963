"""`task=show_schedule`: its numbers are those a training would use, and nothing is trained or read."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import Ended, here, runs_in
from PIL import Image

from optexp import schedules
from optexp.config.compose import Composer
from optexp.datasets import digits
from optexp.errors import BadInput
from optexp.tasks import prepare, show_schedule


def shown(folder: Path, *words: str) -> Ended:
    return here(folder, "task=show_schedule", "hydra.run.dir=run", *words)


def table(folder: Path) -> list[tuple[int, float, float]]:
    with (folder / "run" / "schedule.csv").open() as file:
        return [(int(row["step"]), float(row["lr"]), float(row["effective_lr"])) for row in csv.DictReader(file)]


def found(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return result


def test_every_step_is_written_with_its_effective_learning_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "digits", lambda *_: pytest.fail("data were loaded"))
    words = ["optimizer=sgd", "optimizer.lr=0.2", "optimizer.momentum=0.9", "optimizer.dampening=0.5"]
    ended = shown(tmp_path, "schedule=cosine", "schedule.warmup_steps=10", "engine.max_steps=100", *words)
    assert (ended.status, ended.err) == (0, "")
    bound = schedules.Cosine(warmup_steps=10).bind(100, 100)
    rates = [bound.lr(step, 0.2) for step in range(100)]
    assert [row[:2] for row in table(tmp_path)] == list(enumerate(rates))
    assert [row[2] for row in table(tmp_path)] == pytest.approx([5 * rate for rate in rates])  # (1 - 0.5) / (1 - 0.9)
    with Image.open(tmp_path / "run" / "figures" / "schedule.png") as picture:
        assert picture.format == "PNG"
    points = {row["at"]: (row["step"], row["lr"]) for row in found(tmp_path)["points"]}
    assert points["start"] == (0, pytest.approx(0.02))
    assert points["peak"] == (9, pytest.approx(0.2))
    assert points["end"] == (99, rates[-1])
    assert "100 steps, 1 epochs of 100 steps (task.steps_per_epoch), warm-up 10 steps" in ended.out
    assert "effective lr" in ended.out
    assert "█" in ended.out


@pytest.mark.parametrize(
    ("words", "total"),
    [
        (["engine.max_steps=7"], 7),
        (["task.total_steps=11"], 11),
        (["engine.epochs=2", "task.steps_per_epoch=39.3"], 79),
        ([], 500),
    ],
)
def test_the_length_of_the_run(composer: Composer, words: list[str], total: int) -> None:
    task = prepare(composer.compose(["task=show_schedule", "schedule=linear", "optimizer=adam", *words]))
    assert isinstance(task, show_schedule.ShowSchedule)
    assert task.bound.total_steps == total
    assert task.factor == 1  # Adam's averages are normalized


def test_epochs_are_those_of_steps_per_epoch(tmp_path: Path) -> None:
    words = ["schedule=step", "schedule.step_size=1", "schedule.gamma=0.5", "task.steps_per_epoch=7.5"]
    assert shown(tmp_path, *words, "engine.max_steps=30", "optimizer.lr=1").status == 0
    assert [lr for _, lr, _ in table(tmp_path)] == [0.5 ** math.floor(step / 7.5) for step in range(30)]


def test_a_long_run_is_shown_at_every_so_many_steps_and_at_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show_schedule, "MOST_ROWS", 100)
    assert shown(tmp_path, "schedule=linear", "task.total_steps=251").status == 0
    assert [step for step, _, _ in table(tmp_path)] == [*range(0, 251, 3), 250]


def test_plateau_is_drawn_for_a_given_history(tmp_path: Path) -> None:
    words = [
        "schedule=plateau",
        "schedule.patience=1",
        "optimizer.lr=1",
        "engine.max_steps=100",
        "engine.eval_every=20",
    ]
    assert shown(tmp_path, *words, "task.history=[1.0,0.5,0.5,0.5]").status == 0
    # The third value in a row that is no better comes after 80 steps: two are one more than patience.
    assert [lr for _, lr, _ in table(tmp_path)] == pytest.approx([1.0] * 80 + [0.1] * 20)


def test_several_schedules_make_one_picture_each(tmp_path: Path) -> None:
    ended = here(tmp_path, "-m", "task=show_schedule", "schedule=wsd,one_cycle", "engine.max_steps=20")
    assert ended.status == 0
    runs = runs_in(tmp_path)
    assert {run.choice("schedule") for run in runs} == {"wsd", "one_cycle"}
    assert all((run.path / "figures" / "schedule.png").is_file() for run in runs)


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (
            ["schedule=one_cycle", "schedule.warmup_steps=5"],
            "after warm-up to 0.05 the schedule starts at 0.002: a jump",
        ),
        (["schedule=multi_step", "schedule.milestones=[900]"], "in 500 steps the learning rate never changes"),
        (["schedule=exponential", "schedule.gamma=1e9", "schedule.unit=step"], "grows beyond all numbers"),
    ],
)
def test_what_is_easily_overlooked_is_said(tmp_path: Path, words: list[str], note: str) -> None:
    ended = shown(tmp_path, *words)
    assert (ended.status, ended.err) == (0, "")
    assert note in ended.out
    assert note in found(tmp_path)["notes"][0]


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["optimizer=rprop"], "lr is the size of the first step only: the schedule has no effect"),
        (["optimizer=asgd"], "the schedule acts one step late"),
        (["optimizer=pytorch_optimizer", "optimizer.name=adafactor"], "lr and the schedule have no effect"),
    ],
)
def test_what_is_known_of_the_optimizer_is_said(tmp_path: Path, words: list[str], note: str) -> None:
    ended = shown(tmp_path, "schedule=cosine", *words)
    assert (ended.status, ended.err) == (0, "")
    assert note in " ".join(ended.out.split())
    (told,) = found(tmp_path)["notes"]
    assert note in told


def test_nothing_is_said_of_an_optimizer_without_faults(tmp_path: Path) -> None:
    for name in ("adopt", "adafactor"):
        words = ["optimizer=pytorch_optimizer", f"optimizer.name={name}", "schedule=cosine"]
        words += ["+optimizer.relative_step=false"] * (name == "adafactor")
        assert shown(tmp_path, *words, f"hydra.run.dir={name}").status == 0
        assert json.loads((tmp_path / name / "result.json").read_text())["notes"] == []


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["schedule=plateau"], "schedule=plateau depends on the validation loss, which only training knows; give"),
        (["schedule=plateau", "task.history=[1,2,3,4,5,6]"], "has 6 values, but this run is evaluated 5 times"),
        (["schedule=cosine", "task.history=[1]"], "task.history=[1]: schedule=cosine does not look at the validation"),
        (["task.history=[a]"], "task.history=['a']: allowed is a list, each a finite number or null"),
        (["task.total_steps=5", "engine.max_steps=6"], "task.total_steps=5: engine.max_steps=6 is set, too"),
        (["task.total_steps=0"], "task.total_steps=0: allowed is an integer ≥ 1 or null"),
        (["task.steps_per_epoch=0"], "task.steps_per_epoch=0: allowed is a finite number > 0"),
        (["task.steps=5"], "task.steps=5: "),
        (["schedule=wsd", "schedule.decay_steps=501"], "schedule.decay_steps=501: must fit into the 500 steps"),
        (["optimizer.lr=null"], "optimizer.lr="),
        (["optimizer.beta=1"], "optimizer.beta=1: "),
        (["dataset=line"], "dataset: task=show_schedule does not use the group 'dataset'"),
    ],
)
def test_mistakes_are_refused_in_one_line(composer: Composer, words: list[str], error: str) -> None:
    with pytest.raises(BadInput, match=re.escape(error)) as caught:
        prepare(composer.compose(["task=show_schedule", *words]))
    assert "\n" not in str(caught.value)
