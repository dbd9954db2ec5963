"""Runs trained together are what they are alone, whatever else is set: data, parts of a batch, precision, length."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fusing import alone, assert_same_runs, drive, together
from trainings import assembled, group

from optexp.fuse import fuse
from optexp.nn.vectorized import Vectorized

MLP = ("model=mlp", "model.hidden=[9,7]", "dataset.batch_size=7")
RESNET = ("model=resnet", "model.width=2", "dataset.batch_size=8")
TRANSFORMER = (
    *("model=transformer", "model.layers=1", "model.width=16", "model.heads=2", "model.dropout=0.2"),
    *("dataset=text", "dataset.path={book}", "dataset.context_length=8", "dataset.batch_size=8"),
)
FOREIGN = ("trust=[foreign]", "model=foreign", "dataset=stripes")
SEEDS = (("seed=1",), ("seed=2", "optimizer.lr=0.02"), ("seed=1", "optimizer.lr=0.03"))
RATES = (("optimizer.lr=1e-3",), ("optimizer.lr=2e-3", "seed=2"), ("optimizer.lr=3e-3",))

SETTINGS = {
    "parts of a batch": (
        (*TRANSFORMER, "engine.accumulate=3"),
        (("engine.label_smoothing=0.1",), ("seed=2", "model.dropout=0.3"), ("optimizer.lr=0.02",)),
    ),
    "parts of normalized batches": ((*RESNET, "engine.accumulate=2", "engine.clip_norm=1"), SEEDS),
    "test split": ((*MLP, "engine.evaluate_test=true"), SEEDS),
    "regression": (("model=linear", "dataset=line", "dataset.batch_size=9", "engine.clip_norm=0.5"), SEEDS),
    "regression with all points": (("model=linear", "dataset=line", "engine.evaluate_test=true"), SEEDS),
    "colours": ((*RESNET, "dataset=shapes", "dataset.num_images=60", "engine.max_steps=6"), SEEDS),
    "augmented images": ((*RESNET, "dataset=stripes", "trust=[foreign]"), SEEDS),
    "images in rows": ((*RESNET, "engine.channels_last=false"), SEEDS),
    "deep": ((*RESNET, "model.depth=14", "engine.max_steps=8"), SEEDS),
    "untied": ((*TRANSFORMER, "model.tied=false", "model.layers=2"), SEEDS),
    "a model of one's own": (FOREIGN, SEEDS),
    "a model of one's own in parts": ((*FOREIGN, "engine.accumulate=2", "optimizer=adam"), RATES),
    "several schedules": (
        (*MLP, "engine.eval_every=3"),
        (
            ("schedule=cosine", "schedule.warmup_steps=4"),
            ("schedule=plateau", "schedule.patience=0", "schedule.threshold=0.5"),
            ("schedule=constant", "seed=5"),
        ),
    ),
    "decay on everything": ((*RESNET, "engine.decay_norm_and_bias=true", "optimizer.weight_decay=0.1"), SEEDS),
    "climbing": ((*MLP, "optimizer.lr=1e-3"), ((), ("optimizer.maximize=true",), ("seed=1",))),
    "amsgrad": ((*MLP, "optimizer=adam", "optimizer.amsgrad=true"), RATES),
    "centered": ((*MLP, "optimizer=rmsprop", "optimizer.centered=true", "optimizer.momentum=0.5"), RATES),
    "decoupled in some": (
        (*MLP, "optimizer=adam", "optimizer.weight_decay=0.1"),
        (("optimizer.decoupled_weight_decay=true",), (), ("seed=3",)),
    ),
    "not fused": ((*MLP, "optimizer=adamw", "optimizer.fused=false"), RATES),
    "for each": ((*MLP, "optimizer.foreach=true"), SEEDS),
    "one run": ((*RESNET, "engine.label_smoothing=0.1", "engine.clip_norm=0.5"), (("seed=4",),)),
    "two runs": (RESNET, SEEDS[:2]),
    "seven runs of one seed": (MLP, [(f"optimizer.lr={0.01 * number}",) for number in range(1, 8)]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_together_as_alone(name: str, book: Path) -> None:
    words, variants = SETTINGS[name]
    common = ["engine.max_steps=15", "engine.log_every=4", "engine.precision=fp64", "engine.eval_every=6"]
    common += [word.format(book=book) for word in words]
    assert_same_runs(together(common, variants), alone(common, variants), rows=1e-9, weights=1e-9)


def test_a_model_of_ones_own_is_vectorized_and_a_shipped_one_stacked() -> None:
    assert isinstance(fuse(group(FOREIGN, SEEDS)).model, Vectorized)
    assert not isinstance(fuse(group(RESNET, SEEDS)).model, Vectorized)


@pytest.mark.parametrize("words", [MLP, RESNET, TRANSFORMER, FOREIGN], ids=["mlp", "resnet", "transformer", "foreign"])
def test_half_precision_agrees_as_far_as_it_goes(words: tuple[str, ...], book: Path) -> None:
    """bfloat16 has 8 bits, so that products summed in another order differ by up to 2^-8 of their size, and losses by
    some of that; the weights are in single precision, so that nothing is lost between the steps.
    """
    common = ["engine.max_steps=10", "engine.log_every=1", "engine.precision=bf16", "engine.eval_every=5"]
    common += [*(word.format(book=book) for word in words), "engine.label_smoothing=0.3", "optimizer.lr=0.01"]
    variants = (("seed=1",), ("seed=2", "engine.label_smoothing=0.1"))
    for fused, single in zip(together(common, variants), alone(common, variants), strict=True):
        for row, wanted in zip(fused.rows, single.rows, strict=True):
            assert row["train/loss"] == pytest.approx(wanted["train/loss"], rel=0.02), row["step"]
        assert fused.rows[0]["optim/grad_norm"] == pytest.approx(single.rows[0]["optim/grad_norm"], rel=0.05)
        assert {value.dtype for value in fused.state["model"].values()} <= {torch.float32, torch.int64}


def test_the_runs_are_not_touched_by_being_fused() -> None:
    """A program works on copies: the objects of the single runs stay as they were assembled."""
    trainings = group(("engine.max_steps=3", *RESNET), SEEDS)
    drive(fuse(trainings), trainings)
    for training, words in zip(trainings, SEEDS, strict=True):
        fresh = assembled(*RESNET, *words)
        assert not training.optimizer.state
        for name, value in fresh.model.state_dict().items():
            assert value.equal(training.model.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_a_compiled_program_computes_the_same_and_is_compiled_once(book: Path) -> None:
    """The key of a dropout mask changes with the step; it must not be compiled in."""
    from torch._dynamo.utils import counters

    common = [*(word.format(book=book) for word in TRANSFORMER), "engine.max_steps=10", "engine.log_every=3"]
    single = alone(common, SEEDS)
    trainings = group([*common, "engine.compile=true"], SEEDS)
    program = fuse(trainings)
    step, graphs = program.step, []

    def counted(*arguments: Any) -> list[int]:
        found = step(*arguments)
        graphs.append(counters["stats"]["unique_graphs"])
        return found

    program.step = counted
    assert_same_runs(drive(program, trainings), single, rows=1e-5, weights=None)
    assert graphs[0] > 0
    assert graphs[1:] == graphs[1:2] * 9
