"""Norms over many tensors at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def norms_of_parts(matrices: Sequence[Tensor], sizes: list[int]) -> list[Tensor]:
    """Return the norms of the parts of each row of matrices [R, n], which have these sizes: [R] each, or scalars."""
    parts = [part for matrix in matrices for part in matrix.split(sizes, dim=1)]
    if len(matrices[0]) == 1:
        return list(torch._foreach_norm(parts))
    return [torch.linalg.vector_norm(part, dim=1) for part in parts]
