"""The shipped optimizers expose every argument of the original, by its own name."""

from __future__ import annotations

import inspect

import pytest
import pytorch_optimizer
import torch
import yaml

from optexp.help import shipped_folder


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_every_argument_of_torch_is_there_and_no_other(name: str) -> None:
    node = yaml.safe_load((shipped_folder() / "optimizer" / f"{name.lower()}.yaml").read_text())
    assert node.pop("_target_") == f"torch.optim.{name}"
    assert set(node) == set(inspect.signature(getattr(torch.optim, name)).parameters) - {"params"}


def test_every_argument_of_lion_is_there_and_no_other() -> None:
    """But for what its **kwargs take, which the check of arguments refuses."""
    node = yaml.safe_load((shipped_folder() / "optimizer" / "lion.yaml").read_text())
    assert node.pop("_target_") == "pytorch_optimizer.Lion"
    assert set(node) == set(inspect.signature(pytorch_optimizer.Lion).parameters) - {"params", "kwargs"}
