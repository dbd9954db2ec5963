"""The shipped optimizers expose every argument of torch's, by torch's own names."""

from __future__ import annotations

import inspect

import pytest
import torch
import yaml

from optexp.help import shipped_folder


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_every_argument_of_torch_is_there_and_no_other(name: str) -> None:
    node = yaml.safe_load((shipped_folder() / "optimizer" / f"{name.lower()}.yaml").read_text())
    assert node.pop("_target_") == f"torch.optim.{name}"
    assert set(node) == set(inspect.signature(getattr(torch.optim, name)).parameters) - {"params"}
