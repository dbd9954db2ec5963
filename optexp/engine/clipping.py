"""Gradient clipping by global norm."""

from __future__ import annotations

import torch
from torch import Tensor

from optexp.instruments.norms import Scalar


def clip(gradients: list[Tensor], norm: Scalar, limit: float) -> Scalar:
    """Scale the gradients in place by min(1, limit / norm), as torch.nn.utils.clip_grad_norm_ does.

    Returns the factor.
    """
    if isinstance(norm, Tensor):
        factor: Scalar = (limit / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
        return factor
    factor = min(1.0, limit / (norm + 1e-6))
    if factor < 1:
        torch._foreach_mul_(gradients, factor)
    return factor
