"""Optimizers are built by torch's own constructors, without the import of the compiler they do not need."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from optexp.optimizers import construction
from optexp.optimizers.construction import construct, without_compiler

PROGRAM = """
import sys
import torch
from optexp.optimizers.construction import construct

assert "torch._dynamo" not in sys.modules, "importing torch imports its compiler: the short cut is not needed any more"
weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
groups = [{"params": weights[:1]}, {"params": weights[1:], "weight_decay": 0.0}]
for kind in (torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad):
    optimizer = construct(kind, [dict(group) for group in groups], lr=0.1, weight_decay=0.5)
    assert "torch._dynamo" not in sys.modules, kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
compiled = torch.compile(lambda x: x * 2, backend="eager")  # the compiler comes when it is asked for
assert compiled(torch.ones(1)).item() == 2
optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
assert hasattr(torch.optim.Optimizer.add_param_group.__wrapped__, "__dynamo_disable")
"""


def test_the_compiler_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_the_optimizer_is_that_of_a_plain_call(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(construction, "_COMPILER", "not imported")
    weights = [torch.nn.Parameter(torch.arange(3.0)) for _ in range(2)]
    built = construct(kind, [{"params": weights[:1]}, {"params": weights[1:], "lr": 0.5}], lr=0.1)
    plain = kind([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.5}], lr=0.1)
    assert type(built) is kind
    assert built.state_dict() == plain.state_dict()
    assert vars(built).keys() == vars(plain).keys()


def test_errors_are_those_of_the_constructor_and_the_mark_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(construction, "_COMPILER", "not imported")
    inner = Optimizer.add_param_group.__wrapped__  # type: ignore[attr-defined]
    monkeypatch.delattr(inner, "__dynamo_disable", raising=False)
    with pytest.raises(ValueError, match="learning rate"):
        construct(torch.optim.SGD, [{"params": [torch.nn.Parameter(torch.ones(1))]}], lr=-1.0)
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        construct(torch.optim.SGD, [{"params": [3]}], lr=1.0)
    assert not hasattr(inner, "__dynamo_disable")


def test_functions_that_are_not_marked_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(construction, "_COMPILER", "not imported")

    def own() -> None: ...

    with without_compiler(own, torch.no_grad()(own), len, torch.optim.SGD.step):
        assert not hasattr(own, "__dynamo_disable")
        assert not hasattr(torch.optim.SGD.step.__wrapped__, "__dynamo_disable")  # type: ignore[attr-defined]
    monkeypatch.delattr(torch, "_disable_dynamo")  # another version of torch
    weight = torch.nn.Parameter(torch.ones(1))
    assert construct(torch.optim.SGD, [{"params": [weight]}], lr=1.0).param_groups[0]["params"] == [weight]
