"""Which members may be trained in one program."""

from __future__ import annotations

from typing import Any

import pytest

from optexp.config.compose import Composer
from optexp.sweeps.plan import Entry, alike, structure
from optexp.sweeps.record import MemberRecord

COMPOSER = Composer()


def config(*words: str) -> dict[str, Any]:
    return COMPOSER.compose(words).config


@pytest.mark.parametrize(
    "words",
    [
        ["seed=3"],
        ["optimizer.lr=0.5"],
        ["optimizer.momentum=0", "optimizer.dampening=0.5", "optimizer.weight_decay=0"],
        ["optimizer.nesterov=true", "optimizer.maximize=true"],
        ["engine.clip_norm=1.0", "engine.label_smoothing=0.1"],
        ["schedule.warmup_steps=5"],
        ["schedule=step", "schedule.step_size=3"],
        ["name=mine", "output_dir=elsewhere"],
    ],
)
def test_numbers_seeds_and_schedules_may_differ(words: list[str]) -> None:
    assert structure(config(*words)) == structure(config())


@pytest.mark.parametrize(
    "words",
    [
        ["model.width=8"],
        ["model=mlp"],
        ["optimizer=adam"],
        ["dataset.batch_size=16"],
        ["dataset.split_seed=1"],
        ["engine.max_steps=7"],
        ["engine.epochs=7"],
        ["engine.decay_norm_and_bias=true"],
        ["engine.precision=bf16"],
        ["engine.eval_every=3"],
        ["engine.early_stopping_patience=3"],
        ["optimizer.foreach=true"],
    ],
)
def test_shapes_kinds_sizes_and_lengths_may_not(words: list[str]) -> None:
    assert structure(config(*words)) != structure(config())


def test_experiments_are_told_apart_by_what_they_set() -> None:
    broken, repaired = (structure(config(f"experiment={name}")) for name in ("exp2_sgd_B32", "exp2_sgd_B32_fixed"))
    assert broken == repaired
    assert broken != structure(config("experiment=exp1_adam_B32"))


def test_arguments_that_are_lists_of_numbers_and_dropout_may_differ() -> None:
    adam = ["optimizer=adam"]
    assert structure(config(*adam, "optimizer.betas=[0.8,0.9]", "optimizer.eps=1e-4")) == structure(config(*adam))
    assert structure(config(*adam, "optimizer.amsgrad=true")) != structure(config(*adam))
    words = ["model=transformer", "dataset=pydocs"]
    assert structure(config(*words, "model.dropout=0.3")) == structure(config(*words))
    assert structure(config(*words, "model.heads=2")) != structure(config(*words))


def test_groups_keep_the_order_of_the_sweep() -> None:
    entries = [
        Entry(COMPOSER.compose(words), MemberRecord(number, words, str(number), {}))
        for number, words in enumerate(
            [["seed=1"], ["model=mlp"], ["seed=2"], ["model=mlp", "seed=5"], ["model=linear"]]
        )
    ]
    groups = alike(entries)
    assert [[entry.record.number for entry in group] for group in groups] == [[0, 2], [1, 3], [4]]


def test_words_of_hydra_are_not_a_members_own() -> None:
    words = ["seed=1", "hydra/launcher=fused", "hydra.sweep.dir=x", "+hydra.job.name=y", "~name"]
    assert Entry(COMPOSER.compose([]), MemberRecord(0, words, "0", {})).words == ["seed=1", "~name"]
