"""Gradient clipping by global norm."""

from __future__ import annotations

import torch
from torch import Tensor


def global_norm(tensors: list[Tensor]) -> Tensor:
    """Return the Euclidean norm over all elements of all tensors, as a scalar on their device (no synchronization)."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))


def clip(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """Scale the gradients in place by min(1, limit / norm), as torch.nn.utils.clip_grad_norm_ does."""
    coefficient = (limit / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, coefficient)
