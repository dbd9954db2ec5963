"""What several data sets do alike: checks of their arguments, statistics of images, and what a run records of them."""

from __future__ import annotations

import torch
from torch import Tensor

from optexp.datasets.base import Split, fingerprint
from optexp.errors import BadInput

_CHUNK = 1024  # images per step of the statistics: bounds the memory of their float copy


def check_fractions(val_fraction: float, test_fraction: float | None = None) -> None:
    """Raise BadInput unless the given fractions lie in (0, 1) and leave something to train on."""
    given = {"val_fraction": val_fraction} | ({} if test_fraction is None else {"test_fraction": test_fraction})
    for key, value in given.items():
        if not 0 < value < 1:
            raise BadInput(f"dataset.{key}={value}: must be between 0 and 1, both excluded")
    if not sum(given.values()) < 1:
        keys = " + ".join(f"dataset.{key}={value}" for key, value in given.items())
        raise BadInput(f"{keys}: the sum must be below 1, the rest is the training split")


def described(source: str, train: Split, val: Split, test: Split, **more: object) -> dict[str, object]:
    """Return what a run records of its data: source, sizes of the splits (samples or tokens), their fingerprints."""
    splits = {"train": train, "val": val, "test": test}
    return {
        "source": source,
        "sizes": {name: len(split.inputs) for name, split in splits.items()},
        "fingerprints": {
            name: fingerprint(split.inputs, *([] if split.targets is None else [split.targets]))
            for name, split in splits.items()
        },
        **more,
    }


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 images [N, C, H, W], in units of uint8 / 255.

    A channel without any variation gets deviation 1/255 (one grey level), so that it can be divided by.
    """
    channels = images.shape[1]
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros(channels, dtype=torch.float64)
    for chunk in images.split(_CHUNK):
        pixels = chunk.to(torch.float32).div_(255)
        total += pixels.sum((0, 2, 3), dtype=torch.float64)
        squares += pixels.square().sum((0, 2, 3), dtype=torch.float64)
    count = images.numel() // channels
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())
