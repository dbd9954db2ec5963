"""Small colour images of simple shapes, drawn from a seed: image classification without a download."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from optexp import streams
from optexp.datasets.base import Dataset, Split, split_indices
from optexp.datasets.cache import decoded
from optexp.datasets.details import channel_statistics, check_fractions, described
from optexp.errors import BadInput

_SIZE = 32  # pixels per side
_NOISE = 0.12  # standard deviation of the pixel noise, where 1 is the whole range of a channel
_CONTRAST = 0.25  # least distance of foreground and background in at least one channel


def _square(u: Tensor, v: Tensor, half: float) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) < half


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return torch.minimum(u.abs(), v.abs()).lt(0.28) & _square(u, v, 0.95)


def _turned(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return (u + v) * 0.5**0.5, (u - v) * 0.5**0.5


# Which points (u to the right, v down) belong to a shape that fits into [-1, 1] x [-1, 1].
_SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disk": lambda u, v: u * u + v * v < 0.9,
    "ring": lambda u, v: (u * u + v * v - 0.65).abs() < 0.3,
    "square": lambda u, v: _square(u, v, 0.85),
    "frame": lambda u, v: _square(u, v, 0.9) & ~_square(u, v, 0.5),
    "diamond": lambda u, v: _square(*_turned(u, v), 0.75),
    "triangle": lambda u, v: (v < 0.75) & (v > 1.9 * u.abs() - 0.95),
    "cross": _cross,
    "saltire": lambda u, v: _cross(*_turned(u, v)),
    "rows": lambda u, v: _square(u, v, 0.9) & ((v + 0.9) * 2.78 % 2 < 1),
    "columns": lambda u, v: _square(u, v, 0.9) & ((u + 0.9) * 2.78 % 2 < 1),
}


def shapes(
    num_images: int = 5000, split_seed: int = 0, val_fraction: float = 0.15, test_fraction: float = 0.15
) -> Dataset:
    """Return `num_images` RGB images of 32×32 pixels in 10 classes of equal size, one shape per image.

    Position, radius (6 to 12 pixels), rotation (±15°), the colours of shape and background, and the pixel noise are
    random. No single pixel and no colour says anything about the class, so a linear model stays near chance, while a
    small convolutional network learns it. Images and splits depend on `split_seed` alone.

    Raises BadInput when a split would be empty or a class would have no image.
    """
    check_fractions(val_fraction, test_fraction)
    if num_images < len(_SHAPES):
        raise BadInput(f"dataset.num_images={num_images}: must be at least {len(_SHAPES)}, one per class")
    labels = torch.arange(num_images) % len(_SHAPES)
    key = [torch.__version__, num_images, split_seed]
    images = torch.from_numpy(decoded("shapes", key, lambda: {"images": _images(labels, split_seed).numpy()})["images"])
    parts = split_indices(num_images, val_fraction, test_fraction, split_seed)
    train, val, test = (Split(images[part], labels[part]) for part in parts)
    mean, std = channel_statistics(train.inputs)
    source = "drawn by optexp.datasets.shapes"
    return Dataset(
        name="shapes",
        kind="images",
        objective="classification",
        input_shape=(3, _SIZE, _SIZE),
        num_outputs=len(_SHAPES),
        train=train,
        val=val,
        test=test,
        mean=mean,
        std=std,
        details=described(source, train, val, test, split_seed=split_seed, classes=list(_SHAPES)),
    )


def _images(labels: Tensor, split_seed: int) -> Tensor:
    """Draw one image for each label: uint8 [N, 3, 32, 32]. The labels count through the classes, again and again."""
    images = torch.empty(len(labels), 3, _SIZE, _SIZE, dtype=torch.uint8)
    for label, inside in enumerate(_SHAPES.values()):
        count = int((labels == label).sum())
        images[label :: len(_SHAPES)] = _drawn(inside, count, streams.generator(split_seed, "shapes", label))
    return images


def _drawn(inside: Callable[[Tensor, Tensor], Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Return `count` images of one shape: uint8 [count, 3, 32, 32]."""

    def between(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    radius = between(6, 12, 1, 1)
    margin = _SIZE / 2 - radius  # keeps the shape inside the image
    x0, y0 = (_SIZE / 2 + margin * between(-1, 1, 1, 1) for _ in range(2))
    angle = between(-torch.pi / 12, torch.pi / 12, 1, 1)
    pixel = torch.arange(_SIZE) + 0.5
    x, y = (pixel - x0) / radius, (pixel[:, None] - y0) / radius
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    background = between(0, 1, 3)
    foreground = between(0, 1, 3)
    faint = (foreground - background).abs().amax(1, keepdim=True) < _CONTRAST
    foreground = torch.where(faint, (background + 0.5) % 1, foreground)
    images = torch.where(inside(u, v)[:, None], foreground[:, :, None, None], background[:, :, None, None])
    images = images + _NOISE * torch.randn(images.shape, generator=generator)
    return images.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
