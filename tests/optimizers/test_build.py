"""Optimizers are torch's own, in the fastest implementation, with the same results as the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optexp.errors import BadInput
from optexp.optimizers.build import build_optimizer

CASES: list[tuple[type, dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.1, "maximize": True}),
    (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "betas": [0.8, 0.95]}),
    (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5, "centered": True}),
    (torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.01}),
]


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        inputs = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize(("kind", "arguments"), CASES)
def test_the_chosen_implementation_follows_torchs_single_tensor_loop(kind: type, arguments: dict[str, Any]) -> None:
    first, second = model(), model()
    chosen = build_optimizer(kind, arguments, first, decay_norm_and_bias=True)
    plain = kind(second.parameters(), **{**arguments, "foreach": False})
    torch.testing.assert_close(trained(first, chosen), trained(second, plain), rtol=1e-10, atol=1e-12)


def test_fused_is_chosen_where_torch_has_it_and_the_user_left_it_open() -> None:
    arguments = {"lr": 0.1, "foreach": None, "fused": None, "differentiable": False}
    assert build_optimizer(torch.optim.SGD, arguments, model(), True).defaults["fused"] is True
    assert build_optimizer(torch.optim.SGD, {**arguments, "fused": False}, model(), True).defaults["fused"] is False
    assert build_optimizer(torch.optim.SGD, {**arguments, "foreach": True}, model(), True).defaults["foreach"] is True


def test_weight_decay_leaves_exempt_parameters_alone() -> None:
    net = model()
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    optimizer = build_optimizer(torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.5}, net, decay_norm_and_bias=False)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        expected = before[name] * (0.95 if name.endswith("weight") else 1.0)
        torch.testing.assert_close(parameter.detach(), expected)


def test_what_the_constructor_refuses_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"optimizer: AdamW rejects its arguments: .*-1"):
        build_optimizer(torch.optim.AdamW, {"lr": -1.0}, model(), True)
    with pytest.raises(BadInput, match="no trainable parameters"):
        build_optimizer(torch.optim.SGD, {"lr": 0.1}, nn.ReLU(), True)
