"""What is peculiar to stacked SGD."""

from __future__ import annotations

import pytest
import torch
from races import Race
from torch import nn

from optexp.optimizers.stacked.sgd import SGD

SETTINGS = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False}


def stack(*members: dict[str, float], by_kernel: bool) -> tuple[nn.Parameter, SGD]:
    weight = nn.Parameter(torch.ones(len(members), 1, dtype=torch.float64))
    rule = SGD({"w": weight}, [["w"]], [[{**SETTINGS, **member}] for member in members])
    rule.by_kernel = by_kernel
    return weight, rule


@pytest.mark.parametrize("by_kernel", [False, True])
def test_three_steps_by_hand(by_kernel: bool) -> None:
    """Gradient 1 at every step, lr 0.1: plain, momentum, fully dampened (whose first step is not), Nesterov."""
    weight, rule = stack(
        {"dampening": 0.7},
        {"momentum": 0.5},
        {"momentum": 0.5, "dampening": 1.0},
        {"momentum": 0.5, "nesterov": True},
        by_kernel=by_kernel,
    )
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        rule.step([0.1] * 4)
    moved = (1 - weight.detach()).flatten() / 0.1
    # buffers: 1, 1.5, 1.75;  1, 0.5, 0.25;  and 1 + buffer / 2 of the first
    expected = [3.0, 1 + 1.5 + 1.75, 1 + 0.5 + 0.25, 1.5 + 1.75 + 1.875]
    assert moved.tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("by_kernel", [False, True])
def test_a_member_without_momentum_has_no_buffer(by_kernel: bool) -> None:
    race = Race(torch.optim.SGD, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}], by_kernel=by_kernel)
    race.step(3)
    assert [list(race.stack.member_state(member)["parameters"]) for member in (0, 1)] == [
        [],
        ["hidden", "conv", "bias", "scale"],
    ]
    race.keep([0])
    assert race.stack.slots["conv"] == {}
    race.step(3)
    race.assert_equal(1e-12)


@pytest.mark.parametrize("by_kernel", [False, True])
def test_a_parameter_whose_gradient_comes_late_starts_undampened(by_kernel: bool) -> None:
    members = [{"lr": 0.1, "momentum": 0.9, "dampening": dampening} for dampening in (0.0, 0.5)]
    race = Race(torch.optim.SGD, members, by_kernel=by_kernel, foreach=False)
    race.step(4, missing=["conv"])
    race.step(1)
    buffers = race.stack.slots["conv"]["momentum_buffer"]
    assert torch.equal(buffers, race.parameters["conv"].grad)
    race.step(3)
    race.assert_equal(1e-12)
