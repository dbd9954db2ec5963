"""Taking an optimizer's step without what torch does around it at every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer
from torch.optim import optimizer as torch_optimizer

from optexp.optimizers.flat import FlatStep


def direct_step(optimizer: Optimizer) -> Callable[[], Any]:
    """Return what takes an optimizer's step in the fewest calls.

    That is `FusedStep` for torch's fused rules, `FlatStep` for its other rules where it pays, and for everything else
    the optimizer's own step without torch's wrapper.
    """
    if is_plain(optimizer) and FusedStep.suits(optimizer):
        return FusedStep(optimizer)
    if is_plain(optimizer) and FlatStep.suits(optimizer):
        return FlatStep(optimizer, unannotated_step)
    return unannotated_step(optimizer)


def is_plain(optimizer: Optimizer) -> bool:
    """Return whether nobody has registered hooks or replaced `step`, and torch wraps it in the way known here."""
    wrapped = type(optimizer).step
    hooks = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
    )
    is_wrapped = getattr(wrapped, "hooked", False) and hasattr(wrapped, "__wrapped__")
    return bool(is_wrapped) and "step" not in vars(optimizer) and not any(hooks)


def unannotated_step(optimizer: Optimizer) -> Callable[[], Any]:
    """Return `optimizer.step` without torch's wrapper, which opens a profiler range and looks for hooks at each call.

    For a small model on a CPU the wrapper costs as much as the update itself. It is kept where the optimizer is not
    plain (see `is_plain`).
    """
    if not is_plain(optimizer):
        return lambda: optimizer.step()
    inner = type(optimizer).step.__wrapped__  # type: ignore[attr-defined]
    if getattr(inner, "__code__", None) is not _SETS_GRADIENT_MODE:
        return lambda: inner(optimizer)
    rule, differentiable = inner.__wrapped__, optimizer.defaults["differentiable"]

    def step() -> Any:
        with torch.set_grad_enabled(differentiable):
            return rule(optimizer)

    return step


# torch's own rules lie in a second wrapper, which does the same and imports torch's compiler for it.
_SETS_GRADIENT_MODE = torch_optimizer._use_grad_for_differentiable(lambda: None).__code__


@dataclass(frozen=True)
class _Group:
    """The lists that a kernel reads and writes, one entry per parameter."""

    settings: dict[str, Any]
    parameters: list[Tensor]
    state: dict[str, list[Tensor]]


class FusedStep:
    """The step of torch's fused SGD, Adam, AdamW or Adagrad with the lists of its tensors made once.

    torch collects parameters and state anew at every step, in Python: on a small model that takes longer than the
    kernel. The kernel is the same here, and so is where parameters, gradients, settings and state are found. Where the
    lists do not hold, the step is torch's own: the first one, the one after another state has been loaded, and those
    without a gradient for some parameter.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._kernel = _RULES[type(optimizer)][0]
        self._torchs_step = unannotated_step(optimizer)
        self._groups: list[_Group] = []
        self._counts: Tensor | None = None  # of the steps taken, for every parameter
        self._ones = torch.empty(0)  # as many; a plain 1 is made a tensor at every step, which takes longer
        self._no_grad = torch.no_grad()  # making one takes longer than using it
        self._first_state: Any = None  # of the parameter that comes first: another object when another state is loaded

    @staticmethod
    def suits(optimizer: Optimizer) -> bool:
        """Return whether the rule and its kernel, in this version of torch, are those known here."""
        _, kernels = _RULES.get(type(optimizer), (None, {}))
        groups = optimizer.param_groups
        tensors = [parameter for group in groups for parameter in group["params"]]
        numbers = [number for group in groups for number in (group["lr"], *group.get("betas", ()))]
        return (
            bool(kernels)
            and all(_arguments(name) == expected.split() for name, expected in kernels.items())
            and all(group["fused"] and not group.get("differentiable") for group in groups)
            and not any(isinstance(number, Tensor) for number in numbers)
            and len({(tensor.device, tensor.dtype) for tensor in tensors}) == 1
        )

    def __call__(self) -> None:
        optimizer = self._optimizer
        if not self._groups or optimizer.state.get(self._groups[0].parameters[0]) is not self._first_state:
            self._torchs_step()  # makes the state where there is none
            self._remember()
            return
        gradients = [[parameter.grad for parameter in group.parameters] for group in self._groups]
        if any(gradient is None for of_group in gradients for gradient in of_group):
            self._torchs_step()
            return
        found_inf = vars(optimizer).get("found_inf")  # 1 keeps the kernel from updating; see engine/guard.py
        with self._no_grad:
            if self._counts is not None:
                self._counts.add_(self._ones)
            for group, of_group in zip(self._groups, gradients, strict=True):
                self._kernel(group, of_group, found_inf)
            if self._counts is not None and found_inf is not None:
                self._counts.sub_(found_inf)

    def _remember(self) -> None:
        """List the state as it is. The counters of steps become parts of one tensor, which one call advances."""
        groups = self._optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        states = [self._optimizer.state.get(parameter) or {} for parameter in parameters]
        self._groups, self._counts, self._first_state = [], None, self._optimizer.state.get(parameters[0])
        if len({tuple(state) for state in states}) > 1:
            return  # some parameter has not had a gradient yet
        if "step" in states[0]:
            self._counts = torch.stack([state["step"] for state in states])
            self._ones = torch.ones_like(self._counts)
            for state, count in zip(states, self._counts.unbind(), strict=True):
                state["step"] = count
        for group in groups:
            of_group = [self._optimizer.state.get(parameter) or {} for parameter in group["params"]]
            lists = {
                name: [state[name] for state in of_group] for name, first in states[0].items() if first is not None
            }
            self._groups.append(_Group(group, group["params"], lists))


def _sgd(group: _Group, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    settings = group.settings
    torch._fused_sgd_(
        group.parameters,
        gradients,
        group.state.get("momentum_buffer", []),
        weight_decay=settings["weight_decay"],
        momentum=settings["momentum"],
        lr=settings["lr"],
        dampening=settings["dampening"],
        nesterov=settings["nesterov"],
        maximize=settings["maximize"],
        is_first_step=False,
        grad_scale=None,
        found_inf=found_inf,
    )


def _adam(group: _Group, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    settings, state = group.settings, group.state
    beta1, beta2 = settings["betas"]
    kernel = torch._fused_adamw_ if settings["decoupled_weight_decay"] else torch._fused_adam_
    kernel(
        group.parameters,
        gradients,
        state["exp_avg"],
        state["exp_avg_sq"],
        state.get("max_exp_avg_sq", []),
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


def _adagrad(group: _Group, gradients: list[Tensor], found_inf: Tensor | None) -> None:
    settings = group.settings
    torch._fused_adagrad_(
        group.parameters,
        gradients,
        group.state["sum"],
        group.state["step"],
        lr=settings["lr"],
        lr_decay=settings["lr_decay"],
        weight_decay=settings["weight_decay"],
        eps=settings["eps"],
        maximize=settings["maximize"],
        grad_scale=None,
        found_inf=found_inf,
    )


# The kernels are not part of torch's public interface: they are called only while they take the arguments known here.
_LISTS = "self grads exp_avgs exp_avg_sqs max_exp_avg_sqs state_steps"
_ADAM = f"{_LISTS} lr beta1 beta2 weight_decay eps amsgrad maximize grad_scale found_inf"
_SGD = (
    "self grads momentum_buffer_list "
    "weight_decay momentum lr dampening nesterov maximize is_first_step grad_scale found_inf"
)
_ADAGRAD = "self grads state_sums state_steps lr lr_decay weight_decay eps maximize grad_scale found_inf"
_RULES: dict[type[Optimizer], tuple[Callable[[_Group, list[Any], Tensor | None], None], dict[str, str]]] = {
    SGD: (_sgd, {"_fused_sgd_": _SGD}),
    Adam: (_adam, {"_fused_adam_": _ADAM, "_fused_adamw_": _ADAM}),
    AdamW: (_adam, {"_fused_adam_": _ADAM, "_fused_adamw_": _ADAM}),
    Adagrad: (_adagrad, {"_fused_adagrad_": _ADAGRAD}),
}


def _arguments(kernel: str) -> list[str] | None:
    """Return the names of a kernel's arguments, None when this version of torch has no such kernel."""
    found = getattr(torch.ops.aten, kernel, None)
    return None if found is None else [argument.name for argument in found.default._schema.arguments]
