"""Effective learning rate and update ratio against what torch's optimizers really do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from optexp.instruments.norms import global_norm
from optexp.instruments.step_size import effective_lr


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
def test_global_norm_is_the_norm_of_everything_in_one_vector(on_host: bool) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(3, 4), torch.randn(7), torch.randn(2, 2, 2)]
    expected = torch.linalg.vector_norm(torch.cat([tensor.flatten() for tensor in tensors]))
    assert float(global_norm(tensors, on_host)) == pytest.approx(expected.item(), rel=1e-6)
    assert not math.isfinite(global_norm([*tensors, torch.tensor([math.nan])], on_host))
    assert not math.isfinite(global_norm([*tensors, torch.tensor([math.inf])], on_host))
