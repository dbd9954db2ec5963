"""Hessian products, eigenvalues and traces of small networks against their dense Hessians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import NETWORKS, dense_hessian, perceptron
from torch import Tensor, nn

from optexp import streams
from optexp.curvature.lanczos import lanczos
from optexp.curvature.loss import MeanLoss
from optexp.curvature.trace import trace
from optexp.datasets.batches import Batch
from optexp.engine.objective import Objective
from optexp.engine.runtime import Precision
from optexp.errors import BadInput


def signs(size: int, seed: int = 0) -> Callable[[], Tensor]:
    generator = streams.generator(seed, "signs")
    return lambda: (2 * torch.randint(2, (size,), generator=generator) - 1).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_against_the_dense_hessian(name: str) -> None:
    loss = NETWORKS[name]()
    hessian = dense_hessian(loss)
    assert loss.size == len(hessian) > 50
    torch.manual_seed(5)
    vectors = torch.randn(3, loss.size, dtype=torch.float64)
    torch.testing.assert_close(loss.hessian_products(vectors), vectors @ hessian, atol=1e-10, rtol=1e-8)
    exact = torch.linalg.eigvalsh(hessian).flip(0)
    found = lanczos(loss.hessian_products, lambda: torch.randn(loss.size, dtype=torch.float64), 5, tolerance=1e-4)
    assert all(found.converged)
    assert found.eigenvalues == pytest.approx(exact[:5].tolist(), rel=0.01)
    assert found.eigenvalues[0] == pytest.approx(float(exact[0]), rel=1e-6)
    assert found.lowest >= float(exact[-1]) - 1e-9


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("known", [False, True], ids=["plain", "deflated"])
def test_traces_lie_within_their_errors(name: str, known: bool) -> None:
    """Over 40 estimates: their mean, and how far they scatter in units of the error each claims."""
    loss = NETWORKS[name]()
    hessian = dense_hessian(loss)
    exact = float(hessian.trace())
    vectors = torch.linalg.eigh(hessian).eigenvectors[:, -5:].T.flip(0) if known else None
    found = [trace(lambda v: v @ hessian, signs(loss.size, seed), 30, vectors) for seed in range(40)]
    distances = torch.tensor([(estimate - exact) / error for estimate, error in found])
    assert abs(float(distances.mean())) < 4 / 40**0.5
    assert 0.7 < float(distances.std()) < 1.4
    estimate, error = trace(loss.hessian_products, signs(loss.size), 30, vectors)
    assert abs(estimate - exact) < 4 * error


@pytest.mark.parametrize("known", [False, True], ids=["plain", "deflated"])
def test_the_error_of_a_trace_has_its_closed_form(known: bool) -> None:
    """The variance of one draw of signs is 2 (‖A‖² − Σ A_ii²), A being the part that is not known."""
    loss = perceptron()
    hessian = dense_hessian(loss)
    vectors = torch.linalg.eigh(hessian).eigenvectors[:, -8:].T
    outside = torch.eye(loss.size, dtype=torch.float64) - (vectors.T @ vectors if known else 0)
    part = outside @ hessian @ outside
    variance = 2 * (part.square().sum() - part.diagonal().square().sum())
    _, error = trace(lambda v: v @ hessian, signs(loss.size), 2000, vectors if known else None)
    assert error == pytest.approx(float(variance / 2000) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_and_value(name: str) -> None:
    """The slope along the gradient is its squared norm; the curvature along a vector that of the products."""
    loss = NETWORKS[name]()
    weights, gradient = loss.weights(), loss.gradient()
    values = []
    for step in (-1e-4, 0.0, 1e-4):
        with loss.at(weights + step * gradient / gradient.norm()):
            values.append(loss.value())
    assert (values[2] - values[0]) / 2e-4 == pytest.approx(float(gradient.norm()), rel=1e-5)
    torch.testing.assert_close(loss.weights(), weights, rtol=0, atol=0)


def test_the_model_is_in_evaluation_mode() -> None:
    """Its running statistics stay, and two evaluations are equal although the network drops."""
    loss = NETWORKS["convolutional"]()
    before = {name: buffer.clone() for name, buffer in loss.model.named_buffers()}
    assert loss.value() == loss.value()
    loss.hessian_products(torch.ones(1, loss.size, dtype=torch.float64))
    for name, buffer in loss.model.named_buffers():
        torch.testing.assert_close(buffer, before[name], rtol=0, atol=0)


def test_a_quadratic_has_the_hessian_of_its_data() -> None:
    """Linear regression by the mean squared error: 2/N Xᵀ X, and no curvature in the bias of an unused output."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 3, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False).double()
    batches = [Batch(x[:25], y[:25]), Batch(x[25:], y[25:])]
    loss = MeanLoss(model, Objective("regression"), batches, Precision("fp64", torch.device("cpu")))
    hessian = 2 / 40 * x.T @ x
    torch.testing.assert_close(loss.hessian_products(torch.eye(3, dtype=torch.float64)), hessian)
    exact = torch.linalg.eigvalsh(hessian).flip(0).tolist()
    found = lanczos(loss.hessian_products, lambda: torch.randn(3, dtype=torch.float64), 3)
    assert found.eigenvalues == pytest.approx(exact, rel=1e-10)


class Unused(nn.Module):
    """One weight enters linearly, one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.used


class Total:
    """A loss that is linear in the outputs."""

    def count(self, targets: Tensor) -> int:
        return len(targets)

    def loss(self, outputs: Tensor, targets: Tensor, count: int) -> Tensor:
        return outputs.sum() / count


def test_weights_without_curvature_have_none() -> None:
    batch = Batch(torch.ones(4, 2), torch.zeros(4))
    loss = MeanLoss(Unused(), Total(), [batch], Precision("fp32", torch.device("cpu")))  # type: ignore[arg-type]
    assert loss.hessian_products(torch.ones(2, 5)).tolist() == [[0.0] * 5] * 2
    assert loss.gradient().tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]


class Squares(Total):
    def loss(self, outputs: Tensor, targets: Tensor, count: int) -> Tensor:
        return outputs.square().sum() / count


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


class Cubes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return OnceOnly.apply(x * self.weight)


def test_an_operation_without_a_second_derivative_is_refused() -> None:
    batch = Batch(torch.ones(4, 2), torch.zeros(4))
    loss = MeanLoss(Cubes(), Squares(), [batch], Precision("fp32", torch.device("cpu")))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="model: has an operation without a second derivative"):
        loss.hessian_products(torch.ones(1, 2))


def test_other_errors_of_torch_stay_what_they_are() -> None:
    batch = Batch(torch.ones(4, 3), torch.zeros(4))
    loss = MeanLoss(Cubes(), Squares(), [batch], Precision("fp32", torch.device("cpu")))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="size of tensor"):
        loss.hessian_products(torch.ones(1, 2))
