"""Norms over many tensors at once."""

from __future__ import annotations

import torch
from torch import Tensor


def global_norm(tensors: list[Tensor]) -> Tensor:
    """Return the Euclidean norm over all elements of all tensors, as a scalar on their device (no synchronization)."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
