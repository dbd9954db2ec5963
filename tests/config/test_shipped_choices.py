"""Every choice of every shipped group composes, passes the checks, and trains."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from command_line import TINY, Ended, here, only_run

from optexp.config.check import check
from optexp.config.compose import Composer
from optexp.help import groups, shipped_folder

# Studies are no config groups: see tests/studies.
CHOICES = [
    (group, choice) for group, choices in groups([shipped_folder()]).items() for choice in choices if group != "study"
]
DOWNLOADED = ("cifar10", "cifar100", "mnist", "fashion_mnist")  # read from real archives in tests/datasets
NEEDED = {
    ("dataset", "imagefolder"): ["dataset.root=somewhere"],
    ("dataset", "text"): ["dataset.path=somewhere"],
    ("experiment", "finetune_adamw"): ["engine.init_from=somewhere"],
    ("experiment", "finetune_rmsprop"): ["engine.init_from=somewhere"],
}


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_passes_the_checks(composer: Composer, group: str, choice: str) -> None:
    words = [f"{group}={choice}", *NEEDED.get((group, choice), [])]
    composed = composer.compose(words)
    check(composed.config, composed.choices, [word.partition("=")[0] for word in words])
    assert composed.choices[group] == choice


SHORT = ["engine.max_steps=2", "dataset.batch_size=4"]
LANGUAGE = ["dataset=pydocs", "dataset.context_length=8", "engine.eval_every=2"]
TRAININGS = {
    ("model", "resnet"): ["model.width=4"],
    ("model", "mlp"): ["model.hidden=[4]"],
    ("model", "linear"): [],
    ("model", "transformer"): [*LANGUAGE, "model.layers=1", "model.width=8", "model.heads=2"],
    ("model", "gpt2_small"): [*LANGUAGE, "model.layers=1", "model.width=8", "model.heads=2"],
    ("model", "torchvision"): ["model.name=mobilenet_v3_small"],
    ("dataset", "line"): ["model=linear"],
    ("dataset", "shapes"): ["model=linear", "dataset.num_images=50"],
    ("dataset", "text"): ["dataset.path=book.txt", "dataset.context_length=8", "model=transformer", "model.width=8"],
}


def trained(folder: Path, *words: str) -> Ended:
    """Train two steps; the run must have ended well and learned something from finite numbers."""
    ended = here(folder, *SHORT, *words)
    assert ended.status == 0, ended.err or ended.out
    run = only_run(folder)
    assert (run.status, run.last_step) == ("completed", 2)
    assert math.isfinite(run.metrics["train/loss"] or math.nan)
    assert math.isfinite(run.metrics["val/loss"] or math.nan)
    assert (run.metrics["optim/update_ratio"] or 0) > 0
    return ended


@pytest.mark.parametrize(("group", "choice"), TRAININGS)
def test_models_and_data_sets_train(tmp_path: Path, group: str, choice: str) -> None:
    (tmp_path / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 200)
    trained(tmp_path, f"{group}={choice}", *TRAININGS[group, choice])
    assert only_run(tmp_path).choice(group) == choice


OTHERS = [pair for pair in CHOICES if pair[0] in ("optimizer", "schedule", "engine", "task", "experiment")]
ELSEWHERE = [
    *(pair for pair in OTHERS if pair in NEEDED),  # tests/end_to_end/test_experiments.py, from a run
    *(pair for pair in OTHERS if pair[0] == "task" and pair[1] != "train"),  # tests/tasks
    *(("optimizer", name) for name in ("adamw8bit", "paged_adamw8bit")),  # tests/optimizers: need another package
]


@pytest.mark.parametrize(("group", "choice"), [pair for pair in OTHERS if pair not in ELSEWHERE])
def test_optimizers_schedules_and_experiments_train(tmp_path: Path, group: str, choice: str) -> None:
    trained(tmp_path, "dataset=digits", *TINY[:2], f"{group}={choice}")


def test_every_task_has_tests_of_its_own() -> None:
    tests = Path(__file__).parents[1] / "tasks"
    assert [name for group, name in CHOICES if group == "task" and not (tests / f"test_{name}.py").exists()] == [
        "train"
    ]


def test_nothing_is_left_untested() -> None:
    tested = {*TRAININGS, *OTHERS, ("dataset", "digits"), ("dataset", "pydocs"), ("dataset", "imagefolder")}
    assert {(group, choice) for group, choice in CHOICES if choice not in DOWNLOADED} == tested
