"""The multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from optexp import nn
from optexp.errors import BadInput


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: images or vectors, flattened, to [B, num_outputs].

    `hidden` holds the widths of the hidden layers; initial weights are torch's. Raises BadInput for a width below 1.
    """

    reads = ("images", "vectors")

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise BadInput(f"model.hidden={list(hidden)}: every width must be at least 1")
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(input_shape)
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), nn.ReLU()]
            width = next_width
        self.layers = nn.Sequential(*layers, nn.Linear(width, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
