"""What is peculiar to stacked Lion."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_optimizer
import torch
from races import MEMBERS, Race
from torch import nn

from optexp.optimizers.stacked import settings_of
from optexp.optimizers.stacked.lion import Lion

SETTINGS = {"betas": (0.5, 0.75), "weight_decay": 0.0, "weight_decouple": True, "fixed_decay": False}


def after(gradients: list[float], *members: dict[str, Any]) -> list[float]:
    """Return the weights, 2 at first, after steps of lr 0.1 with these gradients."""
    weight = nn.Parameter(torch.full((len(members), 1), 2.0, dtype=torch.float64))
    rule = Lion({"w": weight}, [["w"]], [[{**SETTINGS, **member}] for member in members])
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        rule.step([0.1] * len(members))
    return weight.detach().flatten().tolist()


def test_steps_by_hand() -> None:
    """Gradients 4, -1.5, -1: the momentum is 1 and 0.375, so the signs are those of 2, -0.25 and -0.3125."""
    decay: dict[str, Any] = {"weight_decay": 0.5}
    members = [{}, {"maximize": True}, decay, {**decay, "fixed_decay": True}]
    shrunk = [2.0, 2.0]
    for sign in (1, -1, -1):
        shrunk = [weight * kept - 0.1 * sign for weight, kept in zip(shrunk, (0.95, 0.5), strict=True)]
    assert after([4.0, -1.5, -1.0], *members) == pytest.approx([2.1, 1.9, *shrunk], rel=1e-14)


def test_coupled_decay_is_part_of_the_gradient() -> None:
    members = [{"weight_decay": decay, "weight_decouple": False} for decay in (0.4, 0.6)]
    assert after([-1.0], *members) == pytest.approx([2.1, 1.9], rel=1e-14)  # -1 + 0.8 and -1 + 1.2


def test_steps_are_counted_in_the_groups() -> None:
    race = Race(pytorch_optimizer.Lion, MEMBERS[pytorch_optimizer.Lion])
    assert "step" not in race.stack.member_state(0)["groups"][0]
    race.step(2, missing=["bias", "scale"])
    assert [group["step"] for group in race.stack.member_state(0)["groups"]] == [2, 2]
    race.assert_equal(1e-12)


def test_maximize_is_no_part_of_the_state_as_in_the_original() -> None:
    original = pytorch_optimizer.Lion([nn.Parameter(torch.zeros(1))], lr=0.1, maximize=True)
    settings = settings_of(original)
    assert settings == [{**SETTINGS, "betas": (0.9, 0.99), "lr": 0.1, "foreach": None, "maximize": True}]
    weight = nn.Parameter(torch.zeros(1, 1))
    rule = Lion({"w": weight}, [["w"]], [settings])
    state = rule.member_state(0)
    assert "maximize" not in original.param_groups[0] | state["groups"][0]
    rule.load_member_state(0, state)
    weight.grad = torch.ones(1, 1)
    rule.step([0.1])
    assert weight.item() == pytest.approx(0.1)
