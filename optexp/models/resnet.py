"""Residual networks for small images, with a 3 × 3 stem and no max-pooling.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (section 4.2 for depths 8, 14 and 20),
with projection shortcuts throughout (their option B) and the zero initialization of Goyal et al., "Accurate, Large
Minibatch SGD: Training ImageNet in 1 Hour", 2017.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from optexp import nn
from optexp.errors import BadInput, listed

# Blocks per stage. The first stage has `width` channels; each further one doubles them and halves the resolution.
STAGES: dict[int, tuple[int, ...]] = {
    8: (1, 1, 1),
    14: (2, 2, 2),
    20: (3, 3, 3),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
}


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut: [B, in, H, W] to [B, out, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network: images [B, C, H, W] to logits [B, num_outputs].

    `input_shape` is (C, H, W). Depths 8, 14 and 20 have three stages, 18 and 34 four (their usual width is 64).
    `zero_init` sets the last normalization weight of each block to zero, so that blocks start as identities.
    Raises BadInput for a depth that is not in the table or a width below 1.
    """

    reads = ("images",)

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_outputs: int,
        depth: Literal[8, 14, 18, 20, 34] = 8,
        width: int = 16,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        if depth not in STAGES:
            raise BadInput(f"model.depth={depth}: must be one of {listed(map(str, sorted(STAGES)))}")
        if width < 1:
            raise BadInput(f"model.width={width}: must be at least 1")
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        channels = width
        for stage, num_blocks in enumerate(STAGES[depth]):
            for block in range(num_blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                out_channels = width * 2**stage
                blocks.append(BasicBlock(channels, out_channels, stride))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.GlobalAvgPool2d()
        self.head = nn.Linear(channels, num_outputs)
        self._initialize(zero_init)

    def _initialize(self, zero_init: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock) and zero_init:
                nn.zeros_(module.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.stem(x))))
