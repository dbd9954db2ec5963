"""torch's fused kernels for SGD, Adam, AdamW and Adagrad, which update all parameters in one call.

They are not part of torch's public interface: call one only if `is_known` holds for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

Settings = Mapping[str, Any]
State = Mapping[str, list[Tensor]]


class FusedKernel(NamedTuple):
    """`update(settings, parameters, gradients, state, found_inf, is_first_step)` takes one step in place.

    `settings` are those of an optimizer's parameter group; the learning rate may be a 0-dimensional tensor on the
    device of the parameters (float32 on CUDA), so that a CUDA graph can read it: the step is that of the number in it.
    `state` holds one list, with a tensor per parameter, for each name in torch's own state; its "step" counts the step
    to be taken already. Where the tensor `found_inf` is 1 nothing is updated (Adagrad's kernel for CPUs does not read
    it). At the first step SGD fills its momentum buffers, whatever they hold.
    """

    update: Callable[[Settings, list[Tensor], list[Tensor], State, Tensor | None, bool], None]
    arguments: Mapping[str, str]
    """The names of the arguments of each of torch's operators that `update` calls."""


def is_known(kernel: FusedKernel) -> bool:
    """Return whether this version of torch has the operators with the arguments known here, for both kinds of rates."""
    return all(
        hasattr(torch, name) and _argument_names(name, overload) == expected.split()
        for name, expected in kernel.arguments.items()
        for overload in ("default", "tensor_lr")
    )


def _argument_names(operator: str, overload: str) -> list[str] | None:
    found = getattr(getattr(torch.ops.aten, operator, None), overload, None)
    return None if found is None else [argument.name for argument in found._schema.arguments]


def _sgd(
    settings: Settings,
    parameters: list[Tensor],
    gradients: list[Tensor],
    state: State,
    found_inf: Tensor | None,
    is_first_step: bool,
) -> None:
    torch._fused_sgd_(
        parameters,
        gradients,
        state["momentum_buffer"] if settings["momentum"] != 0 else [],
        weight_decay=settings["weight_decay"],
        momentum=settings["momentum"],
        lr=settings["lr"],
        dampening=settings["dampening"],
        nesterov=settings["nesterov"],
        maximize=settings["maximize"],
        is_first_step=is_first_step,
        grad_scale=None,
        found_inf=found_inf,
    )


def _adam(
    settings: Settings,
    parameters: list[Tensor],
    gradients: list[Tensor],
    state: State,
    found_inf: Tensor | None,
    is_first_step: bool,
) -> None:
    beta1, beta2 = settings["betas"]
    operator = torch._fused_adamw_ if settings["decoupled_weight_decay"] else torch._fused_adam_
    operator(
        parameters,
        gradients,
        state["exp_avg"],
        state["exp_avg_sq"],
        state["max_exp_avg_sq"] if settings["amsgrad"] else [],
        state["step"],
        lr=settings["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=settings["weight_decay"],
        eps=settings["eps"],
        amsgrad=settings["amsgrad"],
        maximize=settings["maximize"],
        grad_scale=None,
        found_inf=found_inf,
    )


def _adagrad(
    settings: Settings,
    parameters: list[Tensor],
    gradients: list[Tensor],
    state: State,
    found_inf: Tensor | None,
    is_first_step: bool,
) -> None:
    torch._fused_adagrad_(
        parameters,
        gradients,
        state["sum"],
        state["step"],
        lr=settings["lr"],
        lr_decay=settings["lr_decay"],
        weight_decay=settings["weight_decay"],
        eps=settings["eps"],
        maximize=settings["maximize"],
        grad_scale=None,
        found_inf=found_inf,
    )


_SGD_ARGUMENTS = (
    "self grads momentum_buffer_list "
    "weight_decay momentum lr dampening nesterov maximize is_first_step grad_scale found_inf"
)
_ADAM_ARGUMENTS = (
    "self grads exp_avgs exp_avg_sqs max_exp_avg_sqs state_steps "
    "lr beta1 beta2 weight_decay eps amsgrad maximize grad_scale found_inf"
)
_ADAGRAD_ARGUMENTS = "self grads state_sums state_steps lr lr_decay weight_decay eps maximize grad_scale found_inf"
# Adam and AdamW differ in a setting only, `decoupled_weight_decay`, which each of them takes.
_ADAM = FusedKernel(_adam, {"_fused_adam_": _ADAM_ARGUMENTS, "_fused_adamw_": _ADAM_ARGUMENTS})

FUSED_KERNELS: dict[type[Optimizer], FusedKernel] = {
    SGD: FusedKernel(_sgd, {"_fused_sgd_": _SGD_ARGUMENTS}),
    Adam: _ADAM,
    AdamW: _ADAM,
    Adagrad: FusedKernel(_adagrad, {"_fused_adagrad_": _ADAGRAD_ARGUMENTS}),
}
