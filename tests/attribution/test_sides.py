"""Two configurations: how they are named, how they differ, and the words that compose every mixture of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up import plan_of

from optexp.attribution.plan import Plan
from optexp.attribution.sides import differences, mixed, read_side
from optexp.attribution.words import same, value_word, words_towards
from optexp.cli import _refuse_repeats, parse
from optexp.config.compose import Composer
from optexp.errors import BadInput

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(None, multirun=True)


def recorded(make_run: MakeRun, composer: Composer, path: Path, *words: str, **changes: dict[str, Any] | None) -> str:
    """Make the directory of a run with the config that `words` compose; returns its name."""
    make_run(path)
    composed = composer.compose(words)
    config = composed.config
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**info, "choices": dict(composed.choices)}))
    for group, values in changes.items():
        config[group] = {**config[group], **values} if values is not None else None
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return str(path)


def test_the_repair_of_exp2_has_three_keys() -> None:
    plan = plan_of()
    assert [(key.key, key.name, key.failing, key.working) for key in plan.keys] == [
        ("optimizer.lr", "lr", 1e-4, 1e-2),
        ("optimizer.dampening", "dampening", 0.9, 0.0),
        ("optimizer.weight_decay", "weight_decay", 1e-2, 1e-4),
    ]
    config = plan.composer.compose(plan.words[1, 0, 1]).config["optimizer"]
    assert (config["lr"], config["dampening"], config["weight_decay"]) == (1e-2, 0.9, 1e-4)
    assert plan.command((1, 1, 0)) == [
        *("optexp", "experiment=exp2_sgd_B32", "optimizer.lr=0.01", "optimizer.dampening=0.0")
    ]


def test_every_combination_has_the_same_seeds_and_its_own_values() -> None:
    plan = plan_of("seed=5", "engine.epochs=1", seeds=2)
    record = plan.record(["optexp"])
    assert [member.swept["seed"] for member in record.members] == [5, 6] * 8
    assert record.members[-1].swept == {
        "optimizer.lr": 1e-2,
        "optimizer.dampening": 0.0,
        "optimizer.weight_decay": 1e-4,
        "seed": 6,
    }
    assert record.members[-1].directory == "15-lr+dampening+weight_decay,seed=6"
    assert all("engine.epochs=1" in member.overrides for member in record.members)
    assert all("engine.checkpoint_every=null" in member.overrides for member in record.members)


def test_what_the_command_line_sets_holds_for_both_and_differs_no_more() -> None:
    plan = plan_of("optimizer.lr=0.05", "name=x", "remark=y", "output_dir=z")
    assert [key.key for key in plan.keys] == ["optimizer.dampening", "optimizer.weight_decay"]
    assert plan.words[0, 0] == ["experiment=exp2_sgd_B32", "optimizer.lr=0.05", "engine.checkpoint_every=null"]


def test_another_optimizer_is_one_key() -> None:
    plan = plan_of(working="exp1_adam_B32")
    [key] = plan.keys
    assert (key.key, key.failing, key.working) == ("optimizer", "sgd", "adam")
    member = plan.composer.compose(plan.words[(1,)])
    assert member.config["optimizer"] == plan.working.composed.config["optimizer"]
    assert member.choices["optimizer"] == "adam"


def test_a_run_directory_is_its_config(make_run: MakeRun, composer: Composer, tmp_path: Path) -> None:
    words = ("model=mlp", "model.hidden=[8]", "optimizer=sgd", "optimizer.lr=1e-3", "name='a, b'", "seed=7")
    named = recorded(make_run, composer, tmp_path / "run", *words, "engine.log_every=3")
    side = read_side(composer, "task.failing", named, ["engine.epochs=2"])
    before, after = composer.compose(words).config, side.composed.config
    assert [after[group] for group in ("model", "dataset", "optimizer", "schedule")] == [
        before[group] for group in ("model", "dataset", "optimizer", "schedule")
    ]
    assert (after["engine"]["epochs"], after["engine"]["log_every"], after["seed"]) == (2, 3, 0)


def test_keys_that_only_one_side_has(make_run: MakeRun, composer: Composer, tmp_path: Path) -> None:
    """As with constructors that take more than the file in conf names; a mixture adds it, or leaves it out."""
    plain = ("optimizer=pytorch_optimizer", "optimizer.name=lion", "optimizer.lr=0.1")
    one = recorded(make_run, composer, tmp_path / "one", *plain)
    other = recorded(make_run, composer, tmp_path / "other", *plain, optimizer={"use_gc": True})
    failing, working = (read_side(composer, "task.failing", side, []) for side in (one, other))
    [added] = differences(failing, working)
    assert (added.key, added.at(0), added.at(1)) == ("optimizer.use_gc", "absent", True)
    [dropped] = differences(working, failing)
    assert mixed(composer, failing, working, [added])[-1] == "++optimizer.use_gc=true"
    words = mixed(composer, working, failing, [dropped])
    assert "use_gc" not in composer.compose(words).config["optimizer"]


def without(path: str, *keys: str) -> str:
    """Take keys of the optimizer out of the config of a recorded run."""
    file = Path(path) / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["optimizer"] = {key: value for key, value in config["optimizer"].items() if key not in keys}
    file.write_text(yaml.safe_dump(config))
    return path


def accepted(plan: Plan) -> list[dict[str, Any]]:
    """Pass every command through the checks of the command line; returns the optimizer that each composes."""
    found = []
    for combination in plan.design.combinations:
        _, *words = plan.command(combination)
        request = parse(words)
        _refuse_repeats(request.words)
        found.append(Composer(None).compose(request.words).config["optimizer"])
    return found


def test_commands_that_drop_keys_are_accepted(make_run: MakeRun, composer: Composer, tmp_path: Path) -> None:
    failing = recorded(make_run, composer, tmp_path / "failing", "optimizer=sgd", "optimizer.dampening=0.9")
    working = recorded(make_run, composer, tmp_path / "working", "optimizer=sgd", "optimizer.lr=0.2")
    plan = plan_of(failing=failing, working=without(working, "dampening"))
    assert [(key.key, key.at(1)) for key in plan.keys] == [("optimizer.lr", 0.2), ("optimizer.dampening", "absent")]
    optimizers = accepted(plan)
    assert [(each["lr"], each.get("dampening")) for each in optimizers] == [
        *[(0.05, 0.9), (0.05, None)],
        *[(0.2, 0.9), (0.2, None)],
    ]
    back = plan_of(failing=working, working=failing)
    assert accepted(back) == optimizers[::-1]


def test_a_key_that_one_side_lacks_and_the_other_has_as_null_is_the_same(
    make_run: MakeRun, composer: Composer, tmp_path: Path
) -> None:
    """As foreach in the runs of a version that had none."""
    keys = ("max_eval", "tolerance_grad", "lr")
    new = recorded(make_run, composer, tmp_path / "new", "optimizer=lbfgs", "dataset.batch_size=full")
    old = recorded(make_run, composer, tmp_path / "old", "optimizer=lbfgs", "dataset.batch_size=full")
    for failing, working in ((new, without(old, *keys)), (old, new)):
        plan = plan_of(failing=failing, working=working)
        assert [key.name for key in plan.keys] == ["lr", "tolerance_grad"]
        assert {optimizer.get("max_eval") for optimizer in accepted(plan)} == {None}


def test_a_word_that_added_or_dropped_a_key_gives_way(composer: Composer) -> None:
    plain = ["optimizer=sgd", "~optimizer.dampening", "++optimizer.extra=1"]
    target = composer.compose(["optimizer=sgd", "optimizer.dampening=0.9"]).config
    assert words_towards(composer, plain, target) == ["optimizer=sgd", "optimizer.dampening=0.9"]
    target = composer.compose(["optimizer=sgd", "++optimizer.extra=2", "~optimizer.dampening"]).config
    assert words_towards(composer, plain, target) == [*plain[:2], "++optimizer.extra=2"]


def test_keys_that_change_nothing_are_no_difference(make_run: MakeRun, composer: Composer, tmp_path: Path) -> None:
    one = recorded(make_run, composer, tmp_path / "one", "seed=1", "name=a", "engine.log_every=1", "remark=x")
    fast = ("optimizer.foreach=false", "optimizer.fused=true", "engine.channels_last=false", "engine.cuda_graph=false")
    words = ("seed=2", "name=b", "engine.threads=1", "output_dir=o", "engine.compile=true", "engine.probe_every=null")
    other = recorded(make_run, composer, tmp_path / "other", *words, *fast)
    with pytest.raises(BadInput, match="no key differs that changes anything"):
        plan_of(failing=one, working=other)


def test_epochs_that_the_same_number_of_steps_goes_before_are_no_difference(
    make_run: MakeRun, composer: Composer, tmp_path: Path
) -> None:
    one = recorded(make_run, composer, tmp_path / "one", "optimizer.lr=0.1", "engine.epochs=2")
    other = recorded(make_run, composer, tmp_path / "other", "optimizer.lr=0.2", "engine.epochs=3")
    sides = {"failing": one, "working": other}
    assert [key.name for key in plan_of(**sides).keys] == ["lr", "epochs"]
    assert [key.name for key in plan_of("engine.max_steps=40", **sides).keys] == ["lr"]
    stepped = recorded(make_run, composer, tmp_path / "stepped", "engine.epochs=3", "engine.max_steps=40")
    assert "epochs" in [key.name for key in plan_of(failing=one, working=stepped).keys], "only one side has steps"


def test_two_groups_with_the_same_last_part_keep_their_whole_names() -> None:
    plan = plan_of("engine.epochs=1", failing="late_oscillation", working="late_oscillation_fixed")
    assert len({key.name for key in plan.keys}) == len(plan.keys)


@pytest.mark.parametrize(
    ("settings", "words", "text"),
    [
        ({"failing": "exp2_sgd_B23"}, (), "task.failing=exp2_sgd_B23: neither an experiment nor a run directory"),
        ({"working": "exp2_sgd_B32"}, (), "no key differs that changes anything"),
        ({"working": ""}, (), "task.working=: neither an experiment"),
        ({}, ("experiment=exp1_adam_B32",), "experiment=exp1_adam_B32: an attribution has two sides"),
        ({}, ("optimizer.nesterov=true",), "task.failing=exp2_sgd_B32: optimizer.nesterov=true: needs"),
        ({"max_combinations": 4}, (), "task.max_combinations=4: 3 keys differ and need 8 combinations"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], words: tuple[str, ...], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        plan_of(*words, **settings)


def test_too_many_differences_are_refused(make_run: MakeRun, composer: Composer, tmp_path: Path) -> None:
    engine = {"clip_norm": 1.0, "accumulate": 2, "label_smoothing": 0.1, "decay_norm_and_bias": True, "eval_every": "7"}
    optimizer = {"lr": 0.3, "momentum": 0.5, "dampening": 0.5, "weight_decay": 0.5, "maximize": True}
    rest = {"dataset": {"batch_size": 7, "split_seed": 7}, "model": {"depth": 14}}
    one = recorded(make_run, composer, tmp_path / "one", "optimizer=sgd")
    other = recorded(
        make_run, composer, tmp_path / "other", "optimizer=sgd", engine=engine, optimizer=optimizer, **rest
    )
    with pytest.raises(BadInput, match=r"1\d keys differ \(model.depth, .*\); allowed are at most 12"):
        plan_of(failing=one, working=other)


def test_a_run_of_another_task_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(tmp_path / "audit")
    text = (path / "run.json").read_text()
    (path / "run.json").write_text(text.replace('"total_steps"', '"task": "audit", "total_steps"'))
    with pytest.raises(BadInput, match="is a task=audit"):
        plan_of(failing=str(path))


def test_values_are_written_so_that_hydra_reads_them_back(composer: Composer) -> None:
    for value in (1, 0.1 + 0.2, 1e-7, True, None, "a, b=c", "it's", "", [1, [2.5, "x"]], {"a": {"b": [None]}}):
        [override] = composer.parse([f"key={value_word(value)}"])
        assert same(override.value(), value)


def test_same() -> None:
    assert same(1, 1.0)
    assert not same(1, True)
    assert not same({"a": [1, 2]}, {"a": [1, 2, 3]})
    assert same({"a": [1, 2]}, {"a": [1.0, 2]})


def test_words_towards_a_configuration(composer: Composer) -> None:
    start = ["model=mlp", "optimizer=sgd", "optimizer.lr=0.1"]
    target = composer.compose(["model=mlp", "optimizer=adam", "optimizer.lr=0.2", "model.hidden=[3,4]"]).config
    words = words_towards(composer, start, target)
    config = composer.compose(words).config
    assert (config["optimizer"], config["model"]) == (target["optimizer"], target["model"])
    assert "optimizer.lr=0.2" in words
    assert "optimizer.lr=0.1" not in words
