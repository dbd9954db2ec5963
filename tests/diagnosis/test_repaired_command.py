"""The printed command: the run's own words with those of the prescription."""

from __future__ import annotations

import shlex

import pytest

from optexp.cli import _refuse_repeats, parse
from optexp.config.compose import Composer
from optexp.diagnosis.command import repaired_command, repaired_words
from optexp.diagnosis.history import History


def made_by(*words: str, flags: tuple[str, ...] = ()) -> History:
    return History(rows=[], overrides=words, flags=flags)


@pytest.mark.parametrize(
    ("own", "prescription", "expected"),
    [
        ([], ["optimizer.lr=1"], ["optimizer.lr=1"]),
        (["seed=1", "optimizer.lr=0.1", "name=x"], ["optimizer.lr=1"], ["seed=1", "optimizer.lr=1", "name=x"]),
        (
            ["++optimizer.lr=0.1"],
            ["optimizer.lr=1", "optimizer.dampening=0"],
            ["optimizer.lr=1", "optimizer.dampening=0"],
        ),
        (["hydra.run.dir=x", "hydra/launcher=basic", "seed=3"], ["a.b=1"], ["seed=3", "a.b=1"]),
        (
            ["schedule=step", "schedule.step_size=3", "schedule.warmup_steps=5"],
            ["schedule=cosine"],
            ["schedule=cosine", "schedule.warmup_steps=5"],
        ),
    ],
)
def test_no_key_is_given_twice(own: list[str], prescription: list[str], expected: list[str]) -> None:
    words = repaired_words(made_by(*own), prescription)
    assert words == expected
    _refuse_repeats(words)  # which raises


def test_the_command_is_a_shell_line_that_optexp_reads_and_composes() -> None:
    history = made_by("experiment=exp2_sgd_B32", "remark='a b'", "optimizer.lr=1e-3")
    line = repaired_command(history, ["optimizer.dampening=0", "optimizer.lr=0.01"])
    assert line is not None
    request = parse(shlex.split(line)[1:])
    config = Composer().compose(request.words).config
    assert (config["optimizer"]["lr"], config["optimizer"]["dampening"]) == (0.01, 0)
    assert (config["optimizer"]["momentum"], config["dataset"]["batch_size"], config["remark"]) == (0.9, 32, "a b")


def test_flags_stay_and_unknown_words_make_no_command() -> None:
    assert repaired_command(made_by("model=mine", flags=("--config-dir", "my conf")), ["seed=1"]) == (
        "optexp --config-dir 'my conf' model=mine seed=1"
    )
    assert repaired_command(History(rows=[]), ["seed=1"]) is None
