"""The loop: when it measures, and every way a training can end."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import pytest
import torch
from trainings import assembled, member_of, trained

from optexp.datasets.batches import Batch, Clock
from optexp.engine.checkpoint import Checkpoints
from optexp.engine.loop import train
from optexp.engine.runtime import Interruption

MLP = ("model=mlp", "model.hidden=[16]")


def test_rows_are_logged_at_the_promised_steps() -> None:
    training = assembled(*MLP, "engine.max_steps=95", "engine.log_every=20", "engine.eval_every=1epoch")
    ending, member, rows = trained(training)
    assert ending.status == "completed"
    assert ending.steps == 95
    steps_per_epoch = training.plan.steps_per_epoch
    epochs = [math.ceil(k * steps_per_epoch) for k in (1, 2)]
    assert epochs == [40, 79]
    assert [row["step"] for row in rows.rows if "train/loss" in row] == [1, 20, 40, 60, 79, 95]
    assert [row["step"] for row in rows.rows if "val/loss" in row] == [*epochs, 95]
    assert len(member.history) == 3
    for row in rows.rows:
        assert row["epoch"] == pytest.approx(row["step"] / steps_per_epoch)
    assert rows.series("time") == sorted(rows.series("time"))
    assert member.best["val/loss"] == min(member.history)


def test_learning_rates_are_those_of_the_schedule() -> None:
    training = assembled(
        *MLP, "engine.max_steps=40", "engine.log_every=1", "schedule=cosine", "schedule.warmup_steps=5"
    )
    _, _, rows = trained(training)
    expected = [training.schedule.lr(step, 0.05) for step in range(40)]
    assert rows.series("optim/lr") == pytest.approx(expected)
    assert rows.series("optim/lr")[0] == pytest.approx(0.01)


def test_plateau_sees_the_validation_history() -> None:
    """With lr 0 nothing ever improves: patience 1 is exhausted at the second evaluation without improvement."""
    words = ("schedule=plateau", "schedule.patience=1", "schedule.factor=0.1", "optimizer.lr=0.0", "schedule.min_lr=0")
    training = assembled(*MLP, "engine.max_steps=50", "engine.eval_every=10", "engine.log_every=1", *words)
    training.base_lr = 1.0
    training.program.guard.allows = lambda loss, norm: True  # type: ignore[method-assign]
    training.program.apply_update = lambda: None
    _, member, rows = trained(training)
    assert len(set(member.history)) == 1
    rates = rows.series("optim/lr")
    assert rates[:30] == [1.0] * 30  # evaluations at 10 (first), 20 (bad 1), 30 (bad 2: lower from here)
    assert rates[30] == pytest.approx(0.1)
    assert rates[49] == pytest.approx(0.1)


def test_divergence_stops_before_the_update_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    training = assembled(*MLP, "engine.max_steps=50", "engine.checkpoint_every=10", "engine.log_every=7")
    batches, poisoned = training.program.batches, 25
    at = batches.at

    def poison(clock: Clock) -> Batch:
        batch = at(clock)
        if clock() == poisoned:
            batch.inputs[0, 0, 0, 0] = math.nan
        return batch

    batches.at = poison  # type: ignore[method-assign]
    checkpoints = Checkpoints(tmp_path)
    ending, _, rows = trained(training, checkpoints=checkpoints)
    assert ending.status == "diverged"
    assert ending.steps == 25
    assert ending.reason == "train/loss is nan at step 26; the update was not applied"
    assert training.program.divergences[0].step == 26
    assert all(torch.isfinite(parameter).all() for parameter in training.model.parameters())
    assert rows.rows[-1]["step"] == 25
    assert all(math.isfinite(value) for row in rows.rows for value in row.values())
    loaded = checkpoints.load("last")
    assert loaded is not None
    assert loaded[0] == 20
    # the state is that of a clean training of 25 steps
    clean = assembled(*MLP, "engine.max_steps=50")
    for step in range(25):
        clean.program.step(step, [training.schedule.lr(step, training.base_lr)])
    for one, other in zip(training.model.parameters(), clean.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_guard_on_the_device_ends_in_the_same_place() -> None:
    from optexp.engine.guard import Guard

    endings = []
    for on_device in (False, True):
        training = assembled(
            *MLP, "engine.max_steps=50", "engine.log_every=10", "optimizer.lr=1e15", "schedule=constant"
        )
        training.program.guard = Guard(training.optimizer, training.device, on_device=on_device)
        ending, _, rows = trained(training)
        weights = torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()])
        endings.append((ending, rows.rows[-1]["step"], weights))
    assert endings[0][0] == endings[1][0]
    assert endings[0][0].status == "diverged"
    assert endings[0][1] == endings[1][1]
    assert torch.equal(endings[0][2], endings[1][2])


def test_early_stopping_counts_evaluations_without_improvement() -> None:
    words = ("engine.early_stopping_patience=2", "optimizer.lr=0", "engine.eval_every=5", "engine.max_steps=100")
    ending, member, _ = trained(assembled(*MLP, *words))
    assert ending.status == "early_stopped"
    assert ending.steps == 15
    assert ending.reason == "no better val/loss in 2 evaluations since step 5"
    assert len(member.history) == 3


def test_interruption_saves_and_stops_at_the_next_step(tmp_path: Path) -> None:
    training = assembled(*MLP, "engine.max_steps=60", "engine.checkpoint_every=50")
    interruption = Interruption()
    step = training.program.step

    def interrupted(number: int, *arguments: object) -> bool:
        if number == 12:
            interruption.received = signal.SIGTERM
        return step(number, *arguments)  # type: ignore[arg-type]

    training.program.step = interrupted  # type: ignore[method-assign, assignment]
    ending, _, _ = trained(training, checkpoints=Checkpoints(tmp_path), interruption=interruption)
    assert (ending.status, ending.steps, ending.reason) == ("interrupted", 13, "received SIGTERM")
    loaded = Checkpoints(tmp_path).load("last")
    assert loaded is not None
    assert loaded[0] == 13


RESUMED = [
    ("model=mlp", "model.hidden=[16]", "optimizer=adam"),
    ("model=resnet", "optimizer=sgd", "engine.accumulate=2"),
    ("model=resnet", "dataset=shapes", "dataset.num_images=120", "dataset.batch_size=16", "optimizer=rmsprop"),
    ("model=transformer", "dataset=pydocs", "model.width=16", "model.dropout=0.3", "optimizer=adamw"),
    ("model=mlp", "model.hidden=[16]", "optimizer=adagrad", "schedule=plateau", "engine.eval_every=4"),
    ("model=mlp", "model.hidden=[16]", "engine.precision=fp16", "engine.clip_norm=1", "optimizer=adamw"),
]


@pytest.mark.parametrize("words", RESUMED, ids=lambda words: "-".join(word.partition("=")[2] for word in words[:3]))
@pytest.mark.parametrize("stop", [1, 7, 10, 13])
def test_a_resumed_training_is_bitwise_the_uninterrupted_one(tmp_path: Path, words: tuple[str, ...], stop: int) -> None:
    settings = ("engine.max_steps=16", "engine.log_every=5", "engine.checkpoint_every=100", *words)
    straight = assembled(*settings)
    _, member, rows = trained(straight)

    first = assembled(*settings)
    interruption = Interruption()
    step = first.program.step

    def interrupted(number: int, *arguments: object) -> bool:
        if number == stop - 1:
            interruption.received = signal.SIGINT
        return step(number, *arguments)  # type: ignore[arg-type]

    first.program.step = interrupted  # type: ignore[method-assign, assignment]
    ending, _, rows_before = trained(first, checkpoints=Checkpoints(tmp_path), interruption=interruption)
    assert ending.steps == stop

    torch.manual_seed(12345)  # the global generator must not matter
    second = assembled(*settings)
    loaded = Checkpoints(tmp_path).load("last")
    assert loaded is not None
    resumed, rows_after = member_of(second)
    second.program.load_state(0, loaded[1]["program"])
    resumed.load_state(loaded[1]["member"])
    train(second.program, [resumed], second.plan, second.validation, Interruption(), start=loaded[0])

    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    ours, theirs = straight.program.state(0)["optimizer"], second.program.state(0)["optimizer"]
    for name, values in ours["parameters"].items():
        for key, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs["parameters"][name][key])), (name, key)
    assert resumed.history == member.history
    assert rows_before.without_times() + rows_after.without_times() == rows.without_times()


def test_a_validation_loss_that_is_not_a_number_is_never_the_best() -> None:
    _, member, _ = trained(assembled(*MLP, "engine.max_steps=5"))
    member.best, member.history, member.evaluations_since_best = {}, [], 0
    improved = [
        member.take_evaluation(step, {"val/loss": loss}) for step, loss in enumerate([math.nan, 1.0, math.inf, 0.5])
    ]
    assert improved == [False, True, False, True]
    assert member.best == {"step": 3, "val/loss": 0.5}


def test_a_run_whose_last_validation_loss_is_not_finite_has_diverged() -> None:
    ending, member, _ = trained(assembled(*MLP, "engine.max_steps=1", "optimizer.lr=1e38", "schedule=constant"))
    assert ending.status == "diverged"
    assert ending.reason == "val/loss is nan after step 1"
    assert member.best == {}


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    training = assembled(*MLP, "engine.max_steps=20", "engine.checkpoint_every=5", "engine.eval_every=100")
    step = training.program.step

    def spoiled(number: int, *arguments: object) -> bool:
        if number == 7:
            training.program.parameters[0].data[0, 0] = math.inf
        return step(number, *arguments)  # type: ignore[arg-type]

    training.program.step = spoiled  # type: ignore[method-assign, assignment]
    training.program.guard.allows = lambda loss, norm: True  # type: ignore[method-assign]
    trained(training, checkpoints=Checkpoints(tmp_path))
    loaded = Checkpoints(tmp_path).load("last")
    assert loaded is not None
    assert loaded[0] == 5
