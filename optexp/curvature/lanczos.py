"""The largest eigenvalues of a symmetric operator that is known by its products with vectors only.

Lanczos' method with full reorthogonalization and thick restarts: every product is orthogonalized, twice, against the
whole basis, because without it rounding errors let converged eigenvalues appear again as "ghosts"; and when the basis
is full, the best Ritz vectors begin the next one, so that memory stays bounded.

Sources: Golub & Van Loan, "Matrix Computations", 4th ed., section 10.3; Wu & Simon, "Thick-Restart Lanczos Method for
Large Symmetric Eigenvalue Problems", SIAM J. Matrix Anal. Appl. 22 (2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""The operator: vectors [k, P] to its product with each of them, [k, P]."""

LARGEST_BASIS = 100
"""Vectors; fewer where they would take more than BASIS_BYTES."""

BASIS_BYTES = 2**31


@dataclass(frozen=True)
class Spectrum:
    """What was found of a spectrum.

    `eigenvalues` are the largest ones, descending, [k]; `residuals` are ‖H v − λ v‖ for unit vectors `vectors` [k, P],
    each from a product made for this: within so much of λ there is an eigenvalue. `lowest` is the smallest Ritz value,
    an upper bound of the smallest eigenvalue, with its residual. `converged` tells for each of the largest whether its
    residual is at most the tolerance times the largest absolute eigenvalue.
    """

    eigenvalues: list[float]
    residuals: list[float]
    converged: list[bool]
    lowest: float
    lowest_residual: float
    vectors: Tensor
    products: int


def lanczos(
    product: Product,
    draw: Callable[[], Tensor],
    count: int,
    tolerance: float = 1e-3,
    max_products: int = 300,
    largest_basis: int = LARGEST_BASIS,
) -> Spectrum:
    """Return the `count` algebraically largest eigenvalues, or all when there are no more.

    `draw` returns random vectors [P], in whose type all is computed: the start, and a new one wherever the space that
    a start spans is exhausted. Ends when the residuals of all are below `tolerance` times the largest absolute
    eigenvalue, or after about `max_products` products. Copies of a multiple eigenvalue are all found where the space
    is exhausted, as that of a low rank is; else rounding decides how many of them are.
    """
    basis = _Basis(product, draw, count, largest_basis)
    while True:
        basis.extend()
        if basis.products >= max_products or basis.is_whole:
            break
        if (basis.filled - count) % 4 == 0 and basis.filled > count and basis.has_converged(0.5 * tolerance):
            break
        if basis.is_full:
            basis.restart()
    return basis.result(tolerance)


class _Basis:
    """An orthonormal basis, and the operator projected on the space that it spans."""

    def __init__(self, product: Product, draw: Callable[[], Tensor], count: int, largest: int) -> None:
        self.product, self.draw = product, draw
        start = draw()
        size = len(start)
        self.count = min(count, size)
        bytes_of_one = size * start.element_size()
        self.room = min(size, max(2 * self.count + 6, min(largest, BASIS_BYTES // bytes_of_one)))
        self.vectors = start.new_empty(self.room + 1, size)  # rows
        self.vectors[0] = start / start.norm()
        self.projected = torch.zeros(self.room, self.room, dtype=torch.float64)
        self.filled = 0  # rows whose product is known; the next one is waiting
        self.products = 0
        self.rest = 0.0  # how much of the last product lies outside of the space
        self.exhausted = 0  # how often nothing did
        self.rounding = torch.finfo(start.dtype).eps ** 0.75

    @property
    def is_full(self) -> bool:
        return self.filled == self.room

    @property
    def is_whole(self) -> bool:
        """Whether the basis spans everything, so that its eigenvalues are those of the operator."""
        return self.filled == self.vectors.shape[1]

    def extend(self) -> None:
        """Take the product with the vector that is waiting, and let what is new in it wait next."""
        image = self.product(self.vectors[self.filled : self.filled + 1])[0]
        self.products += 1
        self.filled += 1
        coefficients, rest = orthogonalized(image, self.vectors[: self.filled])
        row = coefficients.double().cpu()
        self.projected[self.filled - 1, : self.filled] = row
        self.projected[: self.filled, self.filled - 1] = row
        self.rest = float(rest.norm())
        if self.is_whole:
            self.rest = 0.0
        elif self.rest <= self.rounding * float(self.projected.abs().max()):
            self.exhausted += 1
            self.rest = 0.0
            _, rest = orthogonalized(self.draw(), self.vectors[: self.filled])
        if self.filled < len(self.vectors):
            self.vectors[self.filled] = rest / rest.norm()

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Return Ritz values, ascending, and the coordinates of their vectors in the basis, as columns."""
        return torch.linalg.eigh(self.projected[: self.filled, : self.filled])

    def has_converged(self, tolerance: float) -> bool:
        """Return whether the residuals of the largest Ritz values are small.

        An exhausted space has one copy of each eigenvalue, and says nothing of a second: as many spaces are needed as
        there may be copies.
        """
        if 0 < self.exhausted < self.count:
            return False
        values, columns = self.ritz()
        residuals = self.rest * columns[-1, -self.count :].abs()
        return bool((residuals <= tolerance * values.abs().max()).all())

    def restart(self) -> None:
        """Keep the best Ritz vectors of a full basis, and the vector that is waiting."""
        values, columns = self.ritz()
        top = (self.room + self.count) // 2
        chosen = torch.cat([torch.arange(2), torch.arange(self.room - top, self.room)]).unique()
        kept = len(chosen)
        self.vectors[:kept] = columns[:, chosen].T.to(self.vectors) @ self.vectors[: self.room]
        self.vectors[kept] = self.vectors[self.room]
        self.projected.zero_()
        self.projected.diagonal()[:kept] = values[chosen]
        self.filled = kept

    def result(self, tolerance: float) -> Spectrum:
        """Return the largest Ritz values and the smallest, with residuals measured anew."""
        _, columns = self.ritz()
        count = min(self.count, self.filled)
        chosen = torch.cat([columns[:, :1], columns[:, -count:].flip(1)], 1)
        vectors = chosen.T.to(self.vectors) @ self.vectors[: self.filled]
        vectors /= vectors.norm(dim=1, keepdim=True)
        images = self.product(vectors)
        values = (vectors * images).sum(1)
        residuals = (images - values[:, None] * vectors).norm(dim=1).tolist()
        scale = float(values.abs().max())
        overlaps = (vectors[1:] @ vectors[1:].T - torch.eye(count).to(vectors)).abs().amax(1).tolist()
        numbers = values.tolist()
        return Spectrum(
            numbers[1:],
            residuals[1:],
            [
                residual <= max(tolerance, self.rounding) * scale and overlap < 1e-2
                for residual, overlap in zip(residuals[1:], overlaps, strict=True)
            ],
            numbers[0],
            residuals[0],
            vectors[1:],
            self.products + len(vectors),
        )


def orthogonalized(vector: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coordinates of a vector [P] in an orthonormal basis [j, P], and what remains outside of it.

    Twice is enough: Giraud, Langou & Rozložník, "The loss of orthogonality in the Gram-Schmidt process", 2005.
    """
    first = basis @ vector
    rest = vector - first @ basis
    second = basis @ rest
    return first + second, rest - second @ basis
