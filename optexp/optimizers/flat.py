"""The step of a rule that treats every element alike, on one vector instead of many tensors.

torch has fused kernels for a few rules. The others make a dozen calls for every tensor of a model; here they make them
for every parameter group. Parameters and gradients are copied into vectors and the result is copied back, so that
nobody else has to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from optexp.optimizers.construction import construct

ELEMENTWISE = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam)
LARGEST, LARGEST_MEAN = 2**19, 2**14
"""Elements of a model and of its tensors on average up to which calls take longer than the copies that save them."""
_REFUSED = ("fused", "differentiable", "capturable")  # torch's fused rules also read `found_inf`: engine/guard.py


class FlatStep:
    """The step of an elementwise optimizer on a CPU: torch's own rule, at work on one vector per parameter group.

    The settings are the optimizer's. Its state is shown to it per parameter, as views of the rule's and copies of its
    counters: whoever looks at the state, saves it or loads another one finds what torch would have left. torch's own
    step is taken where the vectors do not hold: without a gradient for some parameter, or when the parameters of a
    group have not taken the same number of steps.
    """

    def __init__(self, optimizer: Optimizer, step_of: Callable[[Optimizer], Callable[[], Any]]) -> None:
        """`step_of` returns what takes the step of an optimizer as torch does."""
        self._optimizer = optimizer
        self._torchs_step = step_of(optimizer)
        self._parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self._vectors: list[Tensor] = []
        self._places: list[Tensor] = []  # of the parameters in the vectors
        self._gradient_places: list[Tensor] = []
        for group in optimizer.param_groups:
            vector = torch.zeros(sum(p.numel() for p in group["params"]), dtype=group["params"][0].dtype)
            vector.grad = torch.zeros_like(vector)
            self._vectors.append(vector)
            self._places += _sections(vector, group["params"])
            self._gradient_places += _sections(vector.grad, group["params"])
        groups = zip(optimizer.param_groups, self._vectors, strict=True)
        self._rule: Any = construct(type(optimizer), [{**group, "params": [vector]} for group, vector in groups])
        self._step = step_of(self._rule)
        self._no_grad = torch.no_grad()
        self._counters: list[tuple[Tensor, Tensor]] = []  # the rule's, and its copies for the parameters of a group
        self._shown: Any = self  # the state of the first parameter, as it was shown; nothing yet

    @staticmethod
    def suits(optimizer: Optimizer) -> bool:
        """Return whether this changes nothing but the time that a step takes; the optimizer is known to be plain."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        return (
            type(optimizer) in ELEMENTWISE
            and not any(group.get(key) for group in optimizer.param_groups for key in _REFUSED)
            and {parameter.device.type for parameter in parameters} == {"cpu"}
            and len({parameter.dtype for parameter in parameters}) == 1
            and sum(parameter.numel() for parameter in parameters) <= min(LARGEST, LARGEST_MEAN * len(parameters))
            and all(type(parameter) in (Tensor, nn.Parameter) and _is_dense(parameter) for parameter in parameters)
        )

    def __call__(self) -> None:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        skips = len(gradients) < len(self._parameters) or any(gradient.is_sparse for gradient in gradients)
        if skips or not self._has_state():
            self._shown = self  # the rule's state falls behind
            self._torchs_step()
            return
        with self._no_grad:
            torch._foreach_copy_(self._places, self._parameters)
            torch._foreach_copy_(self._gradient_places, gradients)
            for group, own in zip(self._optimizer.param_groups, self._rule.param_groups, strict=True):
                own.update({**group, "params": own["params"]})
            self._step()
            torch._foreach_copy_(self._parameters, self._places)
            if self._shown is self:
                self._show_state()
            for counter, copies in self._counters:
                copies.copy_(counter)

    def _has_state(self) -> bool:
        """Return whether the rule has the optimizer's state, or can take it over."""
        if self._optimizer.state.get(self._parameters[0]) is self._shown:
            return True
        self._shown = self
        states = [self._optimizer.state.get(parameter) or {} for parameter in self._parameters]
        for group, vector in zip(self._optimizer.param_groups, self._vectors, strict=True):
            of_group, states = states[: len(group["params"])], states[len(group["params"]) :]
            if any(state.keys() != of_group[0].keys() for state in of_group):
                return False
            joined = {}
            for name in of_group[0]:
                values = [state[name] for state in of_group]
                if all(_is_shaped_as(value, p) for value, p in zip(values, group["params"], strict=True)):
                    joined[name] = torch.empty_like(vector, dtype=values[0].dtype)
                    torch._foreach_copy_(_sections(joined[name], group["params"]), values)
                elif _are_equal(values):
                    joined[name] = values[0].clone() if isinstance(values[0], Tensor) else values[0]
                else:
                    return False
            self._rule.state[vector] = joined
        return True

    def _show_state(self) -> None:
        self._counters = []
        for group, vector in zip(self._optimizer.param_groups, self._vectors, strict=True):
            for name, value in self._rule.state[vector].items():
                of_each = [value] * len(group["params"])
                if _is_shaped_as(value, vector):
                    of_each = _sections(value, group["params"])
                elif isinstance(value, Tensor):
                    copies = value.repeat(len(group["params"]))
                    self._counters.append((value, copies))
                    of_each = list(copies.unbind())
                for parameter, own in zip(group["params"], of_each, strict=True):
                    self._optimizer.state[parameter][name] = own
        self._shown = self._optimizer.state.get(self._parameters[0])


def _sections(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the places of parameters in a vector that holds them all, in their shapes and memory layouts."""
    offsets = accumulate((parameter.numel() for parameter in parameters), initial=0)
    return [
        torch.as_strided(vector, p.shape, p.stride(), offset) for p, offset in zip(parameters, offsets, strict=False)
    ]


def _is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor, with one axis at least, fills its memory; only then does `empty_like` repeat strides."""
    return tensor.ndim > 0 and torch.empty_like(tensor).stride() == tensor.stride()


def _is_shaped_as(value: Any, parameter: Tensor) -> bool:
    """Return whether a value has an entry for every element (a parameter here has one axis at least)."""
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _are_equal(values: Sequence[Any]) -> bool:
    first = values[0]
    if isinstance(first, Tensor):
        return all(isinstance(value, Tensor) and torch.equal(value, first) for value in values)
    return all(not isinstance(value, Tensor) and value == first for value in values)
