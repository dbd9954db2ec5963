"""Filters, and directions as long as they are.

A filter is what one output of a layer is made with: a kernel [in, h, w] of a convolution, a row of a matrix, the
vector of a token. Biases and normalization parameters belong to none.

Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor


def filter_normalized(direction: Tensor, weights: Tensor, shapes: Sequence[Size]) -> Tensor:
    """Return a direction [P] with each filter scaled to the norm of that filter of the weights [P].

    Biases and normalization parameters (tensors of fewer than two axes) are zero in it.
    """
    sizes = [math.prod(shape) for shape in shapes]
    parts = []
    for shape, d, w in zip(shapes, direction.split(sizes), weights.split(sizes), strict=True):
        if len(shape) < 2:
            parts.append(torch.zeros_like(d))
            continue
        filters = d.view(shape[0], -1)
        lengths = filters.norm(dim=1, keepdim=True)
        wanted = w.view(shape[0], -1).norm(dim=1, keepdim=True)
        parts.append(torch.where(lengths > 0, filters * (wanted / lengths), 0.0).reshape(-1))
    return torch.cat(parts)
