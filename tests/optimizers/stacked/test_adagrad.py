"""What is peculiar to stacked Adagrad."""

from __future__ import annotations

import pytest
import torch
from races import MEMBERS, SHAPES, Race
from torch import nn

from optexp.optimizers.stacked.adagrad import Adagrad

SETTINGS = {"lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 0.0, "maximize": False}


@pytest.mark.parametrize("by_kernel", [False, True])
def test_two_steps_by_hand(by_kernel: bool) -> None:
    """With gradients 3 and 4 the sums are 9 and 25 (16 and 32 from 7): steps of 1 and 4/5."""
    members = [{}, {"initial_accumulator_value": 7.0}, {"lr_decay": 0.25}, {"eps": 1.0}]
    weight = nn.Parameter(torch.zeros(4, 1, dtype=torch.float64))
    rule = Adagrad({"w": weight}, [["w"]], [[{**SETTINGS, **member}] for member in members])
    rule.by_kernel = by_kernel
    for gradient in (3.0, 4.0):
        weight.grad = torch.full_like(weight, gradient)
        rule.step([0.1] * 4)
    expected = [1 + 0.8, 0.75 + 4 / 32**0.5, 1 + 0.8 / 1.25, 3 / 4 + 4 / 6]
    assert (weight.detach().flatten() / -0.1).tolist() == pytest.approx(expected, rel=1e-14)


def test_the_state_is_there_before_the_first_step() -> None:
    race = Race(torch.optim.Adagrad, MEMBERS[torch.optim.Adagrad])
    sums = [race.stack.member_state(member)["parameters"]["conv"]["sum"] for member in (0, 1)]
    assert [values.unique().tolist() for values in sums] == [[0.0], [0.7]]
    assert race.stack.member_state(1)["parameters"].keys() == SHAPES.keys()


def test_a_fresh_state_is_loaded_as_the_initial_one() -> None:
    """A checkpoint that says nothing of a parameter means that its sum starts anew."""
    race = Race(torch.optim.Adagrad, MEMBERS[torch.optim.Adagrad])
    race.step(3)
    tree = race.stack.member_state(1)
    race.stack.load_member_state(1, {**tree, "parameters": {}})
    state = race.stack.member_state(1)["parameters"]["conv"]
    assert (state["step"].item(), state["sum"].unique().tolist()) == (0.0, [0.7])
