"""Names of run and member directories."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from optexp.config.compose import Composer
from optexp.config.resolvers import member_slug, slug


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=0.1,weight_decay=0", "lr=0.1,weight_decay=0"),
        ("my first run!", "my-first-run"),
        ("a/b\\c:d", "a-b-c-d"),
        ("größe", "gr-e"),
        ("..", "run"),
        ("", "run"),
        ("-flag", "flag"),
        ("x" * 100, "x" * 60),
        ("ab," * 30, "ab," * 19 + "ab"),
        ("lr=1e+30", "lr=1e+30"),
    ],
)
def test_a_slug_is_safe_as_a_folder_name(text: str, expected: str) -> None:
    assert slug(text) == expected
    assert re.fullmatch(r"[A-Za-z0-9+_=][A-Za-z0-9.,=+_-]{0,59}", slug(text))


@pytest.mark.parametrize(
    ("overrides", "swept", "expected"),
    [
        (["model=mlp", "optimizer.lr=0.1", "seed=3"], ["optimizer.lr", "seed"], "lr=0.1,seed=3"),
        (["optimizer=adam", "+engine.note='a b'"], ["optimizer", "engine.note"], "optimizer=adam,note=a-b"),
        (["model.hidden=[8,8]"], ["model.hidden"], "hidden=8,8"),
        (["model=mlp"], [], "run"),
    ],
)
def test_a_member_is_named_by_what_differs(overrides: list[str], swept: list[str], expected: str) -> None:
    assert member_slug(overrides, swept) == expected


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "digits-resnet-sgd"),
        (["model=mlp", "optimizer=adam", "dataset=shapes"], "shapes-mlp-adam"),
        (["experiment=exp2_sgd_B32"], "exp2_sgd_B32"),
        (["experiment=exp2_sgd_B32", "name='a try'"], "a-try"),
    ],
)
def test_a_run_is_named_by_the_user_the_experiment_or_its_parts(words: list[str], name: str) -> None:
    hydra = Composer().compose(words).hydra
    assert str(OmegaConf.select(hydra, "run.dir")).rpartition("/")[2].partition("-")[2] == name
