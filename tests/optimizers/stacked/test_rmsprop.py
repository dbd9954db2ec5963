"""What is peculiar to stacked RMSprop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from races import Race
from torch import nn

from optexp.optimizers.stacked.rmsprop import RMSprop

SETTINGS = {
    "alpha": 0.75,
    "eps": 0.0,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "centered": False,
    "maximize": False,
}


def moved(gradients: list[float], *members: dict[str, Any]) -> list[float]:
    """Return how far the weights went down, in units of the learning rate."""
    weight = nn.Parameter(torch.zeros(len(members), 1, dtype=torch.float64))
    rule = RMSprop({"w": weight}, [["w"]], [[{**SETTINGS, **member}] for member in members])
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        rule.step([0.1] * len(members))
    return (weight.detach().flatten() / -0.1).tolist()


def test_two_steps_by_hand() -> None:
    """v is 1/4 of g² after one step and 7/16 after two: steps of 2 and 4 / sqrt(7)."""
    second = 4 / 7**0.5
    expected = [2 + second, 2 + (0.5 * 2 + second), 1 / (0.5 + 1) + 1 / (7**0.5 / 4 + 1)]
    assert moved([5.0, 5.0], {}, {"momentum": 0.5}) == pytest.approx(expected[:2], rel=1e-14)
    assert moved([1.0, 1.0], {"eps": 1.0}) == pytest.approx(expected[2:], rel=1e-14)


def test_the_centered_one_divides_by_the_standard_deviation() -> None:
    """After one step the mean is g/4 and the mean square g²/4: the deviation is g sqrt(3)/4."""
    assert moved([5.0], {"centered": True}) == pytest.approx([4 / 3**0.5], rel=1e-14)


def test_slots_of_members_with_and_without_momentum() -> None:
    race = Race(torch.optim.RMSprop, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}])
    race.step(2)
    found = [list(race.stack.member_state(member)["parameters"]["conv"]) for member in (0, 1)]
    assert found == [["step", "square_avg"], ["step", "square_avg", "momentum_buffer"]]
