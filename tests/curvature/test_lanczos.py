"""Lanczos against spectra that are known, and without its reorthogonalization, which must be noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from optexp.curvature import lanczos as module
from optexp.curvature.lanczos import lanczos, orthogonalized


def with_spectrum(values: Tensor, seed: int = 0) -> Tensor:
    """Return a symmetric matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator))
    return (q * values) @ q.T


def drawing(size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


def product_with(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda vectors: vectors @ matrix


DECAYING = 10 * 0.8 ** torch.arange(300, dtype=torch.float64) - 0.5
CLUSTERED = torch.cat([torch.tensor([7.0, 7.0 - 1e-4, 7.0 - 2e-4, 5.0, 4.999]), torch.linspace(-1, 1, 295)]).double()


NEGATIVE = -1 - 2 * torch.linspace(0, 1, 300, dtype=torch.float64) ** 2


@pytest.mark.parametrize("values", [DECAYING, CLUSTERED, NEGATIVE], ids=["decaying", "clustered", "negative"])
@pytest.mark.parametrize("basis", [100, 20])
def test_the_largest_eigenvalues_of_a_known_spectrum(values: Tensor, basis: int) -> None:
    matrix = with_spectrum(values)
    found = lanczos(product_with(matrix), drawing(300), 5, tolerance=1e-8, max_products=2000, largest_basis=basis)
    assert found.eigenvalues == pytest.approx(values.sort(descending=True).values[:5].tolist(), rel=1e-9, abs=1e-9)
    assert all(found.converged)
    assert found.products < 2000
    assert float(values.min()) - 1e-9 <= found.lowest < 0
    assert float((values - found.lowest).abs().min()) <= found.lowest_residual + 1e-9
    overlaps = found.vectors @ found.vectors.T
    torch.testing.assert_close(overlaps, torch.eye(5, dtype=torch.float64), atol=1e-8, rtol=0)
    measured = (
        found.vectors @ matrix - torch.tensor(found.eigenvalues, dtype=torch.float64)[:, None] * found.vectors
    ).norm(dim=1)
    assert found.residuals == pytest.approx(measured.tolist(), abs=1e-12)


def test_single_precision_gets_as_far_as_it_can() -> None:
    matrix = with_spectrum(DECAYING).float()
    found = lanczos(product_with(matrix), drawing(300, dtype=torch.float32), 5)
    assert found.vectors.dtype == torch.float32
    assert found.eigenvalues == pytest.approx(DECAYING[:5].tolist(), rel=1e-4)
    assert all(found.converged)


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_an_eigenvalue_are_found_in_a_space_that_is_exhausted(seed: int) -> None:
    values = torch.cat([torch.tensor([5.0, 5.0, 5.0, 2.0]), torch.zeros(96)]).double()
    found = lanczos(product_with(with_spectrum(values, seed)), drawing(100, seed), 4, tolerance=1e-8)
    assert found.eigenvalues == pytest.approx([5.0, 5.0, 5.0, 2.0], abs=1e-9)
    assert all(found.converged)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_fewer_eigenvalues_than_were_asked_for(size: int) -> None:
    values = torch.arange(1.0, size + 1, dtype=torch.float64)
    found = lanczos(product_with(with_spectrum(values)), drawing(size), 10, tolerance=1e-8)
    assert found.eigenvalues == pytest.approx(values.flip(0).tolist(), abs=1e-10)
    assert found.lowest == pytest.approx(1.0)


def test_nothing_at_all_has_the_eigenvalue_zero() -> None:
    found = lanczos(product_with(torch.zeros(50, 50, dtype=torch.float64)), drawing(50), 3)
    assert found.eigenvalues == [0.0, 0.0, 0.0]
    assert all(found.converged)


def test_too_few_products_are_told() -> None:
    found = lanczos(product_with(with_spectrum(CLUSTERED)), drawing(300), 5, tolerance=1e-8, max_products=12)
    assert not all(found.converged)
    assert found.products <= 12 + 6
    assert max(found.residuals) > 1e-3


def last_two_only(vector: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The textbook recurrence, which is the same without rounding errors."""
    coefficients = torch.zeros(len(basis), dtype=vector.dtype)
    for index in range(max(len(basis) - 2, 0), len(basis)):
        coefficients[index] = basis[index] @ vector
        vector = vector - coefficients[index] * basis[index]
    return coefficients, vector


def test_without_reorthogonalization_there_are_ghosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dominant eigenvalue appears again among the largest; the flag knows, because the vectors are not orthogonal."""
    values = torch.cat([torch.tensor([100.0, 50.0]), torch.linspace(0, 1, 298)]).double()
    matrix = with_spectrum(values)
    right = lanczos(product_with(matrix), drawing(300), 4, tolerance=1e-10, max_products=90)
    assert right.eigenvalues == pytest.approx([100.0, 50.0, 1.0, float(values[-2])], abs=1e-3)
    monkeypatch.setattr(module, "orthogonalized", last_two_only)
    ghosts = lanczos(product_with(matrix), drawing(300), 4, tolerance=1e-10, max_products=90)
    assert sum(abs(value - 100) < 1e-3 for value in ghosts.eigenvalues) > 1
    assert not all(ghosts.converged)


def test_orthogonalized_twice() -> None:
    """Once is not enough for a vector that lies almost inside."""
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(200, 20, dtype=torch.float64))
    inside = basis @ torch.randn(20, dtype=torch.float64)
    vector = inside + 1e-10 * torch.randn(200, dtype=torch.float64)
    coefficients, rest = orthogonalized(vector, basis.T)
    assert float((basis.T @ rest).abs().max()) < 1e-14 * float(rest.norm())
    torch.testing.assert_close(coefficients @ basis.T + rest, vector)
