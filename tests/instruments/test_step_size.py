"""Effective learning rate and update ratio against what torch's optimizers really do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from optexp.instruments.norms import global_norm
from optexp.instruments.step_size import UpdateRatio, effective_lr


@pytest.mark.parametrize(("momentum", "dampening"), [(0.0, 0.9), (0.9, 0.0), (0.9, 0.9), (0.8, 0.5), (0.5, 0.9)])
def test_effective_lr_is_the_step_under_a_constant_gradient(momentum: float, dampening: float) -> None:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.01, momentum=momentum, dampening=dampening)
    for _ in range(400):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert before - weight.item() == pytest.approx(effective_lr(optimizer, 0.01), rel=1e-9)


def test_exp2_is_three_decades_below_its_repair() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    broken = torch.optim.SGD(weights, lr=1e-4, momentum=0.9, dampening=0.9)
    repaired = torch.optim.SGD(weights, lr=1e-2, momentum=0.9)
    assert effective_lr(broken, 1e-4) == pytest.approx(1e-4)
    assert effective_lr(repaired, 1e-2) == pytest.approx(1e-1)


def test_effective_lr_of_adam_is_its_lr_and_rmsprop_amplifies() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    assert effective_lr(torch.optim.AdamW(weights), 0.3) == 0.3
    assert effective_lr(torch.optim.RMSprop(weights, momentum=0.5), 0.3) == pytest.approx(0.6)


@pytest.mark.parametrize("on_host", [False, True])
def test_update_ratio_is_the_relative_size_of_one_step(on_host: bool) -> None:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    flat = torch.cat([weight.detach().flatten() for weight in weights])
    gradient = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    ratio = UpdateRatio(weights)
    ratio.before_step()
    torch.optim.SGD(weights, lr=0.01).step()
    measured, weight_norm = ratio.after_step(on_host)
    assert isinstance(measured, float) == on_host
    assert float(measured) == pytest.approx(0.01 * gradient.norm().item() / flat.norm().item(), rel=1e-4)
    assert float(weight_norm) == pytest.approx(flat.norm().item(), rel=1e-6)


def test_the_ratio_of_weights_that_are_all_zero_is_infinite() -> None:
    weights = [nn.Parameter(torch.zeros(3))]
    weights[0].grad = torch.ones(3)
    ratio = UpdateRatio(weights)
    ratio.before_step()
    torch.optim.SGD(weights, lr=0.01).step()
    assert ratio.after_step(on_host=True)[0] == math.inf


@pytest.mark.parametrize("on_host", [False, True])
def test_global_norm_is_the_norm_of_everything_in_one_vector(on_host: bool) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(3, 4), torch.randn(7), torch.randn(2, 2, 2)]
    expected = torch.linalg.vector_norm(torch.cat([tensor.flatten() for tensor in tensors]))
    assert float(global_norm(tensors, on_host)) == pytest.approx(expected.item(), rel=1e-6)
    assert not math.isfinite(global_norm([*tensors, torch.tensor([math.nan])], on_host))
    assert not math.isfinite(global_norm([*tensors, torch.tensor([math.inf])], on_host))
