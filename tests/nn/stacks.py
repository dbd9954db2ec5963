"""Models whose numbers all differ, and everything that a forward and a backward pass leave behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

MEMBERS = 3

Found = dict[str, Tensor]


def members(make: Callable[[], nn.Module], number: int = MEMBERS) -> list[nn.Module]:
    """Return models in double precision; all parameters and buffers differ, also where they begin as constants."""
    models = []
    for seed in range(number):
        torch.manual_seed(seed)
        model = make().double()
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.data += 0.1 * (torch.rand_like(tensor) - 0.5)
        models.append(model)
    return models


def computed(model: nn.Module, x: Tensor) -> Found:
    """Return the outputs, the gradients (of the input too) of the sum of their sines, and the buffers afterwards."""
    x = x.clone().requires_grad_() if x.is_floating_point() else x
    out = model(x)
    if out.requires_grad:
        out.sin().sum().backward()
    parameters = dict(model.named_parameters())
    buffers = {name: value for name, value in model.state_dict().items() if name not in parameters}
    found = {"outputs": out.detach()} | {f"buffer {name}": value.clone() for name, value in buffers.items()}
    found |= {name: value.grad for name, value in parameters.items() if value.grad is not None}
    return found | ({"input": x.grad} if x.is_floating_point() and x.grad is not None else {})


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 1e-12) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, rtol=tolerance, atol=tolerance, msg=partial("{0}: {1}".format, name)
        )


def one_by_one(models: Sequence[nn.Module], x: Tensor) -> Found:
    """Return the same of single models, each on its own row of `x`, with a leading axis of models."""
    found = [computed(model, row) for model, row in zip(models, x, strict=True)]
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}
