"""What happens to a member stays with it: the others are bitwise what they are without it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fusing import alone, assert_same_runs, assert_same_tree, together
from trainings import group

from optexp.datasets.batches import Batch, Clock, TrainBatches
from optexp.engine.fused import FusedRuns
from optexp.engine.program import Tree
from optexp.fuse import fuse
from optexp.instruments.look import Look

# Odd sizes: members begin at odd places in memory, and vectors of the processor end within members.
MODELS = {
    "linear": ("model=linear", "dataset=line", "dataset.batch_size=7"),
    "mlp": ("model=mlp", "model.hidden=[33,7]", "dataset.batch_size=5"),
    "resnet": ("model=resnet", "model.width=3", "dataset.batch_size=5"),
    "transformer": (
        *("model=transformer", "model.layers=1", "model.width=10", "model.heads=2", "model.dropout=0.2"),
        *("dataset=text", "dataset.path={book}", "dataset.context_length=7", "dataset.batch_size=3"),
    ),
    "foreign": ("trust=[foreign]", "model=foreign", "dataset=stripes", "dataset.batch_size=5"),
}
OPTIMIZERS = {
    "linear": ("sgd",),
    "mlp": ("sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"),
    "resnet": ("rmsprop", "sgd"),
    "transformer": ("lion", "adam"),
    "foreign": ("sgd",),
}

# Five members of three seeds, with and without clipping.
FIVE = [
    ("seed=1", "engine.clip_norm=0.5"),
    ("seed=2", "optimizer.lr=2e-3"),
    ("seed=1", "optimizer.lr=3e-3"),
    ("seed=3", "engine.clip_norm=2"),
    ("seed=2", "optimizer.lr=5e-4"),
]


def words_of(model: str, optimizer: str, book: Path) -> list[str]:
    return [*(word.format(book=book) for word in MODELS[model]), f"optimizer={optimizer}", "optimizer.lr=1e-3"]


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def steps(program: FusedRuns, first: int, last: int, rates: Sequence[float]) -> None:
    for step in range(first, last):
        look = Look(accuracy=True, sizes=True) if step % 2 == 0 else Look.NOTHING
        program.step(step, [rate * (1 + step % 3) for rate in rates], look)


def states(program: FusedRuns) -> list[Tree]:
    return [copy.deepcopy(program.state(member)) for member in range(program.members)]


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", MODELS)
def test_those_who_stay_do_not_notice_those_who_go(model: str, threads: int, book: Path) -> None:
    """Five members, then [0, 2, 3, 4] of them, [0, 3, 4], [3, 4], and in the end one; with each optimizer."""
    torch.set_num_threads(threads)
    for optimizer in OPTIMIZERS[model]:
        trainings = group(words_of(model, optimizer, book), FIVE)
        rates = [training.base_lr for training in trainings]
        undisturbed, left = fuse(trainings), fuse(trainings)
        numbers = list(range(5))
        for phase, leaving in enumerate([1, 2, 0, 3, None]):
            steps(undisturbed, 3 * phase, 3 * phase + 3, rates)
            steps(left, 3 * phase, 3 * phase + 3, [rates[number] for number in numbers])
            everyone, those_left = states(undisturbed), states(left)
            for place, number in enumerate(numbers):
                assert_same_tree(those_left[place], everyone[number], 0, f"{optimizer}, member {number}")
            rows = undisturbed.read(range(5)).rows()
            assert left.read(range(len(numbers))).rows() == [rows[number] for number in numbers]
            values = undisturbed.evaluate(trainings[0].validation)
            assert left.evaluate(trainings[0].validation) == [values[number] for number in numbers]
            if leaving is not None:
                left.keep([place for place, number in enumerate(numbers) if number != leaving])
                numbers.remove(leaving)
        assert numbers == [4]


@pytest.mark.parametrize("model", MODELS)
def test_a_member_is_the_same_among_any_others(model: str, book: Path) -> None:
    """Of groups of five, two and three, at different places, with other members in other numbers."""
    common = [*words_of(model, "adam", book), "engine.max_steps=6", "engine.log_every=2", "engine.eval_every=3"]
    five = together(common, FIVE)
    for part in ([2, 4], [3, 0, 2], [4, 3, 2, 1]):
        assert_same_runs(together(common, [FIVE[number] for number in part]), [five[number] for number in part], 0, 0)


TAKE = TrainBatches.stacked


def poisoned(member: int, step: int, value: float) -> Callable[[Sequence[TrainBatches], Clock], Batch]:
    """Return a `TrainBatches.stacked` that puts a value into one member's batch at one step, while all are there."""

    def stacked(members: Sequence[TrainBatches], clock: Clock) -> Batch:
        batch = TAKE(members, clock)
        if clock() == step and len(members) == 5:
            inputs = batch.inputs.clone()
            inputs[member].view(-1)[3] = value
            return Batch(inputs, batch.targets)
        return batch

    return stacked


RESNET = [*MODELS["resnet"], "engine.max_steps=20", "engine.eval_every=8"]
MLP = [*MODELS["mlp"], "engine.max_steps=20", "engine.log_every=4", "engine.eval_every=4"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("log_every", [1, 4])
def test_a_diverged_member_is_frozen_and_the_others_go_on(
    value: float, log_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poison is in the data of step 10. Its member ends there, with the rows that its single run would have."""
    common = [*RESNET, f"engine.log_every={log_every}"]
    clean = together(common, FIVE)
    monkeypatch.setattr(TrainBatches, "stacked", staticmethod(poisoned(2, 9, value)))
    found = together(common, FIVE)
    assert_same_runs(found[:2] + found[3:], clean[:2] + clean[3:], 0, 0)
    assert (found[2].ending.status, found[2].ending.steps) == ("diverged", 9)
    assert found[2].ending.reason == "train/loss is nan at step 10; the update was not applied"
    assert found[2].rows[-1]["step"] == 9
    assert all(math.isfinite(number) for row in found[2].rows for number in row.values())

    at = TrainBatches.at

    def poisoned_at(batches: TrainBatches, clock: Clock) -> Batch:
        batch = at(batches, clock)
        if clock() == 9:
            batch.inputs.view(-1)[3] = value
        return batch

    monkeypatch.setattr(TrainBatches, "at", poisoned_at)
    assert_same_runs([found[2]], alone(common, [FIVE[2]]), rows=1e-5, weights=None)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("optimizer.lr=1e25",), "diverged"),
        (("optimizer.lr=0",), "early_stopped"),
        (("optimizer.lr=1e25", "engine.clip_norm=1e-3"), "diverged"),
    ],
)
def test_one_that_ends_early_ends_as_alone_and_changes_no_other(words: tuple[str, ...], reason: str) -> None:
    common = [*MLP, "engine.early_stopping_patience=3", "engine.evaluate_test=true"]
    others = [FIVE[0], FIVE[1], FIVE[3], FIVE[4]]
    for place in (0, 2, 4):
        variants: list[Any] = [*others[:place], ("seed=2", *words), *others[place:]]
        found = together(common, variants)
        [early] = alone(common, [variants[place]])
        assert early.ending.status == reason
        assert early.ending.steps < 20
        assert_same_runs([found[place]], [early], rows=1e-5, weights=None)
        calm = together(common, [*others[:place], ("seed=2",), *others[place:]])
        assert {run.ending.status for run in calm} == {"completed"}
        for number in set(range(5)) - {place}:
            assert_same_runs([found[number]], [calm[number]], 0, 0)


def test_each_ends_at_its_own_time() -> None:
    """Four of five end at four different steps, for two reasons; each as it does alone, down to the last one left."""
    common = [*MLP, "engine.early_stopping_patience=2", "engine.eval_every=3", "optimizer.momentum=0"]
    variants = [
        ("optimizer.lr=1e30", "schedule=constant", "seed=1"),
        ("optimizer.lr=0", "seed=2"),
        ("optimizer.lr=0.02", "seed=3"),
        ("optimizer.lr=1e25", "schedule.warmup_steps=0", "seed=4", "schedule=step", "schedule.step_size=10"),
        ("optimizer.lr=3", "seed=5", "schedule=linear"),
    ]
    singles = alone(common, variants)
    assert_same_runs(together(common, variants), singles, rows=1e-4, weights=None)
    assert len({run.ending.steps for run in singles}) > 2, [run.ending for run in singles]
    assert {run.ending.status for run in singles} == {"completed", "diverged", "early_stopped"}
