"""The effective learning rate of a config: against the steps that torch's optimizers take."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from optexp.report.effective_rate import amplifies, effective_lr, factors, optimizer_class


def settings(target: str = "torch.optim.SGD", **arguments: Any) -> dict[str, Any]:
    return {"optimizer._target_": target} | {f"optimizer.{name}": value for name, value in arguments.items()}


def long_run_step(**arguments: Any) -> float:
    """Return the step that torch's SGD takes after a long time of the gradient 1."""
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], **arguments)
    before = 0.0
    for _ in range(600):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return before - weight.item()


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": 1e-4, "momentum": 0.9, "dampening": 0.9},
        {"lr": 1e-2, "momentum": 0.9, "dampening": 0.0},
        {"lr": 3e-3, "momentum": 0.8, "dampening": 0.5},
        {"lr": 1e-3, "momentum": 0.0, "dampening": 0.9},  # which torch ignores
        {"lr": 2e-2, "momentum": 0.95, "nesterov": True},
        {"lr": 0.1},
        {"lr": 1, "momentum": 0.5, "dampening": -1.0},
    ],
)
def test_it_is_the_long_run_step_of_torch(arguments: dict[str, Any]) -> None:
    found = settings(**arguments)
    assert effective_lr(found) == pytest.approx(long_run_step(**arguments), rel=1e-9)
    parts = factors(found)
    assert parts is not None
    assert parts["lr"] == pytest.approx(math.log10(arguments["lr"]))
    assert math.fsum(parts.values()) == pytest.approx(math.log10(long_run_step(**arguments)), abs=1e-9)


def test_rules_with_normalized_averages_have_none() -> None:
    for target in ("torch.optim.AdamW", "optexp.optimizers.muon.Muon", "mine.SGD"):
        found = settings(target, lr=0.1, momentum=0.9, dampening=0.9)
        assert not amplifies(found)
        assert effective_lr(found) is None
        assert factors(found) == {"lr": -1.0, "dampening": 0.0, "momentum": 0.0}
    assert effective_lr(settings("torch.optim.RMSprop", lr=1e-3, momentum=0.9)) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": 0.0},
        {"lr": None},
        {"lr": "x"},
        {"lr": 0.1, "momentum": 1.0},
        {"lr": 0.1, "momentum": 0.9, "dampening": 1.0},
    ],
)
def test_settings_of_which_no_step_can_be_expected(arguments: dict[str, Any]) -> None:
    assert factors(settings(**arguments)) is None
    assert effective_lr(settings(**arguments)) is None


def test_an_optimizer_chosen_by_name_is_called_so() -> None:
    chosen = settings("optexp.optimizers.collection.by_name", name="adopt", lr=0.1)
    assert optimizer_class(chosen) == "adopt"
    assert optimizer_class(settings("torch.optim.NAdam")) == "NAdam"
    assert optimizer_class({}) == ""
