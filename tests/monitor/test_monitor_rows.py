"""What a Monitor measures of a plain loop: the engine's rows, the loop's own numbers, and an untouched training."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loops import EXP2, batches, hooks, network, sgd, train, weights
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from optexp import Monitor
from optexp.config.compose import Composer
from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.history import History
from optexp.engine.loop import Member
from optexp.engine.loop import train as train_by_engine
from optexp.engine.runtime import Interruption
from optexp.records.reading import read_run
from optexp.tasks import check_composed
from optexp.tasks.train import Train

Rows = dict[int, dict[str, float]]


class Sink:
    def __init__(self) -> None:
        self.rows: Rows = {}

    def log(self, row: Any) -> None:
        self.rows[int(row["step"])] = dict(row)

    def flush(self) -> None:
        pass

    def close(self, summary: Any) -> None:
        pass


def of_engine(words: list[str]) -> tuple[Any, nn.Module, Rows]:
    """Train by the engine; return the training, a copy of its initial model, and the rows."""
    composed = Composer().compose([*words, "engine.checkpoint_every=null", "engine.eval_every=1000000"])
    training = Train(composed, check_composed(composed)).training
    model = copy.deepcopy(training.model)
    sink = Sink()
    member = Member(training.schedule, training.base_lr, [sink], None)
    train_by_engine(training.program, [member], training.plan, training.validation, Interruption())
    return training, model, sink.rows


@pytest.mark.parametrize("model", ["mlp", "resnet"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_rows_are_those_of_the_engine(model: str, clip: float | None) -> None:
    """The oracle: the same steps taken by the engine, from the same weights with the same batches."""
    words = [f"model={model}", "experiment=exp2_sgd_B32", "engine.max_steps=40", "optimizer.lr=1e-3"]
    words += [] if clip is None else [f"engine.clip_norm={clip}"]
    training, own, expected = of_engine(words)
    groups = [
        {"params": [p for p in own.parameters() if p.ndim > 1]},
        {"params": [p for p in own.parameters() if p.ndim <= 1]},
    ]
    groups = groups if len(training.optimizer.param_groups) == 2 else [{"params": list(own.parameters())}]
    optimizer = SGD(groups, **{**EXP2, "lr": 1e-3})
    own.train()
    with Monitor(own, optimizer, total_steps=40, batch_size=32) as monitor:
        data = [training.batches.take(step) for step in range(40)]
        pairs = [(batch.inputs, batch.targets) for batch in data]
        train(own, optimizer, pairs, monitor.step, clip, own.parameters())
    measured = {int(row["step"]): row for row in monitor.history().rows}
    assert measured.keys() == {1, 10, 20, 30, 40} == expected.keys()
    ours = ("train/loss", "optim/", "ledger/", "probe/", "layer/")
    for step, row in measured.items():
        # The engine counts clipped steps since the last row, a Monitor knows of those it looks at.
        wanted, found = (
            {tag: value for tag, value in of.items() if tag.startswith(ours) and tag != "optim/clipped"}
            for of in (expected[step], row)
        )
        assert found.keys() == wanted.keys()
        assert found == pytest.approx(wanted, rel=2e-3, abs=2e-4)


def test_the_training_is_the_same_bit_for_bit() -> None:
    ended = []
    for watched in (False, True):
        model = network()
        optimizer = sgd(model)
        monitor = Monitor(model, optimizer, every=1, probe_every=1) if watched else None
        train(model, optimizer, batches(20), monitor.step if monitor else lambda loss: None, 0.5, model.parameters())
        ended.append(weights(model))
    assert torch.equal(*ended)


def test_the_loss_is_the_mean_since_the_last_row() -> None:
    model, losses = network(), []
    optimizer = sgd(model, lr=0.1)
    monitor = Monitor(model, optimizer, every=4)

    def told(loss: Tensor) -> None:
        losses.append(loss.item())
        monitor.step(loss)

    train(model, optimizer, batches(10), told)
    rows = monitor.history().rows
    assert [row["step"] for row in rows] == [1, 4, 8, 10]  # the last one has the losses that no row had
    parts = [losses[:1], losses[1:4], losses[4:8], losses[8:]]
    assert [row["train/loss"] for row in rows] == pytest.approx([sum(part) / len(part) for part in parts], rel=1e-6)
    assert "optim/grad_norm" in rows[2]
    assert "optim/grad_norm" not in rows[3]


@pytest.mark.parametrize("limit", [0.05, 1e3])
def test_clipping_is_found_from_outside(limit: float) -> None:
    model, norms = network(), []
    optimizer = sgd(model)
    monitor = Monitor(model, optimizer, every=1)
    for inputs, targets in batches(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), limit).item())
        optimizer.step()
        monitor.step(loss)
    history = monitor.history()
    expected = [min(1.0, limit / (norm + 1e-6)) for norm in norms]
    assert [row["optim/clip_coefficient"] for row in history.rows] == pytest.approx(expected, rel=1e-5)
    assert [row["optim/grad_norm"] for row in history.rows] == pytest.approx(norms, rel=1e-5)
    assert [row["optim/clipped"] for row in history.rows] == [float(norm > limit) for norm in norms]
    assert history.clip_norm == (pytest.approx(limit, rel=1e-3) if limit < 1 else None)


def test_clipping_that_begins_later_is_found_one_look_later() -> None:
    model = network()
    optimizer = sgd(model)
    monitor = Monitor(model, optimizer, every=1)
    train(model, optimizer, batches(4), monitor.step)
    train(model, optimizer, batches(4), monitor.step, 0.05, model.parameters())
    rows = monitor.history().rows
    assert ["optim/clip_coefficient" in row for row in rows] == 5 * [False] + 3 * [True]


def test_hooks_are_there_for_the_steps_that_are_looked_at_only() -> None:
    model = network()
    optimizer = sgd(model)
    monitor = Monitor(model, optimizer, every=5, probe_every=None)
    found = []
    for batch in batches(10):
        found.append(hooks(model, optimizer))
        train(model, optimizer, [batch], monitor.step)
    assert [count > 0 for count in found] == [step in (1, 5, 10) for step in range(1, 11)]
    monitor.close()
    assert hooks(model, optimizer) == 0


def test_facts_that_a_diagnosis_needs_are_found() -> None:
    model = network()
    model[0].bias.requires_grad_(False)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    data = [(50 + 3 * inputs, targets) for inputs, targets in batches(3)]
    monitor = Monitor(model, optimizer, batch_size=16, baseline=math.log(3))
    train(model, optimizer, data, monitor.step)
    history = monitor.history()
    first = data[0][0]
    expected = {"mean": first.mean().item(), "std": first.std().item(), "largest": first.abs().max().item()}
    assert history.inputs == pytest.approx(expected, rel=1e-6)
    assert (history.trainable, history.parameters) == (75, 83)
    assert (history.optimizer, history.batch_size, history.baseline) == ("SGD", 16, math.log(3))
    assert (history.settings["lr"], history.settings["momentum"]) == (0.1, 0)


def test_parameter_groups_that_are_added_are_measured() -> None:
    model = network()
    optimizer = SGD(model[0].parameters(), lr=0.1)
    monitor = Monitor(model, optimizer, every=1)
    train(model, optimizer, batches(3), monitor.step)
    optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.01})
    train(model, optimizer, batches(3), monitor.step)
    rows = monitor.history().rows
    assert ["ledger/group1/update" in row for row in rows] == 3 * [False] + 3 * [True]


def test_low_precision_weights_are_measured_in_single_precision() -> None:
    model = network(dtype=torch.bfloat16)
    optimizer: Optimizer = SGD(model.parameters(), lr=0.5)
    before = weights(model).float()
    monitor = Monitor(model, optimizer, every=1)
    train(model, optimizer, batches(1, torch.bfloat16), monitor.step)
    row = monitor.history().rows[0]
    assert row["optim/weight_norm"] == pytest.approx(before.norm().item(), rel=1e-6)
    ratio = (weights(model).float() - before).norm() / before.norm()
    assert row["optim/update_ratio"] == pytest.approx(ratio.item(), rel=1e-6)


def test_a_directory_holds_what_the_monitor_has(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model, lr=1e-4)
    with Monitor(model, optimizer, batch_size=16, baseline=math.log(3), log_dir=tmp_path / "run") as monitor:
        for _ in range(5):
            train(model, optimizer, batches(40), monitor.step, 0.01, model.parameters())
            monitor.validation(1.2, accuracy=0.3)
    run = read_run(tmp_path / "run")
    assert (run.status, run.last_step) == ("completed", 200)
    # The losses since the last look come behind the validation of the same step.
    assert sorted(run.rows, key=lambda row: (row["step"], "val/loss" in row)) == monitor.history().rows
    assert diagnose(History.of_run(run)) == monitor.diagnose()
