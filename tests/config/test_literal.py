"""Replacing plain values comes to what OmegaConf comes to, and is done only where that is certain."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from optexp.config.compose import Composed, Composer, plain
from optexp.config.literal import Literal, separate, without_hydra
from optexp.errors import BadInput

CHOICES: list[list[str]] = [
    [],
    ["model=mlp", "optimizer=adam"],
    ["experiment=exp2_sgd_B32"],
    ["dataset=imagefolder"],  # its root is missing
    ["experiment=refers"],
]
KEYS = [
    "seed",
    "name",
    "output_dir",
    "trust",
    "optimizer.lr",
    "optimizer.betas",
    "optimizer.betas.0",
    "optimizer.nothing",
    "optimizer",
    "model.hidden",
    "dataset.root",
    "engine.epochs",
    "hydra.job.name",
    "hydra.sweep.dir",
]
VALUES = [
    *("1", "1.0", "1e-3", ".5", "1_000", "nan", "-inf", "null", "true", "'true'", "", "abc", "'a, b'", "0x1f"),
    *("[]", "[1,2.5,null]", "[a,'b c',[1,[]]]", "[{a: 1}]", "{a: 1}", "{lr: 3}", "str(3)", "int(2.5)"),
    *("???", "'???'", "${seed}", "'${seed}'", "[1,${seed}]", r"'\${x}'", "$x", "{}"),
]


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> Composer:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "refers.yaml").write_text("# @package _global_\nname: lr ${optimizer.lr}\n")
    return Composer(str(folder))


CASES = 100


def drawn(number: int) -> list[str]:
    """Draw a command line: mostly plain values, and whatever else the grammar allows."""
    draw = random.Random(number)
    words = [f"{draw.choice(KEYS)}={draw.choice(VALUES)}" for _ in range(draw.randint(1, 4))]
    for index, word in enumerate(words):
        key = word.partition("=")[0]
        words[index] = draw.choices([word, f"+{word}", f"++{word}", f"~{key}"], [12, 1, 1, 1])[0]
    return [*draw.choice(CHOICES), *words]


def short(composer: Composer, words: list[str]) -> tuple[Any, Any]:
    composed = composer.compose(words)
    return composed.config, composed.choices


def exact(composer: Composer, words: list[str]) -> tuple[Any, Any]:
    """Compose without any short cut: a copy of the nodes, and Hydra's own function for each word."""
    cfg = composer._applied(*composer._separated(composer.parse(words)))
    return plain(without_hydra(cfg)), cfg.hydra.runtime.choices


def hydras(composer: Composer, words: list[str]) -> tuple[Any, Any]:
    cfg = composer.with_hydra(words, RunMode.RUN)
    return plain(without_hydra(cfg)), cfg.hydra.runtime.choices


Way = Callable[[Composer, list[str]], tuple[Any, Any]]


def outcome(way: Way, composer: Composer, words: list[str]) -> tuple[str, Any] | str:
    """Return values (1, 1.0 and True are told apart) and choices, or what is refused in which words."""
    try:
        values, choices = way(composer, words)
        return repr(values), dict(choices)
    except BadInput as error:
        return str(error)


def test_any_command_line_comes_to_the_same_values_choices_and_errors(composer: Composer) -> None:
    refused = 0
    for number in range(CASES):
        words = drawn(number)
        found = outcome(short, composer, words)
        assert found == outcome(exact, composer, words), words
        refused += isinstance(found, str)
        if number % 10 == 0 and not isinstance(found, str):  # by Hydra itself, which takes 50 ms
            assert outcome(hydras, composer, words) == found, words
    assert CASES / 6 < refused < CASES * 5 / 6, "the command lines say little when all are refused, or none"


def count_of_exact(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that grows with each copy of nodes."""
    calls: list[Any] = []
    own = composer._applied

    def applied(groups: Any, values: Any) -> DictConfig:
        calls.append(values)
        return own(groups, values)

    monkeypatch.setattr(composer, "_applied", applied)
    return calls


def test_members_that_differ_in_values_copy_no_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    composer = Composer()
    calls = count_of_exact(composer, monkeypatch)
    for seed in range(20):
        assert composer.compose(["optimizer=adam", f"seed={seed}"]).config["seed"] == seed
    assert calls == []
    for seed in range(20):  # what else is said, and is the same for all, is applied once
        words = ["experiment=exp2_sgd_B32", "optimizer=adam", f"seed={seed}", "~optimizer.dampening", "+a.b=1"]
        words += ["~optimizer.momentum", "hydra.sweep.dir=x"]
        config = composer.compose(words).config
        assert (config["seed"], config["a"], "dampening" in config["optimizer"]) == (seed, {"b": 1}, False)
    assert len(calls) == 1


def test_hydras_node_is_made_when_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composer = Composer()
    calls = count_of_exact(composer, monkeypatch)
    first, second = composer.compose(["seed=1", "name=me"]), composer.compose(["seed=1"])
    assert calls == []
    first.hydra.runtime.choices["model"] = None
    assert first.hydra.runtime.choices["model"] is None
    assert str(OmegaConf.select(first.hydra, "run.dir")).endswith("-me")
    assert len(calls) == 1
    assert second.hydra.runtime.choices["model"] == "resnet"
    node = OmegaConf.create({"a": 1})
    assert Composed({}, {}, [], node).hydra is node


def test_members_share_no_values() -> None:
    composer = Composer()
    first = composer.compose(["model=mlp", "model.hidden=[1]"])
    first.config["model"]["hidden"].append(2)
    first.config["trust"].append("a")
    first.choices["model"] = None
    second = composer.compose(["model=mlp", "model.hidden=[1]"])
    assert (second.config["model"]["hidden"], second.config["trust"]) == ([1], [])
    assert second.choices["model"] == "mlp"


@dataclass
class Typed:
    number: int = 1
    numbers: list[int] = field(default_factory=list)


def test_only_existing_untyped_keys_take_values() -> None:
    cfg = OmegaConf.create(
        {"a": {"b": 1, "c": [1, 2], "x.y": 3, 4: 5}, "hydra": {"d": 1}, "e": None, "f": "???", "typed": Typed}
    )
    literal, parser = Literal(cfg), Composer()
    words = [
        *("a.b=2", "a.b=[1]", "a.c=[3]", "e=x", "f=3"),
        *("a.c=3", "a.c.0=3", "a=1", "a={}", "a.x.y=1", "a.4=1", "hydra.d=2", "g=1", "typed.number=2"),
        *("typed.numbers=[1]", "a.b={c: 1}", "a.b=${e}", "a.b=???", "+a.b=1", "++a.b=1", "~a.b", "a@b=1"),
    ]
    assert [word for word in words if literal.takes(parser.parse([word])[0])] == words[:5]
    assert not literal.refers
    assert literal.config([]) is None  # f is missing
    config = literal.config(parser.parse(["f=1", "a.c=[3]"]))
    assert config == {"a": {"b": 1, "c": [3], "x.y": 3, 4: 5}, "e": None, "f": 1, "typed": {"number": 1, "numbers": []}}


@pytest.mark.parametrize("content", [{"a": "${b}", "b": 1}, {"a": {"b": ["x${c}"]}, "c": 1}, {"a": "${b}", "b": {}}])
def test_references_are_found_wherever_they_are(content: dict[str, Any]) -> None:
    assert Literal(OmegaConf.create(content)).refers


def test_words_about_the_same_key_keep_their_order() -> None:
    composer = Composer()
    literal = Literal(composer._base([]).cfg)
    words = ["seed=1", "optimizer.lr=1", "optimizer={lr: 2}", "name=a", "~name", "engine.epochs=3", "+optimizer.x.y=1"]
    last, first = separate(literal, composer.parse(words))
    assert [override.input_line for override in last] == ["seed=1", "engine.epochs=3"]
    assert [override.input_line for override in first] == [word for word in words if word not in (words[0], words[5])]


def test_what_was_composed_lately_is_kept_and_no_more() -> None:
    composer = Composer()
    for number in range(40):
        assert composer.compose([f"+a={number}", "seed=3"]).config["a"] == number
    assert len(composer._starts) == 16


def test_a_configuration_that_refers_to_the_environment_is_resolved_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "here.yaml").write_text("# @package _global_\nname: ${oc.env:MINE}-${seed}\n")
    composer = Composer(str(tmp_path))
    for seed in (1, 2):
        monkeypatch.setenv("MINE", f"env{seed}")
        assert composer.compose(["experiment=here", f"seed={seed}"]).config["name"] == f"env{seed}-{seed}"
