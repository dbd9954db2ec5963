"""Gradient clipping by global norm."""

from __future__ import annotations

import torch
from torch import Tensor


def clip(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """Scale the gradients in place by min(1, limit / norm), as torch.nn.utils.clip_grad_norm_ does."""
    coefficient = (limit / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, coefficient)
