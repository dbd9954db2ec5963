"""Gradient clipping by global norm."""

from __future__ import annotations

import torch
from torch import Tensor

from optexp.instruments.norms import Scalar


def clip(gradients: list[Tensor], norm: Scalar, limit: float) -> None:
    """Scale the gradients in place by min(1, limit / norm), as torch.nn.utils.clip_grad_norm_ does."""
    if isinstance(norm, Tensor):
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
    elif norm + 1e-6 > limit:
        torch._foreach_mul_(gradients, limit / (norm + 1e-6))
