"""What a user may bring along: models that optexp has no stack for, and a data set with augmentation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optexp.datasets.base import Augmentation, Dataset, Split


class Network(nn.Module):
    """Batch normalization of vectors, a parameter outside of layers, one in two layers, and axes spelled out."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], channels, 3, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(channels)
        self.first, self.second = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(channels))
        self.batch_norm = nn.BatchNorm1d(channels)
        self.head = nn.Linear(channels, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2).amax((2, 3))
        x = torch.tanh(self.second(torch.relu(self.first(x.view(x.size(0), -1))))) * self.scale
        return self.head(self.batch_norm(x))


class Drawing(nn.Module):
    """Draws from torch's global generator, which many runs at once cannot do as each does alone."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(input_shape[0] * 64, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def stripes(crop: int = 2, flip: bool = True) -> Dataset:
    """Return 120 images of 9 × 9 pixels; the class is the width of the stripes."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 4
    period = (labels + 2)[:, None, None, None]
    place = torch.arange(9) + torch.randint(9, (120, 3, 1, 1), generator=random)
    images = (place // period % 2 * 200 + torch.randint(56, (120, 3, 9, 9), generator=random)).to(torch.uint8)
    parts = [Split(images[start:end], labels[start:end]) for start, end in ((0, 80), (80, 100), (100, 120))]
    return Dataset(
        name="stripes",
        kind="images",
        objective="classification",
        input_shape=(3, 9, 9),
        num_outputs=4,
        train=parts[0],
        val=parts[1],
        test=parts[2],
        mean=(0.5, 0.5, 0.5),
        std=(0.4, 0.4, 0.4),
        augmentation=Augmentation(crop, flip),
    )
