"""From checked arguments to a torch optimizer, in the fastest implementation torch has for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from optexp.errors import BadInput
from optexp.optimizers.collection import wants_matrices
from optexp.optimizers.construction import construct
from optexp.optimizers.groups import divided, hidden_matrices, parameter_groups


def build_optimizer(
    target: Callable[..., Any],
    arguments: dict[str, Any],
    model: nn.Module,
    decay_norm_and_bias: bool,
    num_outputs: int | None = None,
) -> Optimizer:
    """Build an optimizer over a model's trainable parameters.

    Where `foreach` and `fused` are left null and torch has a fused kernel for the device, it is used: the same
    update rule several times faster (2 to 5 times on a CPU). An optimizer with a rule of its own for hidden matrices
    is told which they are; `num_outputs` is that of the data set, see `groups.hidden_matrices`. Lists become tuples,
    as the constructors' annotations have them. Raises BadInput for what the constructor refuses.
    """
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    parameters = inspect.signature(target).parameters
    groups = parameter_groups(model, decay_norm_and_bias, "weight_decay" in parameters)
    if not any(group["params"] for group in groups):
        raise BadInput("model: it has no trainable parameters, so there is nothing to optimize")
    if wants_matrices(target):
        groups = _divided_groups(target, groups, model, num_outputs)
    choices = [arguments]
    undecided = arguments.get("fused") is None and arguments.get("foreach") is None
    if "fused" in parameters and undecided and not arguments.get("differentiable"):
        choices.insert(0, {**arguments, "fused": True})
    problem: Exception | None = None
    for choice in choices:
        try:
            optimizer = construct(target, [dict(group) for group in groups], **choice)
        except (
            RuntimeError,
            ValueError,
            TypeError,
        ) as error:  # no fused kernel for this device: the next choice has none
            problem = error
            continue
        if not isinstance(optimizer, Optimizer):
            raise BadInput(f"optimizer._target_: {target!r} does not make a torch.optim.Optimizer")
        return optimizer
    raise BadInput(f"optimizer: {getattr(target, '__name__', target)} rejects its arguments: {problem}") from problem


def _divided_groups(
    target: Callable[..., Any], groups: list[dict[str, Any]], model: nn.Module, num_outputs: int | None
) -> list[dict[str, Any]]:
    matrices = hidden_matrices(model, num_outputs)
    if not matrices:
        raise BadInput(
            f"optimizer: {getattr(target, '__name__', target)} is a rule for hidden weight matrices, "
            "and this model has none beside its output layer; allowed is any other optimizer, such as adamw"
        )
    return divided(groups, matrices)
