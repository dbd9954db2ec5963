"""Every optimizer that is shipped trains, resumes, and obeys groups, clipping, accumulation and schedules.

The entries are those of conf/optimizer, so that a new file there is tested without a line here.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import here, runs_in
from trainings import trained

from optexp.assemble import Training, assemble
from optexp.config import build
from optexp.config.compose import Composer
from optexp.engine.checkpoint import Checkpoints
from optexp.help import shipped_folder
from optexp.optimizers import collection
from optexp.tasks import check_composed

FILES = sorted((shipped_folder() / "optimizer").glob("*.yaml"))
NODES: dict[str, dict[str, Any]] = {path.stem: yaml.safe_load(path.read_text()) for path in FILES}
SMALL = ("model=mlp", "dataset=digits", "model.hidden=[64,64]", "engine.max_steps=30", "engine.eval_every=30")
FULL = "dataset.batch_size=full"
SUITED = {"lbfgs": [FULL, "engine.max_steps=3"], "rprop": [FULL]}
"""Made for full batches."""


def missing(name: str) -> str | None:
    """Return why an entry cannot be tried on this machine."""
    package = NODES[name]["_target_"].split(".")[0]
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    return "needs CUDA" if name.startswith("paged") and not torch.cuda.is_available() else None


ENTRIES = [
    pytest.param(name, marks=pytest.mark.skipif(missing(name) is not None, reason=str(missing(name)))) for name in NODES
]
DECAYING = [entry for entry in ENTRIES if "weight_decay" in NODES[str(entry.values[0])]]


@functools.cache
def composer() -> Composer:
    return Composer()


def training(name: str, *words: str) -> Training:
    composed = composer().compose([*SMALL, f"optimizer={name}", *SUITED.get(name, []), *words])
    return assemble(composed.config, check_composed(composed), composed.choices)


def weights(run: Training) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in run.model.named_parameters()}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_argument_of_the_constructor_is_there_and_no_other(name: str) -> None:
    node = dict(NODES[name])
    target = build.locate("optimizer", node.pop("_target_"), ())
    if target is collection.by_name:
        target = collection.named(node.pop("name"))
        assert set(node) == {"lr"}  # the others' names depend on the class
        return
    takes = set(inspect.signature(target).parameters) - {"params", "kwargs"}
    unused = {"amsgrad", "optim_bits", "args", "is_paged"} if "bitsandbytes" in str(target) else set()
    assert set(node) == takes - unused


@pytest.mark.parametrize("name", ENTRIES)
def test_the_loss_falls(name: str) -> None:
    run = training(name, "schedule=constant")
    before = run.program.evaluate(run.validation)[0]["loss"]
    ending, _, rows = trained(run)
    assert ending.status == "completed"
    assert rows.series("val/loss")[-1] < 0.99 * before
    assert all(norm > 0 for norm in rows.series("optim/grad_norm"))


@pytest.mark.parametrize("name", ENTRIES)
def test_it_learns_with_clipping_accumulation_and_a_schedule(name: str) -> None:
    words = ("schedule=cosine", "schedule.warmup_steps=1", "engine.clip_norm=0.5", "engine.accumulate=2")
    run = training(name, *words)
    before = run.program.evaluate(run.validation)[0]["loss"]
    ending, member, rows = trained(run)
    assert ending.status == "completed"
    assert rows.series("val/loss")[-1] < before
    rates = rows.series("optim/lr")
    assert rates[-1] < max(rates)
    assert member.latest["optim/clipped"] >= 0


@pytest.mark.parametrize("name", ENTRIES)
def test_resumed_it_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    def step(run: Training, first: int, last: int) -> None:
        for number in range(first, last):
            run.program.step(number, [run.base_lr * (1 - number / 40)])

    whole, first, second = training(name), training(name), training(name)
    step(whole, 0, 9)
    step(first, 0, 4)
    first.program.evaluate(first.validation)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(4, first.program.state(0), ["last"])
    checkpoints.wait()
    loaded = checkpoints.load("last")
    assert loaded is not None
    second.program.load_state(0, loaded[1])
    step(second, 4, 9)
    expected, found = weights(whole), weights(second)
    assert {key: torch.equal(found[key], expected[key]) for key in expected} == dict.fromkeys(expected, True)
    assert whole.program.evaluate(whole.validation) == second.program.evaluate(second.validation)


@pytest.mark.parametrize("name", DECAYING)
def test_decay_acts_on_what_the_groups_say(name: str) -> None:
    """At the first step all gradients are the same, so that nothing but the decay itself can make a difference."""

    def stepped(*words: str) -> dict[str, torch.Tensor]:
        run = training(name, *words)
        run.program.step(0, [run.base_lr])
        return weights(run)

    def differing(decays_all: bool) -> set[str]:
        word = f"engine.decay_norm_and_bias={str(decays_all).lower()}"
        with_decay, without = stepped(word, "optimizer.weight_decay=0.5"), stepped(word, "optimizer.weight_decay=0")
        return {key for key in without if not torch.equal(with_decay[key], without[key])}

    assert {key.rpartition(".")[2] for key in differing(False)} == {"weight"}
    assert len(differing(False)) == 3


def swept(folder: Path, names: list[str]) -> None:
    words = ("model=mlp", "dataset=digits", "model.hidden=[8,8]", "engine.max_steps=2", "engine.clip_norm=1")
    ended = here(folder, "-m", *words, f"optimizer={','.join(names)}", "engine.checkpoint_every=null")
    assert ended.status == 0, ended.err or ended.out
    assert {run.choice("optimizer"): run.status for run in runs_in(folder)} == dict.fromkeys(names, "completed")


def test_a_sweep_takes_those_that_ask_for_more_than_gradients(tmp_path: Path) -> None:
    swept(tmp_path, ["lbfgs", "muon", "schedule_free", "sophia"])


@pytest.mark.slow
def test_a_sweep_takes_them_all(tmp_path: Path) -> None:
    swept(tmp_path, [name for name in NODES if missing(name) is None])
