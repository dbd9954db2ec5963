"""Norms over many tensors at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Scalar = float | Tensor
"""A number that the host knows, or one that is still on its way through the device."""


def global_norm(tensors: list[Tensor], on_host: bool = False) -> Scalar:
    """Return the Euclidean norm over all elements of all tensors.

    By default it stays on the device, without synchronization. `on_host` gives a float: the better way on a CPU, where
    reading a number costs less than any further operation on it.
    """
    norms = torch._foreach_norm(tensors)
    if on_host:
        return math.hypot(*[norm.item() for norm in norms])
    return torch.linalg.vector_norm(torch.stack(norms))


def member_norms(tensors: list[Tensor]) -> Tensor:
    """Return for tensors [R, ...] the Euclidean norm of each member over all its elements, [R]."""
    norms = [torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim))) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)


def norms_of_parts(matrix: Tensor, sizes: list[int]) -> Tensor:
    """Return the Euclidean norms of the P parts of each row of [R, n], which have these sizes, [P, R]."""
    if len(sizes) == 1:
        return torch.linalg.vector_norm(matrix, dim=1).unsqueeze(0)
    if len(matrix) == 1:
        return torch.stack(torch._foreach_norm(matrix[0].split(sizes))).unsqueeze(1)
    return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in matrix.split(sizes, dim=1)])
