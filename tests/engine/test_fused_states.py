"""The state of a member is that of a single run: what was begun in one way goes on in the other as if nothing were."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fusing import Run, alone, assert_same_rows, assert_same_runs, assert_same_tree, drive, interrupted_at, saved
from trainings import assembled, group

from optexp.errors import BadInput
from optexp.fuse import fuse

COMMON = ["engine.max_steps=14", "engine.log_every=4", "engine.eval_every=4", "engine.checkpoint_every=100"]
MLP = ("model=mlp", "model.hidden=[9]", "dataset.batch_size=7", "schedule=plateau", "schedule.patience=0")
RESNET = ("model=resnet", "model.width=2", "dataset.batch_size=8", "engine.accumulate=2")
TRANSFORMER = (
    *("model=transformer", "model.layers=1", "model.width=8", "model.heads=2", "model.dropout=0.2"),
    *("dataset=text", "dataset.path={book}", "dataset.context_length=7", "dataset.batch_size=4"),
)
FOREIGN = ("trust=[foreign]", "model=foreign", "dataset=stripes")
MEMBERS = (("seed=1",), ("seed=2", "optimizer.lr=2e-3", "engine.clip_norm=0.5"), ("seed=1", "optimizer.lr=3e-3"))

KINDS: dict[str, tuple[tuple[str, ...], Sequence[Sequence[str]]]] = {
    "sgd": (
        (*MLP, "optimizer.weight_decay=0.1"),
        (
            ("seed=1", "optimizer.momentum=0"),
            ("seed=2", "optimizer.nesterov=true"),
            ("optimizer.dampening=0.5", "schedule.factor=0.5"),
        ),
    ),
    "adam": ((*MLP, "optimizer=adam", "optimizer.amsgrad=true"), MEMBERS),
    "adamw": ((*TRANSFORMER, "optimizer=adamw"), MEMBERS),
    "rmsprop": (
        (*MLP, "optimizer=rmsprop"),
        (("optimizer.momentum=0.5",), ("seed=3",), ("optimizer.alpha=0.9", "optimizer.eps=1e-3")),
    ),
    "adagrad": ((*MLP, "optimizer=adagrad", "optimizer.initial_accumulator_value=0.1"), MEMBERS),
    "lion": ((*MLP, "optimizer=lion"), MEMBERS),
    "batch statistics": (RESNET, MEMBERS),
    "a model of one's own": ((*FOREIGN, "optimizer=adam"), MEMBERS),
}


def words_of(name: str, book: Path, *more: str) -> tuple[list[str], Sequence[Sequence[str]]]:
    words, variants = KINDS[name]
    return [*COMMON, *(word.format(book=book) for word in words), *more], variants


def assert_continued(before: Sequence[Run], after: Sequence[Run], straight: Sequence[Run], tolerance: float) -> None:
    """Two parts of runs together are the uninterrupted runs."""
    whole = [replace(end, rows=start.rows + end.rows) for start, end in zip(before, after, strict=True)]
    assert_same_runs(whole, straight, tolerance, tolerance)


STOPS = {"sgd": [1, 4, 7]}  # after the first step, with nothing unread, with something unread


@pytest.mark.parametrize("name", KINDS)
def test_members_go_on_alone(name: str, book: Path, tmp_path: Path) -> None:
    """Begun together, stopped, and continued each in a run of its own from its checkpoint."""
    common, variants = words_of(name, book, "engine.precision=fp64")
    straight = alone(common, variants)
    for stop in STOPS.get(name, [4, 7]):
        trainings = group(common, variants)
        program = fuse(trainings)
        folder = tmp_path / str(stop)
        before = drive(program, trainings, folder=folder, interruption=interrupted_at(stop, program))
        after = []
        for number, variant in enumerate(variants):
            training = assembled(*common, *variant)
            after += drive(training.program, [training], start=saved(folder, [number]))
        assert_continued(before, after, straight, 1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_single_runs_go_on_together(name: str, book: Path, tmp_path: Path) -> None:
    """Begun each alone, stopped at the same step, and continued in one program from their checkpoints."""
    common, variants = words_of(name, book, "engine.precision=fp64")
    straight = alone(common, variants)
    for stop in STOPS.get(name, [4, 7]):
        before = []
        for number, variant in enumerate(variants):
            training = assembled(*common, *variant)
            interruption = interrupted_at(stop, training.program)
            folder = tmp_path / f"{stop}-{number}"
            before += drive(training.program, [training], folder=folder, interruption=interruption)
        trainings = group(common, variants)
        start = saved(tmp_path, [f"{stop}-{number}/0" for number in range(3)])
        assert_continued(before, drive(fuse(trainings), trainings, start=start), straight, 1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_a_program_goes_on_bitwise(name: str, book: Path, tmp_path: Path) -> None:
    """In single precision, and with all members or some, down to one."""
    common, variants = words_of(name, book)
    trainings = group(common, variants)
    straight = drive(fuse(trainings), trainings)
    program = fuse(trainings)
    before = drive(program, trainings, folder=tmp_path, interruption=interrupted_at(7, program))
    for part in ([0, 1, 2], [2, 0], [1]):
        some = group(common, [variants[number] for number in part])
        after = drive(fuse(some), some, start=saved(tmp_path, part))
        assert_continued([before[n] for n in part], after, [straight[n] for n in part], 0)


@pytest.mark.parametrize("name", KINDS)
def test_the_states_are_of_one_form_at_every_step(name: str, book: Path) -> None:
    common, variants = words_of(name, book, "engine.precision=fp64")
    trainings = group(common, variants)
    program = fuse(trainings)
    singles = [assembled(*common, *variant) for variant in variants]
    numbers = [0, 1, 2]
    for step in range(6):
        for place, number in enumerate(numbers):
            where = f"step {step}, member {number}"
            assert_same_tree(program.state(place), singles[number].program.state(0), 1e-9, where)
        if step == 3:
            program.keep([2, 1])
            numbers = [2, 1]
        program.step(step, [trainings[number].base_lr for number in numbers])
        for number in numbers:
            singles[number].program.step(step, [trainings[number].base_lr])
        if step == 4:
            rows = program.read([0, 1]).rows()
            for row, number in zip(rows, numbers, strict=True):
                assert_same_rows([row], singles[number].program.read([0]).rows(), 1e-9, f"member {number}")


def test_a_divergence_after_going_on_is_at_its_true_step(book: Path, tmp_path: Path) -> None:
    """The interval that was logged last counts no more, although a single run's state still names its first step."""
    common, variants = words_of("sgd", book)
    training = assembled(*common, *variants[1])
    drive(training.program, [training], folder=tmp_path, interruption=interrupted_at(8, training.program))
    start = saved(tmp_path, [0])
    assert start.trees[0]["program"]["unread"]["losses"] == []
    trainings = group(common, [variants[1]] * 2)
    start.trees = [*start.trees, *start.trees]
    program = fuse(trainings)
    program.reads_freely = False  # as on a GPU: a divergence is found when the metrics are read
    weight = program.parameters["layers.1.weight"]
    step = program.step

    def poisoning(number: int, *arguments: Any) -> list[int]:
        if number == 9:
            weight.data[1] = torch.nan
        return step(number, *arguments)

    program.step = poisoning
    healthy, diverged = drive(program, trainings, start=start)
    assert healthy.ending.status == "completed"
    assert diverged.ending.reason == "train/loss is nan at step 10; the update was not applied"
    assert diverged.ending.steps == diverged.rows[-1]["step"] == 9
    assert all(math.isfinite(value) for row in diverged.rows for value in row.values())


def test_a_state_of_another_model_is_refused(book: Path) -> None:
    common, variants = words_of("sgd", book)
    program = fuse(group(common, variants))
    other = assembled(*common, "model.hidden=[8]").program.state(0)
    with pytest.raises(BadInput, match=re.escape("'layers.1.bias' is (8,), the model's is (9,)")):
        program.load_state(1, other)
    with pytest.raises(BadInput, match="is only in one of them"):
        program.load_state(1, assembled(*COMMON, "model=linear", "dataset.batch_size=7").program.state(0))
