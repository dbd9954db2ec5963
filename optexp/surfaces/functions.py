"""The surfaces: functions of two parameters with known minima, where each is looked at, and where paths start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Pair = tuple[float, float]


@dataclass(frozen=True)
class Surface:
    """A function f [..., 2] → [...] whose least value is 0.

    `x` and `y` are the borders of its picture. `noise` is the standard deviation of what is added to each component of
    the gradient; the loss that is reported has none.
    """

    name: str
    formula: str
    f: Callable[[Tensor], Tensor]
    minima: tuple[Pair, ...]
    starts: tuple[Pair, ...]
    x: Pair
    y: Pair
    noise: float = 0.0


_COS, _SIN = math.cos(math.pi / 6), math.sin(math.pi / 6)


def _ravine(p: Tensor) -> Tensor:
    x, y = p.unbind(-1)
    along, across = _COS * x + _SIN * y, _COS * y - _SIN * x
    return 0.5 * (along**2 + 100 * across**2)


def _saddle(p: Tensor) -> Tensor:
    x, y = p.unbind(-1)
    return 0.5 * x**2 - 0.5 * y**2 + 0.25 * y**4 + 0.25


def _beale(p: Tensor) -> Tensor:
    x, y = p.unbind(-1)
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _rosenbrock(p: Tensor) -> Tensor:
    x, y = p.unbind(-1)
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def _bowl(p: Tensor) -> Tensor:
    x, y = p.unbind(-1)
    return 0.5 * (x**2 + 10 * y**2)


SURFACES = {
    surface.name: surface
    for surface in (
        Surface(
            name="ravine",
            # Turned, because a ravine along an axis is a gift to rules that scale each coordinate by itself.
            formula="½ (u² + 100 v²), u and v turned by 30° against the axes: curvatures 1 and 100",
            f=_ravine,
            minima=((0.0, 0.0),),
            starts=((-8.0, -3.5), (-5.0, -4.5), (6.0, 5.0), (4.5, 1.5)),
            x=(-10.0, 10.0),
            y=(-6.5, 6.5),
        ),
        Surface(
            name="saddle",
            formula="½ x² − ½ y² + ¼ y⁴ + ¼: a saddle at (0, 0), starts a thousandth beside its ridge",
            f=_saddle,
            minima=((0.0, -1.0), (0.0, 1.0)),
            starts=((-1.8, 1e-3), (-1.2, -1e-3), (1.8, -1e-3), (1.2, 1e-3)),
            x=(-2.2, 2.2),
            y=(-1.6, 1.6),
        ),
        Surface(
            name="beale",
            formula="(1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)² (Beale, 1958)",
            f=_beale,
            minima=((3.0, 0.5),),
            starts=((1.0, 1.2), (0.0, -1.0), (-1.0, 1.3), (4.0, -0.5)),
            x=(-2.5, 4.5),
            y=(-2.2, 2.2),
        ),
        Surface(
            name="rosenbrock",
            formula="(1 − x)² + 100 (y − x²)² (Rosenbrock, 1960)",
            f=_rosenbrock,
            minima=((1.0, 1.0),),
            starts=((-1.2, 1.0), (0.0, 2.0), (-0.5, -0.5), (1.5, 0.0)),
            x=(-2.0, 2.0),
            y=(-1.0, 3.0),
        ),
        Surface(
            name="noisy_quadratic",
            formula="½ (x² + 10 y²), gradients with normal noise of standard deviation 2 (losses without)",
            f=_bowl,
            minima=((0.0, 0.0),),
            starts=((-4.0, 1.5), (-3.0, -2.0), (3.5, 2.0), (4.0, -1.0)),
            x=(-5.0, 5.0),
            y=(-3.0, 3.0),
            noise=2.0,
        ),
    )
}


def heights(surface: Surface, points_per_side: int = 160) -> tuple[list[float], list[float], list[list[float]]]:
    """Return a surface over its picture: places along x, along y, and f at [y][x]."""
    x, y = (torch.linspace(*side, points_per_side, dtype=torch.float64) for side in (surface.x, surface.y))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    return x.tolist(), y.tolist(), surface.f(grid).tolist()
