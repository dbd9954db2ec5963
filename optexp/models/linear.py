"""Linear and logistic regression."""

from __future__ import annotations

import math

from torch import Tensor

from optexp import nn


class Linear(nn.Module):
    """One linear layer: images or vectors, flattened, to [B, num_outputs]. The initial weights are torch's."""

    reads = ("images", "vectors")

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(math.prod(input_shape), num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.flatten(x))
