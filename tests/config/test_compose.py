"""The composer against Hydra itself: it composes in a shorter way, and must come to the same configuration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from optexp.config.compose import Composer, plain, quoted
from optexp.errors import BadInput


def hydras(composer: Composer, words: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compose in Hydra's own way; return the configuration without Hydra's node, and the choices."""
    cfg = composer.with_hydra(words, RunMode.RUN)
    config = plain(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    return config, dict(cfg.hydra.runtime.choices)


SAME = [
    [],
    # values
    ["optimizer.lr=1e-3", "optimizer.momentum=1", "optimizer.dampening=1e400", "engine.compile=True"],
    ["optimizer.lr=1E-3", "optimizer.weight_decay=.5", "seed=1_000", "engine.evaluate_test=TRUE"],
    ["optimizer.lr='1e-3'", "optimizer.momentum=-inf", "engine.max_steps=null", "engine.epochs=0.5"],
    ["seed=3", "seed=4", "engine.eval_every=0.5epochs", "engine.checkpoint_every='2 epochs'"],
    ["dataset.batch_size=full"],
    # strings and quotes
    ["name=a", "output_dir="],
    ["name=a b:c", "output_dir='a, b'"],
    ['name="it\'s"', r"output_dir='it\'s'"],
    [r"name='back\\slash'", r"output_dir=\{x\}"],
    ["name=0x1f", "output_dir='3'"],
    ["name=true", "output_dir='größe/1'"],
    ["name=a-b_c.d+e%f@g?h", r"output_dir=a\=b"],
    # lists and dictionaries
    ["model=mlp", "model.hidden=[]", "trust=[a,b]"],
    ["model=mlp", "model.hidden=[64,32]", "trust=[[a],{b: c}]"],
    ["optimizer=adam", "optimizer.betas=[0.9,0.95]", "optimizer.betas.0=0.5"],
    ["optimizer=adam", "+optimizer.betas=[1]"],
    ["optimizer={lr: 3, momentum: 0.5}"],
    ["model={depth: 14}", "model=resnet"],
    ["+model={extra: 1}"],
    ["+model.extra={a: 1, b: {c: [2, null]}}"],
    ["optimizer.lr={a: 1}"],
    # adding, changing, dropping
    ["+engine.new=1", "+a.b.c=1", "+a.b.d=2", "+optimizer.foreach=true"],  # null counts as absent
    ["++engine.new=1", "++engine.epochs=2", "++a.b=[1]"],
    ["~optimizer.lr", "~model.depth", "~model.width", "~trust"],
    ["~optimizer.lr=0.05"],
    ["~engine", "~schedule"],
    ["~dataset=digits", "~experiment"],
    # groups
    ["model=mlp", "model=linear"],
    ["model.depth=20", "model=resnet"],
    ["optimizer='adam'"],
    ["schedule=step", "schedule.step_size=3", "optimizer=adagrad", "dataset=shapes"],
    ["+dataset@other=line"],
    ["experiment=exp2_sgd_B32"],
    ["experiment=exp2_sgd_B32", "optimizer=adam"],
    ["optimizer=adam", "experiment=exp2_sgd_B32", "~optimizer.dampening", "~optimizer.momentum"],
    ["experiment=[exp1_adam_B32,exp2_sgd_B32]"],
    ["experiment=exp1_adam_B32", "optimizer.lr=5", "dataset=line", "dataset.batch_size=7"],
    # the user's own folder
    ["optimizer=mine"],
    ["optimizer=mine", "optimizer.extra.a=[3]", "~optimizer.momentum"],
    ["model=wide", "optimizer=mine", "experiment=mine"],
    ["experiment=mine"],
    # interpolation and functions
    ["name=a${seed}b", "seed=7", "+x=${optimizer.lr}", "optimizer.lr=4", "output_dir='${oc.env:PATH}'"],
    ["name=str(3)", "seed=int(3.7)", "optimizer.lr=float(1)"],
    # Hydra's own
    ["hydra.run.dir=elsewhere", "hydra.job.name=me"],
    ["hydra/job_logging=disabled", "hydra.verbose=true"],
    ["+hydra.job.env_set.SOMETHING=1"],
]


@pytest.mark.parametrize("words", SAME, ids=" ".join)
def test_the_configuration_is_hydras(composer: Composer, words: list[str]) -> None:
    composed = composer.compose(words)
    config, choices = hydras(composer, words)
    assert repr(composed.config) == repr(config)  # repr tells 1 from 1.0 and True, and keeps nan and the order
    assert composed.choices == choices
    assert composed.overrides == words


def everything(cfg: DictConfig) -> str:
    """All values, unresolved, in order and with their types, Hydra's own node included; and what may be changed."""
    flags = [cfg._metadata.flags, cfg.hydra._metadata.flags]
    return repr(OmegaConf.to_container(cfg, resolve=False, enum_to_str=False)) + repr(flags)


@pytest.mark.parametrize("words", SAME, ids=" ".join)
@pytest.mark.parametrize("directory", [[], ["hydra.run.dir='a b'"]], ids=["", "directory"])
def test_what_hydra_is_given_to_run_is_what_it_would_compose(
    composer: Composer, words: list[str], directory: list[str]
) -> None:
    words = [*words, *directory]
    assert everything(composer.for_hydra(words)) == everything(composer.with_hydra(words, RunMode.RUN))


def test_settings_that_decide_how_hydra_composes_are_left_to_hydra(
    composer: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "1")
    assert composer.for_hydra(["hydra.job.env_copy=[MINE]"]).hydra.job.env_set == {"MINE": "1"}


REFUSED = {
    "optimizer.lrr=1": "optimizer.lrr=1: optimizer=sgd takes no 'lrr' (did you mean 'lr'?); it takes lr, momentum,",
    "optimzer.lr=1": "optimzer.lr=1: no such key (did you mean 'optimizer'?); the groups with keys are model, dataset,",
    "optimzer=adam": "optimzer=adam: no such key or group (did you mean 'optimizer'?); there are ",
    "sede=1": "sede=1: no such key or group (did you mean 'seed'?)",
    "optimizer=adamm": "optimizer=adamm: no such optimizer (did you mean 'adam'?); choose one of adadelta, ada",
    "experiment=[exp1_adam_B32,none]": "experiment=none: no such experiment; choose one of ",
    "model=null": "model=null: choose one of ",
    "seed.x=1": "seed.x=1: no such key",
    "optimizer=adam optimizer.betas.7=1": "optimizer.betas.7=1: ",
    "+optimizer.lr=1": "+optimizer.lr=1: the key exists already; write optimizer.lr=…",
    "optimizer=adam ~optimizer.betas.0": "~optimizer.betas.0: an element of a list cannot be dropped; write optimizer.",
    "~optimizer.nothing": "~optimizer.nothing: there is no such key to drop",
    "~optimizer.fused": "~optimizer.fused: cannot be dropped, because optimizer.fused is None",
    "~optimizer.lr=3": "~optimizer.lr=3: cannot be dropped, because optimizer.lr is 0.05",
    "~dataset=cifar10": "Could not delete 'dataset=cifar10'. No match in the defaults list",
    "optimizer={lrr: 1}": "optimizer={lrr: 1}: Key 'lrr' is not in struct",
    "+trust.0=a": "+trust.0=a: ",
    "++model=mlp": "force-add of config groups is not supported: '++model=mlp'",
    "model@x=mlp": "Could not override 'model@x'.",
    "hydra.job.number=3": "hydra.job.number=3: hydra.job takes no 'number'",
    "hydra.mode=SIDEWAYS": "hydra.mode=SIDEWAYS: Invalid value 'SIDEWAYS'",
    "optimizer.lr==1": "optimizer.lr==1: cannot be read as key=value; values with special characters need quotes: ",
    "optimizer.lr=[1": "optimizer.lr=[1: cannot be read as key=value",
    "optimizer.betas[0]=1": "optimizer.betas[0]=1: cannot be read as key=value",
    "seed=nofunction(1)": "seed=nofunction(1): cannot be read as key=value; HydraException while evaluating",
    "name=${nowhere}": "name: Interpolation key 'nowhere' not found",
    "optimizer.lr=${optimizer.lr}": "optimizer.lr: ",
    "dataset=imagefolder": "dataset.root must be set: add dataset.root=… to the command line",
    "experiment=broken": "--config-dir: while parsing",
    "experiment=lost": "In 'config': Could not find 'model/nowhere'",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_hydra_refuses_is_refused_in_one_line(composer: Composer, line: str) -> None:
    words = line.split(" ") if " optimizer" in line or " ~" in line else [line]
    with pytest.raises(Exception):  # noqa: B017, PT011 (of any of Hydra's kinds)
        hydras(composer, words)
    with pytest.raises(BadInput) as caught:
        composer.compose(words)
    assert str(caught.value).startswith(REFUSED[line])
    assert "\n" not in str(caught.value)


def test_a_missing_config_folder_is_named() -> None:
    with pytest.raises(BadInput, match=r"^--config-dir nowhere: no such folder$"):
        Composer("nowhere")


def test_groups_of_the_users_folder_stand_beside_the_shipped_ones(composer: Composer) -> None:
    shipped = {"model", "dataset", "optimizer", "schedule", "engine", "task", "experiment", "study"}
    assert set(composer.groups()) == shipped
    assert composer.compose(["optimizer=mine"]).config["optimizer"]["lr"] == 0.7
    assert "mine" not in Composer().loader.get_group_options("optimizer")


def test_composing_leaves_no_trace_in_the_next_composition(composer: Composer) -> None:
    first = composer.compose([])
    composer.compose(["optimizer.lr=9", "~seed", "+a=1"])
    assert composer.compose([]).config == first.config


def test_a_value_sweep_composes_with_hydra_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composer, loads = Composer(), []
    own = composer.with_hydra
    monkeypatch.setattr(composer, "with_hydra", lambda words, mode: loads.append(words) or own(words, mode))
    for lr in range(20):
        assert composer.compose(["model=mlp", f"optimizer.lr={lr}"]).config["optimizer"]["lr"] == lr
    assert loads == [["model=mlp"]]


def test_not_a_number_survives(composer: Composer) -> None:
    assert math.isnan(composer.compose(["optimizer.lr=nan"]).config["optimizer"]["lr"])


@pytest.mark.parametrize(
    "text", ["a", "a b", "it's", "a\\'b", "back\\slash", "a=b,c", "{x}", "[1", "größe", "", "end\\"]
)
def test_quoted_text_is_read_as_it_was(composer: Composer, text: str) -> None:
    assert composer.compose([f"name={quoted(text)}"]).config["name"] == text


# Sweeps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "multirun", "expected"),
    [
        ([], False, False),
        ([], True, True),
        (["optimizer.lr=1,2"], True, True),
        (["hydra.mode=MULTIRUN"], False, True),
        (["hydra.mode=RUN", "experiment=grid"], False, False),
        (["experiment=grid"], False, True),
        (["experiment=mine"], False, False),
        (["name='1,2'"], False, False),
        (["trust=[1,2]"], False, False),
    ],
)
def test_a_sweep_is_asked_for_by_flag_or_file(folder: Path, words: list[str], multirun: bool, expected: bool) -> None:
    assert Composer(str(folder), multirun=multirun).is_sweep(words) is expected


@pytest.mark.parametrize("word", ["optimizer.lr=1,2", "model=mlp,linear", "seed=range(3)", "model=glob(*)"])
def test_several_values_without_a_sweep_are_refused(composer: Composer, word: str) -> None:
    with pytest.raises(BadInput) as caught:
        composer.is_sweep(["seed=1", word])
    assert str(caught.value) == f"{word}: several values make a sweep; add -m"


SWEEPS = [
    (["optimizer.lr=1e-3,1e-2"], 2, ["optimizer.lr"]),
    (
        ["optimizer.lr=1e-3,1e-2", "seed=1", "optimizer.weight_decay=0,1e-4,1e-2"],
        6,
        ["optimizer.lr", "optimizer.weight_decay"],
    ),
    (["seed=range(4)"], 4, ["seed"]),
    (["seed=range(1,8,3)"], 3, ["seed"]),
    (["optimizer.lr=range(0.1,0.35,0.1)"], 3, ["optimizer.lr"]),
    (["seed=choice(3,1,2)"], 3, ["seed"]),
    (["seed=sort(choice(3,1,2),reverse=true)"], 3, ["seed"]),
    (["optimizer=adam,sgd", "optimizer.lr=1,2"], 4, ["optimizer", "optimizer.lr"]),
    (["optimizer=glob(ada*,exclude=[adad*,adaf*,adamax,*8bit])"], 3, ["optimizer"]),
    (["schedule=glob(c*)"], 3, ["schedule"]),
    (["experiment=exp1_adam_B32,exp2_sgd_B32"], 2, ["experiment"]),
    (["experiment=exp1_adam_B32,mine", "seed=1,2"], 4, ["experiment", "seed"]),
    (["name=a,'b, c',null,true"], 4, ["name"]),
    (["model=mlp", "model.hidden=[8],[8,8],[]"], 3, ["model.hidden"]),
    (["+engine.note=a,b", "++engine.epochs=1,2"], 4, ["engine.note", "engine.epochs"]),
    (
        ["optimizer=adam,sgd", "experiment=exp2_sgd_B32", "~optimizer.dampening", "~optimizer.momentum"],
        2,
        ["optimizer"],
    ),
    (["seed=1"], 1, []),
    ([], 1, []),
]


@pytest.mark.parametrize(("words", "count", "swept"), SWEEPS, ids=[" ".join(case[0]) for case in SWEEPS])
def test_members_are_those_of_hydras_sweeper(
    composer: Composer, words: list[str], count: int, swept: list[str]
) -> None:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    members, keys = composer.members(words)
    parser = OverridesParser.create(config_loader=composer.loader)
    assert members == BasicSweeper.split_arguments(parser.parse_overrides(words), max_batch_size=None)[0]
    assert len(members) == len(set(map(tuple, members))) == count
    assert keys == swept
    for member in {0: members[0], -1: members[-1]}.values():
        assert repr(composer.compose(member).config) == repr(hydras(composer, member)[0])


@pytest.mark.parametrize("word", ["optimizer.lr=interval(0,1)", "seed=choice()", "seed=range(3,3)", "model=glob(x*)"])
def test_a_sweep_that_cannot_be_expanded_is_refused(folder: Path, word: str) -> None:
    composer = Composer(str(folder), multirun=True)
    with pytest.raises(BadInput):
        composer.members([word])


def test_fixed_words_are_those_with_one_value(composer: Composer) -> None:
    words = ["seed=1,2", "model=mlp", "+engine.note='a,b'", "optimizer.lr=range(3)", "~optimizer.dampening"]
    assert composer.fixed(words) == ["model=mlp", "+engine.note='a,b'", "~optimizer.dampening"]
