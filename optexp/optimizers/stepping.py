"""Taking an optimizer's step without what torch does around it at every call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from optexp.optimizers.flat import FlatStep
from optexp.optimizers.fused_kernels import FUSED_KERNELS, is_known


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
        self._update = FUSED_KERNELS[type(optimizer)].update
        self._torchs_step = unannotated_step(optimizer)
        self._groups: list[_Group] = []
        self._counts: Tensor | None = None  # of the steps taken, for every parameter
        self._ones = torch.empty(0)  # as many; a plain 1 is made a tensor at every step, which takes longer
        self._no_grad = torch.no_grad()  # making one takes longer than using it
        self._first_state: Any = None  # of the parameter that comes first: another object when another state is loaded

    @staticmethod
    def suits(optimizer: Optimizer) -> bool:
        """Return whether the rule and its kernel, in this version of torch, are those known here."""
        kernel = FUSED_KERNELS.get(type(optimizer))
        groups = optimizer.param_groups
        tensors = [parameter for group in groups for parameter in group["params"]]
        numbers = [number for group in groups for number in (group["lr"], *group.get("betas", ()))]
        return (
            kernel is not None
            and is_known(kernel)
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
        gradients: list[list[Any]] = [[parameter.grad for parameter in group.parameters] for group in self._groups]
        if any(gradient is None for of_group in gradients for gradient in of_group):
            self._torchs_step()
            return
        found_inf = vars(optimizer).get("found_inf")  # 1 keeps the kernel from updating; see engine/guard.py
        with self._no_grad:
            if self._counts is not None:
                self._counts.add_(self._ones)
            for group, of_group in zip(self._groups, gradients, strict=True):
                self._update(group.settings, group.parameters, of_group, group.state, found_inf, False)
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
