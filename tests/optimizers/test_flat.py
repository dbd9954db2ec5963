"""One vector per group follows torch's loop over single tensors, and shows what that would have left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop
from twins import Kind, Twins

from optexp.optimizers import flat
from optexp.optimizers.flat import FlatStep
from optexp.optimizers.stepping import direct_step

CASES: list[tuple[Kind, dict[str, Any]]] = [
    (RMSprop, {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    (RMSprop, {"lr": 0.01, "eps": 0.0}),
    (Adadelta, {"lr": 0.5, "weight_decay": 0.1}),
    (Adamax, {"lr": 0.01, "weight_decay": 0.1}),
    (NAdam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (RAdam, {"lr": 0.01, "weight_decay": 0.1}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "fused": False}),
    (SGD, {"lr": 0.1, "fused": False}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "nesterov": False, "maximize": True, "fused": False}),
    (Adam, {"lr": 0.01, "amsgrad": True, "fused": False}),
    (AdamW, {"lr": 0.01, "weight_decay": 0.1, "foreach": True}),
]
ROUNDING = {"rtol": 1e-12, "atol": 1e-14}  # in float64


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_it_follows_torch_over_single_tensors(kind: Kind, settings: dict[str, Any]) -> None:
    twins = Twins(kind, torch.float64, **settings)
    assert isinstance(twins.step, FlatStep)
    twins.train(8)
    twins.assert_equal(**ROUNDING)
    twins.set(lr=0.03, weight_decay=0.2)
    twins.train(4)
    twins.assert_equal(**ROUNDING)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_float32_differs_by_rounding_only(kind: Kind, settings: dict[str, Any]) -> None:
    twins = Twins(kind, **settings)
    twins.train(8)
    twins.assert_equal(rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_parameters_without_a_gradient_are_left_alone(kind: Kind, settings: dict[str, Any]) -> None:
    """Steps with and without take turns; those left out once have taken fewer steps from then on."""
    twins = Twins(kind, torch.float64, **settings)
    twins.train(2, without=[0, 4])
    before = twins.parameters[0][1].detach().clone()
    twins.train(2, without=[1])
    assert torch.equal(twins.parameters[0][1], before)
    twins.train(3)
    twins.assert_equal(**ROUNDING)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_single_step_without_gradients_hands_the_state_back(kind: Kind, settings: dict[str, Any]) -> None:
    twins = Twins(kind, torch.float64, **settings)
    twins.train(3)
    twins.train(2, without=[2])
    twins.train(3)
    twins.assert_equal(**ROUNDING)
    steps = [state["step"] for state in twins.ours.state.values() if "step" in state]
    assert [float(step) for step in steps] == ([8, 8, 6, 8, 8] if steps else [])
    assert len({id(step) for step in steps}) == len(steps)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_states_go_to_torch_and_come_from_it(kind: Kind, settings: dict[str, Any], whose: str) -> None:
    twins = Twins(kind, torch.float64, **settings)
    twins.train(5)
    twins.reload(whose)
    twins.train(5)
    twins.assert_equal(**ROUNDING)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_resumed_run_repeats_the_other_bit_by_bit(kind: Kind, settings: dict[str, Any]) -> None:
    one, other = Twins(kind, **settings), Twins(kind, **settings)
    one.train(8)
    other.train(4)
    other.reload("ours")
    other.step = direct_step(other.ours)
    other.train(4)
    for first, second in zip(one.parameters[0], other.parameters[0], strict=True):
        assert torch.equal(first, second)


def test_parameters_may_be_given_other_memory_and_other_values() -> None:
    """Nothing of them is remembered."""
    twins = Twins(RMSprop, torch.float64, lr=0.01)
    twins.train(2)
    for pair in zip(*twins.parameters, strict=True):
        for parameter in pair:
            parameter.data = parameter.detach() * 2 + 1
    twins.train(2)
    twins.assert_equal(**ROUNDING)


class Own(RMSprop):
    """A subclass may do anything in its step."""


def parameter(*shape: int, **options: Any) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape, **options))


@pytest.mark.parametrize(
    ("kind", "settings", "parameters"),
    [
        (Own, {}, [parameter(3)]),
        (torch.optim.Rprop, {}, [parameter(3)]),
        (RMSprop, {"differentiable": True}, [parameter(3)]),
        (RMSprop, {"capturable": True}, [parameter(3)]),
        (Adam, {"fused": True, "lr": torch.tensor(0.1)}, [parameter(3)]),  # nor `FusedStep`: it is left to torch
        (RMSprop, {}, [parameter()]),  # its state and its counter would look alike
        (RMSprop, {}, [parameter(3), parameter(3, dtype=torch.float64)]),
        (RMSprop, {}, [parameter(3, device="meta")]),
        (RMSprop, {}, [nn.Parameter(torch.ones(4, 4)[:, :2])]),
    ],
)
def test_it_is_not_used_for(kind: Any, settings: dict[str, Any], parameters: list[Tensor]) -> None:
    assert not isinstance(direct_step(kind(parameters, **settings)), FlatStep)


def test_it_is_used_for_small_tensors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = RMSprop([parameter(40), parameter(20)])
    for largest, mean, used in ((60, 30, True), (59, 30, False), (60, 29, False)):
        monkeypatch.setattr(flat, "LARGEST", largest)
        monkeypatch.setattr(flat, "LARGEST_MEAN", mean)
        assert isinstance(direct_step(optimizer), FlatStep) == used
