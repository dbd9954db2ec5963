"""A stack beside the same members as single models with their own torch optimizers: the oracle of these tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytorch_optimizer
import torch
from torch import Tensor, nn

from optexp.engine.state import optimizer_state
from optexp.optimizers.stacked import StackedOptimizer, settings_of, stacked_rule

SHAPES = {"hidden": (5, 3), "conv": (4, 3, 3, 3), "bias": (5,), "scale": ()}
GROUPS = [["hidden", "conv"], ["bias", "scale"]]  # the second one without weight decay
OFTEN_MISSING = "bias"

MEMBERS: dict[Any, list[dict[str, Any]]] = {
    torch.optim.SGD: [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.9},
        {"lr": 0.05, "momentum": 0.5, "nesterov": True, "maximize": True, "weight_decay": 0.01},
    ],
    torch.optim.Adam: [
        {"lr": 0.1},
        {"lr": 0.05, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1},
        {"lr": 0.01, "betas": (0.0, 0.0), "maximize": True},
        {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.3, "decoupled_weight_decay": True},
    ],
    torch.optim.AdamW: [
        {"lr": 0.1, "weight_decay": 0.0},
        {"lr": 0.05, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1},
        {"lr": 0.01, "betas": (0.9, 0.95), "maximize": True},
    ],
    torch.optim.RMSprop: [
        {"lr": 0.01},
        {"lr": 0.02, "alpha": 0.5, "momentum": 0.9, "eps": 1e-3},
        {"lr": 0.01, "weight_decay": 0.3, "maximize": True, "momentum": 0.4},
    ],
    torch.optim.Adagrad: [
        {"lr": 0.1},
        {"lr": 0.2, "lr_decay": 0.3, "initial_accumulator_value": 0.7, "eps": 1e-3},
        {"lr": 0.1, "weight_decay": 0.1, "maximize": True},
    ],
    pytorch_optimizer.Lion: [
        {"lr": 0.01},
        {"lr": 0.02, "weight_decay": 0.1},
        {"lr": 0.02, "weight_decay": 0.1, "weight_decouple": False, "betas": (0.5, 0.6)},
        {"lr": 0.01, "weight_decay": 0.01, "fixed_decay": True},
    ],
}
"""For each optimizer, members as different as one stack may have them."""

ALIKE: dict[Any, list[dict[str, Any]]] = {
    torch.optim.SGD: [{"lr": 0.1, "momentum": 0.9, "nesterov": True}] * 2,
    torch.optim.Adam: [{"lr": 0.1, "amsgrad": True}] * 2,
    torch.optim.AdamW: [{"lr": 0.1, "amsgrad": True}] * 2,
    torch.optim.RMSprop: [{"lr": 0.01, "centered": True}] * 2,
    torch.optim.Adagrad: [{"lr": 0.1}] * 2,
    pytorch_optimizer.Lion: [{"lr": 0.01}] * 2,
}
"""Members with the same hyperparameters, and what all members must have in common."""

RULES = list(MEMBERS)


def dense(shape: Sequence[int], channels_last: bool, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Return random numbers; images' filters with their channels innermost in memory if `channels_last`."""
    values = torch.randn(shape, generator=generator, dtype=dtype)
    if channels_last and len(shape) >= 4:
        values = values.movedim(-3, -1).contiguous().movedim(-1, -3)
    return values


class Race:
    """The same members twice: as one stack and one by one. They get the same gradients and learning rates."""

    def __init__(
        self,
        target: Any,
        members: Sequence[dict[str, Any]],
        *,
        dtype: torch.dtype = torch.float64,
        channels_last: bool = True,
        by_kernel: bool = False,
        seed: int = 0,
        **implementation: Any,
    ) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.channels_last = channels_last
        self.target = target
        self.base_rates = [member["lr"] for member in members]
        self.taken = 0
        rows = len(members)
        stacked = {name: self.values(rows, name) for name in SHAPES}
        self.models = [
            nn.ParameterDict({name: nn.Parameter(values[row].clone()) for name, values in stacked.items()})
            for row in range(rows)
        ]
        self.optimizers = [
            new_optimizer(target, model, {**member, **implementation})
            for model, member in zip(self.models, members, strict=True)
        ]
        self.parameters = {name: nn.Parameter(values) for name, values in stacked.items()}
        self.stack = new_stack(target, self.parameters, self.optimizers, by_kernel)

    def values(self, rows: int, name: str) -> Tensor:
        return dense((rows, *SHAPES[name]), self.channels_last, self.random, self.dtype)

    def rates(self) -> list[float]:
        """Return learning rates that follow a schedule with a warmup from zero."""
        return [rate * min(1.0, self.taken / 4) * 0.99**self.taken for rate in self.base_rates]

    def step(self, times: int = 1, *, missing: Collection[str] = (), singles: bool = True, poison: int = -1) -> None:
        """Take steps with random gradients; those of the member `poison` are NaN."""
        for _ in range(times):
            rates = self.rates()
            for name in SHAPES:
                gradient = None if name in missing else self.values(len(rates), name)
                if gradient is not None and poison >= 0:
                    gradient[poison] = torch.nan
                self.parameters[name].grad = gradient
                for row, model in enumerate(self.models):
                    model[name].grad = None if gradient is None else gradient[row].clone()
            self.stack.step(rates)
            if singles:
                for optimizer, rate in zip(self.optimizers, rates, strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    optimizer.step()
            self.taken += 1

    def keep(self, rows: list[int]) -> None:
        """Drop members, from both."""
        for parameter in self.parameters.values():
            strides = parameter[0].stride()
            kept = parameter.detach()[rows]
            parameter.grad = None
            parameter.data = torch.empty_strided(kept.shape, (parameter[0].numel(), *strides), dtype=self.dtype)
            parameter.data.copy_(kept)
        self.stack.select(torch.tensor(rows))
        for name in ("models", "optimizers", "base_rates"):
            setattr(self, name, [getattr(self, name)[row] for row in rows])

    def assert_equal(self, tolerance: float, members: Collection[int] | None = None) -> None:
        """Parameters, slots, counts and settings are those of the single optimizers."""
        for row, (model, optimizer) in enumerate(zip(self.models, self.optimizers, strict=True)):
            if members is None or row in members:
                for name, parameter in self.parameters.items():
                    close(parameter[row].detach(), model[name].detach(), tolerance, f"member {row}, {name}")
                assert_same_state(self.stack.member_state(row), optimizer_state(model, optimizer), tolerance)


def new_optimizer(target: Any, model: nn.ParameterDict, arguments: dict[str, Any]) -> Any:
    decayed, exempt = ([model[name] for name in names] for names in GROUPS)
    return target([{"params": decayed}, {"params": exempt, "weight_decay": 0.0}], **arguments)


def new_stack(
    target: Any, parameters: dict[str, nn.Parameter], optimizers: Sequence[Any], by_kernel: bool
) -> StackedOptimizer:
    rule = stacked_rule(target)
    assert rule is not None
    stack = rule(parameters, GROUPS, [settings_of(optimizer) for optimizer in optimizers])
    stack.by_kernel = by_kernel
    return stack


def close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Equal up to a tolerance relative to the largest element, at least 1, where weights start; zero means bitwise."""
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale, msg=lambda text: f"{what}: {text}")


def assert_same_state(actual: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Equal keys, in the same order within a parameter, equal dtypes, shapes and settings; values to the tolerance."""
    assert actual["groups"] == expected["groups"]
    assert actual["parameters"].keys() == expected["parameters"].keys()
    for name, values in expected["parameters"].items():
        assert list(actual["parameters"][name]) == list(values), name
        for slot, value in values.items():
            close(actual["parameters"][name][slot], value, tolerance, f"{slot} of {name}")


def everything(race: Race, members: Sequence[int]) -> list[Tensor]:
    """Return copies of the parameters and slots of members of the stack."""
    tensors = []
    for member in members:
        tensors += [parameter.detach()[member].clone() for parameter in race.parameters.values()]
        for values in race.stack.member_state(member)["parameters"].values():
            tensors += [value.clone() for value in values.values()]
    return tensors


def assert_bitwise(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected) > 0
    for mine, theirs in zip(actual, expected, strict=True):
        assert torch.equal(mine, theirs)
