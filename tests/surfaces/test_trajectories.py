"""Paths: torch's own optimizers take the steps, alone or together, each with the same budget of gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn

from optexp.surfaces.functions import SURFACES, Surface
from optexp.surfaces.trajectories import ELEMENTWISE, descend, noise

STARTS = torch.tensor([[1.0, -0.5], [-2.0, 0.3], [0.4, 0.6]], dtype=torch.float64)
RATES = [0.001, 0.003]

OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "torch.SGD": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    "torch.Adagrad": (torch.optim.Adagrad, {"lr_decay": 0.1}),
    "torch.RMSprop": (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    "torch.Adadelta": (torch.optim.Adadelta, {}),
    "torch.ASGD": (torch.optim.ASGD, {}),
    "torch.Rprop": (torch.optim.Rprop, {}),
    "torch.Adam": (torch.optim.Adam, {"amsgrad": True}),
    "torch.AdamW": (torch.optim.AdamW, {"fused": True}),
    "torch.NAdam": (torch.optim.NAdam, {}),
    "torch.RAdam": (torch.optim.RAdam, {}),
    "torch.Adamax": (torch.optim.Adamax, {}),
    "pytorch_optimizer.Lion": (pytorch_optimizer.Lion, {}),
    "pytorch_optimizer.ScheduleFreeAdamW": (pytorch_optimizer.ScheduleFreeAdamW, {}),
    "pytorch_optimizer.SophiaH": (pytorch_optimizer.SophiaH, {"update_period": 100}),
}


def maker(name: str) -> Callable[[nn.Module, float], Any]:
    target, arguments = OPTIMIZERS[name]
    return lambda module, lr: target(module.parameters(), lr=lr, **arguments)


def plain_path(surface: Surface, name: str, rate: float, start: Tensor, steps: int) -> Tensor:
    """Return what torch's ordinary loop gives, one start alone."""
    target, arguments = OPTIMIZERS[name]
    place = nn.Parameter(start.clone())
    optimizer = target([place], lr=rate, **arguments)
    points = [start.clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        surface.f(place).backward()
        optimizer.step()
        points.append(place.detach().clone())
    return torch.stack(points)


def test_every_optimizer_that_shares_a_tensor_is_tested_here() -> None:
    assert set(OPTIMIZERS) == ELEMENTWISE


@pytest.mark.parametrize(
    "name", [name for name in OPTIMIZERS if name.startswith("torch.")] + ["pytorch_optimizer.Lion"]
)
def test_paths_are_those_of_an_ordinary_loop(name: str) -> None:
    surface = SURFACES["beale"]
    found = descend(surface, maker(name), RATES, STARTS, 40)
    assert found.points.shape == (2, 41, 3, 2)
    for row, rate in enumerate(RATES):
        for column, start in enumerate(STARTS):
            expected = plain_path(surface, name, rate, start, 40)
            torch.testing.assert_close(found.points[row, :, column], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.losses, surface.f(found.points))


@pytest.mark.parametrize("name", ["pytorch_optimizer.ScheduleFreeAdamW", "torch.Adam", "torch.Rprop"])
def test_together_and_alone_are_the_same(name: str) -> None:
    surface = SURFACES["rosenbrock"]
    added = noise(SURFACES["noisy_quadratic"], 0, "test", 30, 3)
    together = descend(surface, maker(name), RATES, STARTS, 30, added)
    alone = descend(surface, maker(name), RATES, STARTS, 30, added, together=False)
    torch.testing.assert_close(together.points, alone.points, rtol=1e-10, atol=1e-12)


def test_schedule_free_paths_are_of_the_averages() -> None:
    """By hand: z moves, x averages, gradients at y; weights are 1/t, as at a constant learning rate."""
    surface, lr, beta, beta2, eps = SURFACES["noisy_quadratic"], 0.1, 0.9, 0.999, 1e-8
    found = descend(surface, maker("pytorch_optimizer.ScheduleFreeAdamW"), [lr], STARTS[:1], 20).points[0, :, 0]
    z = x = STARTS[0]
    v = torch.zeros(2, dtype=torch.float64)
    scale = torch.tensor([1.0, 10.0], dtype=torch.float64)
    for step in range(1, 21):
        gradient = scale * ((1 - beta) * z + beta * x)
        v = beta2 * v + (1 - beta2) * gradient**2
        z = z - lr * gradient / ((v / (1 - beta2**step)).sqrt() + eps)
        x = x + (z - x) / step
        torch.testing.assert_close(found[step], x, rtol=1e-6, atol=1e-9)


def test_sophia_gets_its_curvatures() -> None:
    """On a quadratic without mixed terms a Rademacher estimate of the diagonal is exact: the step is that by hand."""
    make = lambda module, lr: pytorch_optimizer.SophiaH(  # noqa: E731
        module.parameters(), lr=lr, p=1.0, update_period=1, hessian_distribution="rademacher", weight_decay=0.0
    )
    found = descend(SURFACES["noisy_quadratic"], make, [0.1], STARTS, 1).points[0, 1]
    scale = torch.tensor([1.0, 10.0], dtype=torch.float64)
    update = (0.04 * scale * STARTS) / (0.01 * scale)
    torch.testing.assert_close(found, STARTS - 0.1 * update.clamp(-1, 1), rtol=1e-6, atol=1e-9)


def test_the_budget_is_counted_in_gradients() -> None:
    counted = 0

    def count(place: Tensor) -> Tensor:
        nonlocal counted
        counted += place.dim() == 1  # of one optimizer alone
        return SURFACES["rosenbrock"].f(place)

    surface = Surface("counted", "", count, ((1.0, 1.0),), ((-1.2, 1.0),), (-2, 2), (-2, 2))
    make = lambda module, lr: torch.optim.LBFGS(module.parameters(), lr=lr, max_iter=4, line_search_fn="strong_wolfe")  # noqa: E731
    found = descend(surface, make, [1.0], STARTS[:1], 30)
    assert 30 <= counted < 30 + found.evaluations
    assert 4 <= found.evaluations <= 6
    moves = (found.points[0, 1:, 0] != found.points[0, :-1, 0]).any(-1)
    # No step counts before it is paid for: the first at the earliest after its four gradients.
    assert not moves[:3].any()
    assert 5 <= int(moves.sum()) <= 7


def test_a_lost_path_leaves_the_others_alone() -> None:
    starts = torch.tensor([[1e200, 1e200], [1.0, 1.2]], dtype=torch.float64)
    found = descend(SURFACES["beale"], maker("torch.SGD"), [0.001], starts, 20)
    assert not found.losses[0, -1, 0].isfinite()
    torch.testing.assert_close(
        found.points[0, :, 1], plain_path(SURFACES["beale"], "torch.SGD", 0.001, starts[1], 20), rtol=1e-10, atol=0
    )


def test_noise_is_the_same_for_all_and_another_for_judging() -> None:
    surface = SURFACES["noisy_quadratic"]
    first = noise(surface, 0, "tuning", 500, 4)
    assert first is not None
    assert torch.equal(first, noise(surface, 0, "tuning", 500, 4))  # type: ignore[arg-type]
    assert not torch.equal(first, noise(surface, 0, "judging", 500, 4))  # type: ignore[arg-type]
    assert not torch.equal(first, noise(surface, 1, "tuning", 500, 4))  # type: ignore[arg-type]
    assert float(first.std()) == pytest.approx(surface.noise, rel=0.05)
    assert noise(SURFACES["ravine"], 0, "tuning", 5, 4) is None


def test_effective_learning_rates() -> None:
    make = lambda module, lr: torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9, dampening=0.5)  # noqa: E731
    assert descend(SURFACES["ravine"], make, RATES, STARTS, 1).effective_lrs == pytest.approx(
        [5 * rate for rate in RATES]
    )
    assert math.isclose(descend(SURFACES["ravine"], maker("torch.Adam"), [0.1], STARTS, 1).effective_lrs[0], 0.1)
