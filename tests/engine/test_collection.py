"""Optimizers of pytorch_optimizer by name: every one that is not refused trains and resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_optimizer
import torch
from command_line import here, only_run
from trainings import assembled

from optexp.assemble import Training
from optexp.engine.checkpoint import Checkpoints
from optexp.errors import BadInput
from optexp.optimizers.collection import REFUSED, named

NAMES = [name for name in pytorch_optimizer.get_supported_optimizers() if name not in REFUSED]
FEW = (
    "adahessian",
    "adashift",
    "adopt",
    "aggmo",
    "bsam",
    "conda",
    "emonavi",
    "kron",
    "madgrad",
    "muon",
    "ranger21",
    "soap",
    "spam",
    "splus",
)
"""Those that keep state in other places than most, or ask for more than gradients."""
NEEDED = {
    "bsam": ["+optimizer.num_data=1257", "optimizer.lr=1e-2"],
    "ranger21": ["+optimizer.num_iterations=20"],
    "dadaptadam": ["optimizer.lr=0.1"],
}


def training(name: str) -> Training:
    words = (
        "model=mlp",
        "dataset=digits",
        "model.hidden=[16,16]",
        "optimizer=pytorch_optimizer",
        "engine.max_steps=20",
    )
    return assembled(*words, f"optimizer.name={name}", *NEEDED.get(name, []))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FEW else [pytest.mark.slow]) for name in NAMES]
)
def test_it_trains_and_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    def step(run: Training, first: int, last: int) -> None:
        for number in range(first, last):
            run.program.step(number, [run.base_lr * (1 - number / 40)])

    whole, first, second = training(name), training(name), training(name)
    before = [parameter.detach().clone() for parameter in whole.model.parameters()]
    step(whole, 0, 14)  # AdaShift begins with the eleventh
    assert whole.program.divergences == {}
    assert not all(map(torch.equal, before, whole.model.parameters()))
    step(first, 0, 4)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(4, first.program.state(0), ["last"])
    checkpoints.wait()
    loaded = checkpoints.load("last")
    assert loaded is not None
    second.program.load_state(0, loaded[1])
    step(second, 4, 14)
    assert all(map(torch.equal, whole.model.parameters(), second.model.parameters()))


def test_arguments_are_checked_against_the_named_class(tmp_path: Path) -> None:
    words = ("model=mlp", "model.hidden=[4]", "engine.max_steps=2", "optimizer=pytorch_optimizer")
    ended = here(tmp_path, *words, "optimizer.name=adopt", "optimizer.lr=1e-2", "+optimizer.weight_decay=0.1")
    assert ended.status == 0, ended.err
    assert "weight decay 0.1 on 2 tensors" in ended.out
    assert only_run(tmp_path).config["optimizer"]["weight_decay"] == 0.1
    refused = {
        "optimizer.name=adopt +optimizer.dampening=0.1": "optimizer.dampening=0.1: ADOPT takes no 'dampening'; it",
        "optimizer.name=adpt": "optimizer.name=adpt: pytorch_optimizer has no such optimizer (did you mean 'ad",
        "optimizer.name=lomo": "optimizer.name=lomo: cannot be used here: it takes the model",
        "optimizer.name=ranger21": "optimizer.num_iterations must be set: Ranger21 requires it",
        "optimizer.name=adopt optimizer.weight_decay=0.1": "+optimizer.weight_decay=0.1 adds an argument",
    }
    for text, message in refused.items():
        ended = here(tmp_path, *words, *text.split())
        assert (ended.status, len(ended.err.splitlines())) == (2, 1)
        assert message in ended.err


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_built_from_parameters_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"optimizer.name={name}: cannot be used here: it "):
        named(name)


def test_a_checkpoint_names_no_class_of_another_package() -> None:
    """Some keep objects in their state. They are made anew from files, and nothing but them."""
    run = training("conda")
    run.program.step(0, [run.base_lr])
    tree = run.program.state(0)
    first = next(iter(tree["optimizer"]["parameters"].values()))
    assert first["projector"]["class"].endswith(".GaLoreProjector")
    first["projector"]["class"] = "subprocess.Popen"
    with pytest.raises(BadInput, match=r"has a subprocess\.Popen, which is not read from files"):
        run.program.load_state(0, tree)
