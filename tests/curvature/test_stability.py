"""Stability limits against optimizers of torch that walk on quadratics just below and just above them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optexp.curvature.stability import stability


class Point(nn.Module):
    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size, dtype=torch.float64))


def grows(curvature: float, kind: Any, steps: int = 400, **arguments: Any) -> bool:
    """Return whether torch's optimizer moves away from the minimum of curvature · x² / 2."""
    point = Point()
    optimizer = kind(point.parameters(), **arguments)
    for _ in range(steps):
        point.weight.grad = curvature * point.weight.detach()
        optimizer.step()
    return abs(point.weight.item()) > 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"momentum": 0.0},
        {"momentum": 0.0, "dampening": 0.9},  # which torch ignores without momentum
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.9},
        {"momentum": 0.5, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "nesterov": True},
    ],
    ids=str,
)
def test_sgd_is_stable_up_to_the_limit(arguments: dict[str, Any]) -> None:
    lr = 0.1
    point = Point()
    limit = stability(torch.optim.SGD(point.parameters(), lr=lr, **arguments), point).limit(lr)
    assert limit is not None
    assert not grows(0.98 * limit, torch.optim.SGD, lr=lr, **arguments)
    assert grows(1.02 * limit, torch.optim.SGD, lr=lr, **arguments)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (torch.optim.Adam, {"betas": (0.9, 0.999)}),
        (torch.optim.AdamW, {"betas": (0.5, 0.99), "weight_decay": 0.0}),
        (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.RMSprop, {"momentum": 0.0}),
        (torch.optim.RMSprop, {"momentum": 0.9}),
        (torch.optim.Adagrad, {"lr_decay": 0.1}),
    ],
    ids=str,
)
def test_the_preconditioned_limit_is_that_of_the_optimizer_with_its_denominator_held(
    kind: Any, arguments: dict[str, Any]
) -> None:
    """Take a state after some steps, hold the second moments and the step count, and walk on."""
    lr = 0.01
    for factor, expected in ((0.97, False), (1.03, True)):
        point = Point(3)
        optimizer = kind(point.parameters(), lr=lr, **arguments)
        torch.manual_seed(0)
        for _ in range(20):
            point.weight.grad = torch.randn(3, dtype=torch.float64)
            optimizer.step()
        statement = stability(optimizer, point)
        limit = statement.limit(lr)
        assert statement.preconditioner is not None
        assert limit is not None
        curvatures = factor * limit * statement.preconditioner  # all eigenvalues of P^-1/2 H P^-1/2 are at the limit
        state = optimizer.state[point.weight]
        held = {key: value.clone() for key, value in state.items() if key not in ("exp_avg", "momentum_buffer")}
        for key in state.keys() - held.keys():
            state[key].zero_()
        with torch.no_grad():
            point.weight.fill_(1e-12)  # so small that squares of gradients are nothing beside what is held
        furthest = 0.0
        for _ in range(400):
            _step_with_held_denominator(optimizer, point, curvatures * point.weight.detach(), held)
            furthest = max(furthest, float(point.weight.detach().abs().max()))
            if furthest > 1e-9:
                break
        assert (furthest > 1e-9) is expected


def _step_with_held_denominator(
    optimizer: torch.optim.Optimizer, point: Point, gradient: torch.Tensor, held: dict[str, torch.Tensor]
) -> None:
    """Let torch take a step after undoing what this gradient will do to the second moments and the step count."""
    state, group = optimizer.state[point.weight], optimizer.param_groups[0]
    square = gradient.square()
    count = held["step"] - 1
    state["step"] = count.clone()
    if "exp_avg_sq" in held:
        beta2 = group["betas"][1]
        state["exp_avg_sq"] = (held["exp_avg_sq"] - (1 - beta2) * square) / beta2
        if "max_exp_avg_sq" in held:
            state["max_exp_avg_sq"] = held["max_exp_avg_sq"].clone()
    elif "square_avg" in held:
        state["square_avg"] = (held["square_avg"] - (1 - group["alpha"]) * square) / group["alpha"]
    else:
        state["sum"] = held["sum"] - square
    point.weight.grad = gradient
    optimizer.step()


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        (torch.optim.Rprop, {}, "no stability limit is known for Rprop"),
        (torch.optim.NAdam, {}, "no stability limit is known for NAdam"),
        (torch.optim.Adam, {}, "Adam has no state for some parameters yet"),
        (torch.optim.SGD, {"maximize": True}, "SGD with maximize=true climbs"),
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 1.0}, "SGD with dampening=1"),
        (torch.optim.RMSprop, {"centered": True}, "centered=true"),
        (torch.optim.Adagrad, {}, "divides some coordinates by zero"),
    ],
)
def test_where_nothing_is_known_it_says_why(kind: Any, arguments: dict[str, Any], reason: str) -> None:
    point = Point()
    optimizer = kind(point.parameters(), lr=0.1, **arguments)
    if kind is torch.optim.RMSprop:
        point.weight.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
    if kind is torch.optim.Adagrad:
        optimizer.param_groups[0]["eps"] = 0.0
    statement = stability(optimizer, point)
    assert reason in statement.formula
    assert statement.limit(0.1) is None


def test_numbers_of_the_literature() -> None:
    point = Point()
    sgd = stability(torch.optim.SGD(point.parameters(), lr=1, momentum=0.9, dampening=0.9), point)
    assert sgd.limit(1e-4) == pytest.approx(2 * 1.9 / (1e-4 * 0.1))
    adam = torch.optim.Adam(point.parameters(), lr=1e-3)
    point.weight.grad = torch.ones(1, dtype=torch.float64)
    adam.step()
    assert stability(adam, point).limit(1e-3) == pytest.approx(38_000)  # 38/lr, arXiv 2207.14484
    assert stability(adam, point).limit(0.0) is None
