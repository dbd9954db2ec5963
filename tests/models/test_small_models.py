"""MLP and linear model: sizes, what they take, and what they can learn."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from optexp.errors import BadInput
from optexp.models.linear import Linear
from optexp.models.mlp import MLP


@pytest.mark.parametrize("input_shape", [(1, 8, 8), (3, 5, 7), (12,)])
@pytest.mark.parametrize("hidden", [[], [7], [128, 128]])
def test_mlp_shapes_and_parameter_count(input_shape: tuple[int, ...], hidden: list[int]) -> None:
    model = MLP(input_shape, 10, hidden)
    assert model(torch.randn(4, *input_shape)).shape == (4, 10)
    widths = [torch.Size(input_shape).numel(), *hidden, 10]
    expected = sum((before + 1) * after for before, after in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.parameters()) == expected


def test_mlp_is_affine_maps_with_relu_between() -> None:
    model = MLP((1, 2, 3), 4, [5]).double()
    x = torch.randn(7, 1, 2, 3, dtype=torch.float64)
    w1, b1, w2, b2 = model.parameters()
    torch.testing.assert_close(model(x), (x.view(7, 6) @ w1.T + b1).clamp(min=0) @ w2.T + b2)


def test_mlp_width_below_one() -> None:
    with pytest.raises(BadInput, match=r"^model\.hidden=\[8, 0\]: every width must be at least 1$"):
        MLP((4,), 2, [8, 0])


def test_linear_is_an_affine_map() -> None:
    model = Linear((2, 3), 4).double()
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    weight, bias = model.parameters()
    assert sum(p.numel() for p in model.parameters()) == 4 * 7
    torch.testing.assert_close(model(x), x.view(7, 6) @ weight.T + bias)


def test_linear_finds_the_line() -> None:
    torch.manual_seed(0)
    model = Linear((1,), 1)
    x = torch.linspace(-1, 1, 50).view(-1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        F.mse_loss(model(x), 2 * x + 1).backward()
        optimizer.step()
    assert [p.item() for p in model.parameters()] == [pytest.approx(2, abs=1e-4), pytest.approx(1, abs=1e-4)]


def test_mlp_fits_a_fixed_batch() -> None:
    torch.manual_seed(0)
    model = MLP((1, 8, 8), 10, [32])
    x, y = torch.randn(32, 1, 8, 8), torch.randint(0, 10, (32,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_one_seed_one_model() -> None:
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        weights.append(torch.cat([p.flatten() for p in MLP((4,), 2).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
