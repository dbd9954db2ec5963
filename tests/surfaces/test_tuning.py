"""The learning rate that is chosen is the best of the grid, and what is said of it is counted right."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from optexp.surfaces.contestants import Contestant
from optexp.surfaces.functions import SURFACES
from optexp.surfaces.tuning import Effort, Outcome, compare, grid

SGD = Contestant("sgd", torch.optim.SGD, {"momentum": 0.0})


def effort(rates: list[float], **changes: Any) -> Effort:
    return Effort(**{"rates": rates, "steps": 50, "realizations": 2, "threshold": 0.1, "seed": 0} | changes)


def test_the_grid_is_even_in_its_logarithm() -> None:
    assert grid(1e-3, 10, 5) == [0.001, 0.01, 0.1, 1.0, 10.0]
    assert grid(0.2, 10, 1) == [0.2]
    assert grid(1e-4, 10, 16)[1:3] == [0.000215, 0.000464]


def test_the_best_learning_rate_is_that_of_theory() -> None:
    """On the ravine the final loss is a sum of (1 - lr)^2T and (1 - 100 lr)^2T: least just below 2 / 101."""
    found = compare(SURFACES["ravine"], SGD, effort([0.001, 0.005, 0.0195, 0.0202, 0.1]))
    assert (found.lr, found.on_edge) == (0.0195, None)
    for rate, loss in found.tuning.items():
        expected = []
        for x, y in SURFACES["ravine"].starts:
            cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
            u, v = cos * x + sin * y, cos * y - sin * x
            expected.append(0.5 * ((u * (1 - rate) ** 50) ** 2 + 100 * (v * (1 - 100 * rate) ** 50) ** 2))
        assert loss == pytest.approx(sum(expected) / 4, rel=1e-8)


def test_divergence_is_a_result() -> None:
    found = compare(SURFACES["rosenbrock"], SGD, effort([1.0, 10.0]))
    summary = found.summary()
    assert (found.lr, found.on_edge) == (1.0, "low")
    assert found.tuning == {1.0: math.inf, 10.0: math.inf}
    assert (summary["diverged"], summary["final_loss"], summary["final_loss_sd"]) == (4, math.inf, None)
    assert summary["steps_to_threshold"] is None
    above = compare(SURFACES["ravine"], SGD, effort([0.021]))  # finite, and above where it began
    assert above.diverged == [True] * 4
    assert above.on_edge is None


def test_noise_decides_on_other_paths_than_it_judges() -> None:
    found = compare(SURFACES["noisy_quadratic"], SGD, effort([0.01, 0.05], realizations=3))
    assert found.losses.shape == (51, 12)
    assert len(set(found.final)) == 12
    assert found.summary()["final_loss"] != found.tuning[found.lr]


def test_times_and_spreads_are_counted_per_path() -> None:
    losses = torch.tensor([[10.0, 4.0, 8.0], [5.0, 0.4, 8.0], [1.0, 0.1, 9.0]], dtype=torch.float64)
    found = Outcome("o", "s", 0.1, 0.1, None, {}, torch.zeros(3, 3, 2), losses, 1, 0.1)
    assert found.arrivals == [2, 1, None]
    assert found.diverged == [False, False, True]
    summary = found.summary()
    assert (summary["arrived"], summary["paths"], summary["steps_to_threshold"]) == (2, 3, 1.5)
    assert summary["final_loss"] == pytest.approx((1 + 0.1 + 9) / 3)
    assert summary["final_loss_sd"] == pytest.approx(torch.tensor([1, 0.1, 9]).std().item())
