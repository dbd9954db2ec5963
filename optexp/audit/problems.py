"""Problems whose gradient and curvature are closed forms, so that no model, data or autograd stands between.

At step t the loss of a parameter w is `sum(½ a_t (w - c)² + b_t w)`: its gradient is `a_t (w - c) + b_t` and the
diagonal of its Hessian `a_t`. Arithmetic is NumPy's in float64, for the optimizer and for the published rule alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SHAPES = ((4, 3), (5,))
"""A matrix, because some rules treat matrices in their own way, and a vector."""


@dataclass(frozen=True)
class Problem:
    """Parameters with start, centre c, curvature `a(i, t)` and slope `b(i, t)` of parameter i at step t = 1, 2, …"""

    name: str
    starts: tuple[Array, ...]
    centers: tuple[Array, ...]
    curvature: Callable[[int, int], Array]
    slope: Callable[[int, int], Array]

    def gradient(self, index: int, weights: Array, step: int) -> Array:
        return self.curvature(index, step) * (weights - self.centers[index]) + self.slope(index, step)

    def loss(self, weights: list[Any], step: int) -> Any:
        """Return the loss of all parameters; `weights` are arrays, or tensors where autograd is to follow."""
        total: Any = 0.0
        for index, own in enumerate(weights):
            a, b, c = self.curvature(index, step), self.slope(index, step), self.centers[index]
            if not isinstance(own, np.ndarray):
                a, b, c = (own.new_tensor(part) for part in (a, b, c))
            total = total + (0.5 * a * (own - c) ** 2 + b * own).sum()
        return total

    def of_shapes(self, keep: Callable[[tuple[int, ...]], bool]) -> Problem:
        """Return the problem of those parameters whose shape is to be kept."""
        kept = [index for index, start in enumerate(self.starts) if keep(start.shape)]
        return Problem(
            self.name,
            tuple(self.starts[index] for index in kept),
            tuple(self.centers[index] for index in kept),
            lambda index, step: self.curvature(kept[index], step),
            lambda index, step: self.slope(kept[index], step),
        )

    def twice(self) -> Problem:
        """Return the problem with every parameter there twice: the second half for a second parameter group."""
        number = len(self.starts)
        return Problem(
            self.name,
            self.starts * 2,
            self.centers * 2,
            lambda index, step: self.curvature(index % number, step),
            lambda index, step: self.slope(index % number, step),
        )


def _numbers(seed: int, low: float, high: float) -> tuple[Array, ...]:
    """Return an array of each shape with numbers of both signs, none near 0: nothing may hide behind a zero."""
    draw = np.random.default_rng(seed)
    return tuple(draw.uniform(low, high, shape) * draw.choice([-1.0, 1.0], shape) for shape in SHAPES)


_STARTS = _numbers(0, 0.6, 1.9)
_CENTERS = _numbers(1, 0.1, 0.5)
_CURVATURES = tuple(np.abs(part) for part in _numbers(2, 0.5, 2.0))
_SLOPES = _numbers(3, 0.2, 1.5)
_NOTHING = tuple(np.zeros(shape) for shape in SHAPES)


def constant_gradient() -> Problem:
    """The gradient never changes: a momentum buffer fills up, an adaptive step settles."""
    return Problem("constant gradient", _STARTS, _CENTERS, lambda i, t: _NOTHING[i], lambda i, t: _SLOPES[i])


def flipping_gradient(flip: int) -> Problem:
    """The gradient is constant and changes its sign after `flip` steps: what remembers goes on for a while."""
    return Problem(
        "flipping gradient",
        _STARTS,
        _CENTERS,
        lambda i, t: _NOTHING[i],
        lambda i, t: _SLOPES[i] if t <= flip else -_SLOPES[i],
    )


def zero_gradient() -> Problem:
    """There is nothing to learn: only weight decay may move a weight."""
    return Problem("zero gradient", _STARTS, _CENTERS, lambda i, t: _NOTHING[i], lambda i, t: _NOTHING[i])


def quadratic() -> Problem:
    """Independent scalar quadratics with curvatures of 0.5 to 2."""
    return Problem("quadratic", _STARTS, _CENTERS, lambda i, t: _CURVATURES[i], lambda i, t: _NOTHING[i])


@cache
def sparse_gradient() -> Problem:
    """A quadratic that each element sees only every first to fourth step, with a drift; every tenth gradient is large.

    The rare ones are what tells adaptive rules apart, and what a clipped or maximal second moment is for.
    """

    @cache
    def seen(index: int, step: int) -> Array:
        size = int(np.prod(SHAPES[index]))
        mask = (step % (1 + np.arange(size) % 4) == 0).astype(np.float64).reshape(SHAPES[index])
        return mask * (20.0 if step % 10 == 0 else 1.0)

    @cache
    def slope(index: int, step: int) -> Array:
        phase = np.arange(int(np.prod(SHAPES[index]))).reshape(SHAPES[index])
        return seen(index, step) * 0.4 * np.sin(1.7 * step + 0.9 * phase)

    return Problem("sparse gradient", _STARTS, _CENTERS, lambda i, t: 0.2 * seen(i, t) * _CURVATURES[i], slope)
