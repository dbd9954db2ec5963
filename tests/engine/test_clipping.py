"""Clipping by global norm, as torch does it."""

from __future__ import annotations

import pytest
import torch

from optexp.engine.clipping import clip
from optexp.instruments.norms import global_norm


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("on_host", [False, True])
def test_clip_equals_torch(limit: float, on_host: bool) -> None:
    torch.manual_seed(0)
    ours = [torch.randn(3, 4), torch.randn(5)]
    parameters = [torch.nn.Parameter(torch.zeros_like(tensor)) for tensor in ours]
    for parameter, gradient in zip(parameters, ours, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, limit)
    clip(ours, global_norm(ours, on_host), limit)
    for parameter, gradient in zip(parameters, ours, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
