"""What is peculiar to stacked Adam and AdamW."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from races import Race
from torch import nn

from optexp.optimizers.stacked.adam import Adam

SETTINGS = {
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "amsgrad": False,
    "maximize": False,
    "decoupled_weight_decay": False,
}


def after(gradients: list[float], *members: dict[str, Any], by_kernel: bool) -> list[float]:
    """Return the weights, 2 at first, after steps of lr 0.1 with these gradients."""
    weight = nn.Parameter(torch.full((len(members), 1), 2.0, dtype=torch.float64))
    rule = Adam({"w": weight}, [["w"]], [[{**SETTINGS, **member}] for member in members])
    rule.by_kernel = by_kernel
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        rule.step([0.1] * len(members))
    return weight.detach().flatten().tolist()


@pytest.mark.parametrize("by_kernel", [False, True])
def test_the_first_step_by_hand(by_kernel: bool) -> None:
    """Both moments are the gradient's after bias correction, so the step is lr * g / (|g| + eps)."""
    members: list[dict[str, Any]] = [
        {"eps": 0.0},
        {"eps": 3.0},
        {"maximize": True, "eps": 0.0},
        {"weight_decay": 0.5, "eps": 3.0},  # g = 3 + 0.5 * 2
        {"weight_decay": 0.5, "eps": 3.0, "decoupled_weight_decay": True},
    ]
    expected = [2 - 0.1, 2 - 0.1 * 3 / 6, 2 + 0.1, 2 - 0.1 * 4 / 7, 2 * 0.95 - 0.1 * 3 / 6]
    assert after([3.0], *members, by_kernel=by_kernel) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("by_kernel", [False, True])
def test_amsgrad_remembers_the_largest_second_moment(by_kernel: bool) -> None:
    """With beta2 = 0 the second moment is the last squared gradient, and its maximum the largest one."""
    members = [{"betas": (0.0, 0.0), "eps": 0.0, "amsgrad": True}]
    assert after([10.0, 1.0], *members, by_kernel=by_kernel) == pytest.approx([2 - 0.1 - 0.01], rel=1e-14)
    assert after([10.0, 1.0], {**members[0], "amsgrad": False}, by_kernel=by_kernel) == pytest.approx([1.8], rel=1e-14)


@pytest.mark.parametrize("by_kernel", [False, True])
def test_a_gradient_and_a_rate_of_zero_are_no_nan(by_kernel: bool) -> None:
    weights = after([0.0, 0.0], {}, {"weight_decay": 0.1, "decoupled_weight_decay": True}, by_kernel=by_kernel)
    assert weights == pytest.approx([2.0, 2.0 * 0.99**2], rel=1e-14)


def test_parameters_with_different_counts_are_corrected_each_by_its_own() -> None:
    race = Race(torch.optim.AdamW, [{"lr": 0.1}, {"lr": 0.01, "betas": (0.5, 0.6)}], foreach=False)
    race.step(3, missing=["conv", "scale"])
    race.step(2, missing=["conv"])
    race.step(2)
    state = race.stack.member_state(1)["parameters"]
    assert {name: int(values["step"]) for name, values in state.items()} == {
        "hidden": 7,
        "conv": 2,
        "bias": 7,
        "scale": 4,
    }
    race.assert_equal(1e-12)
