"""Random data of any size, for questions of speed: nothing can be learned from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optexp.datasets.base import Dataset, Split

_HELD_OUT = 256  # samples of validation and test


def images(num_images: int, shape: Sequence[int] = (3, 32, 32), num_classes: int = 10) -> Dataset:
    """Return uint8 images [num_images, C, H, W] with random labels, as CIFAR-10 is stored."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        pixels = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
        return Split(pixels, torch.randint(num_classes, (count,), generator=generator))

    deviation = (256**2 - 1) ** 0.5 / 12**0.5 / 255  # of a uniform distribution of 256 levels
    return Dataset(
        name="generated",
        kind="images",
        objective="classification",
        input_shape=tuple(shape),
        num_outputs=num_classes,
        train=split(num_images),
        val=split(_HELD_OUT),
        test=split(_HELD_OUT),
        mean=(0.5,) * shape[0],
        std=(deviation,) * shape[0],
    )


def tokens(num_tokens: int, vocabulary_size: int = 50304, context_length: int = 1024) -> Dataset:
    """Return a stream of random tokens; 50,304 is GPT-2's vocabulary rounded up to a multiple of 64, as in nanoGPT."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        return Split(torch.randint(vocabulary_size, (count,), generator=generator))

    held_out = 2 * context_length + 1
    return Dataset(
        name="generated",
        kind="tokens",
        objective="language",
        input_shape=(context_length,),
        num_outputs=vocabulary_size,
        train=split(num_tokens),
        val=split(held_out),
        test=split(held_out),
    )
