"""Parameters, gradients and optimizer state of a small model, each in one piece of memory.

A rule that treats every element alike does to one long vector what it does to thirty tensors, in a thirtieth of the
calls; so do zeroing, the norm and the clipping of gradients. Parameters and their gradients become views of two vectors.
The optimizer keeps its settings and its state per parameter, as views too: whoever looks at it, or saves it, finds what
torch would have left there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from optexp.optimizers.construction import construct
from optexp.optimizers.stepping import direct_step, is_plain

ELEMENTWISE = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam)
LARGEST = 2**19
"""Elements of a model that profits. Autograd adds to the vector of gradients, which crosses memory several times more
often than handing a gradient over; above this, and on a GPU, that costs more than the calls it saves."""
KNOWN_MODULES = ("optexp", "torch", "torchvision")
"""Whose modules neither keep other views of their parameters nor give them other memory."""
ALIGNMENT = 64
"""Bytes. What torch allocates has it, and matrix products may round differently without it."""


@dataclass(frozen=True)
class _Section:
    """Where a parameter lies in the vector of its group."""

    parameter: Tensor
    offset: int

    def of(self, vector: Tensor) -> Tensor:
        """Return the section of a vector, in the parameter's shape and memory layout."""
        shape, stride = self.parameter.shape, self.parameter.stride()
        return torch.as_strided(vector, shape, stride, vector.storage_offset() + self.offset)


@dataclass(frozen=True)
class _Group:
    """A parameter group of the optimizer, and the vector that stands for its parameters."""

    settings: dict[str, Any]
    sections: list[_Section]
    vector: Tensor


class FlatParameters:
    """All parameters of an optimizer in one vector, and the update of that."""

    def __init__(self, optimizer: Optimizer) -> None:
        """Move the parameters and the state of an optimizer, which must suit (see `suits`), into vectors."""
        self._optimizer = optimizer
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        first = self._parameters[0]
        unit = ALIGNMENT // first.element_size()
        rooms = {parameter: -(-parameter.numel() // unit) * unit for parameter in self._parameters}
        self.vector = torch.zeros(sum(rooms.values()), dtype=first.dtype)
        self.gradient = torch.zeros_like(self.vector)
        self._groups, start = [], 0
        for settings in optimizer.param_groups:
            sections, end = [], start
            for parameter in settings["params"]:
                sections.append(_Section(parameter, end - start))
                end += rooms[parameter]
            vector = self.vector[start:end]
            vector.grad = self.gradient[start:end]
            self._groups.append(_Group(settings, sections, vector))
            start = end
        # torch's own rule over one tensor a group, which is as good as any to it.
        own = [{**group.settings, "params": [group.vector]} for group in self._groups]
        self._rule: Optimizer = construct(type(optimizer), own)
        self._rule._accelerator_graph_capture_health_check = lambda: None  # type: ignore[method-assign]  # looks for CUDA
        self._step = direct_step(self._rule)
        groups = zip(optimizer.param_groups, self._rule.param_groups, strict=True)
        self._synchronized = [(settings, own, own["params"]) for settings, own in groups]
        for group in self._groups:
            self._load_state(group)
        self._gradients = [self._place(group, section) for group in self._groups for section in group.sections]
        self._addresses = [parameter.data_ptr() for parameter in self._parameters]
        self._versions = [gradient._version for gradient in self._gradients]
        self._received = [False] * len(self._gradients)  # in this step
        self._shown: Any = self._optimizer.state.get(first)  # of the first parameter
        self._shows = False  # whether the optimizer's state is made of views of the rule's

    @staticmethod
    def _place(group: _Group, section: _Section) -> Tensor:
        """Move a parameter into the vector; return its gradient there, which counts its own changes (`.data`)."""
        parameter, room = section.parameter, section.of(group.vector)
        room.copy_(parameter.detach())
        parameter.data = room
        assert group.vector.grad is not None
        parameter.grad = section.of(group.vector.grad).data
        return parameter.grad

    def _load_state(self, group: _Group) -> None:
        """Give the rule what the optimizer remembers of a group's parameters."""
        states = [self._optimizer.state.get(section.parameter) or {} for section in group.sections]
        joined: dict[str, Any] = {}
        for name, first in states[0].items():
            values = [state[name] for state in states]
            if _elementwise(values, group.settings["params"]):
                joined[name] = torch.zeros_like(group.vector, dtype=first.dtype)
                for section, value in zip(group.sections, values, strict=True):
                    section.of(joined[name]).copy_(value)
            else:
                joined[name] = first.clone() if isinstance(first, Tensor) else first
        self._rule.state[group.vector] = joined

    def _show_state(self) -> None:
        """Let the optimizer's state be views of the rule's. Counters, which are the same for all, are shared."""
        for group in self._groups:
            state = self._rule.state.get(group.vector)
            for section in group.sections if state else []:
                self._optimizer.state[section.parameter] = {
                    name: section.of(value) if isinstance(value, Tensor) and value.ndim else value
                    for name, value in state.items()
                }
        self._shown, self._shows = self._optimizer.state.get(self._parameters[0]), True

    def zero_gradient(self) -> None:
        self.gradient.zero_()

    def is_whole(self) -> bool:
        """Return whether everything is still where it was put, and every parameter got a gradient in this step.

        torch skips a parameter without one. In the vector it would be a gradient of zero, which decays and moves on.
        """
        before, self._versions = self._versions, {gradient._version for gradient in self._gradients}
        received = len(self._versions) == 1 and self._versions != before
        first = self._parameters[0]  # what moves a model or loads a state does so with all of it
        in_place = first.data_ptr() == self._addresses[0] and self._optimizer.state.get(first) is self._shown
        return received and in_place

    def update(self) -> None:
        """Take the optimizer's step, with its settings as they are now."""
        self._rule.found_inf = vars(self._optimizer).get("found_inf")  # type: ignore[attr-defined]  # see the guard
        for settings, own, vectors in self._synchronized:
            own.update(settings)
            own["params"] = vectors
        self._step()
        if not self._shows:
            self._show_state()

    def release(self) -> None:
        """Give every parameter its own memory, gradient and state, and this step's gradient only if it got one."""
        for index, (parameter, gradient) in enumerate(zip(self._parameters, self._gradients, strict=True)):
            if parameter.data_ptr() == self._addresses[index]:
                parameter.data = parameter.detach().clone()
            if parameter.grad is gradient:
                parameter.grad = gradient.clone() if self._received[index] else None
            state = self._optimizer.state.get(parameter) or {}
            state.update({name: value.clone() for name, value in state.items() if isinstance(value, Tensor)})


def suits(model: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether `FlatParameters` changes nothing but the time that a step of this optimizer takes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kinds = {(parameter.device.type, parameter.dtype) for parameter in parameters}
    return (
        type(optimizer) in ELEMENTWISE
        and is_plain(optimizer)
        and not any(group.get("differentiable") or group.get("capturable") for group in optimizer.param_groups)
        # What lies between two parameters in a vector has the gradient 0, and 0 / (√0 + 0) is not a number.
        and all(group.get("eps") != 0 for group in optimizer.param_groups)
        and all(type(module).__module__.split(".")[0] in KNOWN_MODULES for module in model.modules())
        and len(kinds) == 1
        and next(iter(kinds))[0] == "cpu"
        and sum(parameter.numel() for parameter in parameters) <= LARGEST
        and all(parameter.requires_grad and parameter.ndim > 0 and _is_dense(parameter) for parameter in parameters)
        and _share_no_memory(model, parameters)
        and all(_states_agree(optimizer, group["params"]) for group in optimizer.param_groups)
    )


def _is_dense(tensor: Tensor) -> bool:
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.is_contiguous() or (
        tensor.ndim in layouts and tensor.is_contiguous(memory_format=layouts[tensor.ndim])
    )


def _share_no_memory(model: nn.Module, parameters: Sequence[Tensor]) -> bool:
    """Return whether no parameter shares its memory with another, or with a buffer of the model."""
    everything = {id(tensor): tensor for tensor in (*parameters, *model.parameters(), *model.buffers())}
    addresses = [tensor.untyped_storage().data_ptr() for tensor in everything.values() if tensor.numel()]
    return len(set(addresses)) == len(addresses)


def _states_agree(optimizer: Optimizer, parameters: Sequence[Tensor]) -> bool:
    """Return whether the state of all parameters of a group is of one kind, with equal counters."""
    states = [optimizer.state.get(parameter) or {} for parameter in parameters]
    if len({tuple(state) for state in states}) != 1:
        return False
    columns = [[state[name] for state in states] for name in states[0]]
    return all(_elementwise(values, parameters) or _equal(values) for values in columns)


def _elementwise(values: Sequence[Any], parameters: Sequence[Tensor]) -> bool:
    """Return whether each value is a tensor shaped like its parameter (which has at least one axis)."""
    pairs = zip(values, parameters, strict=True)
    return all(isinstance(value, Tensor) and value.shape == parameter.shape for value, parameter in pairs)


def _equal(values: Sequence[Any]) -> bool:
    first = values[0]
    if isinstance(first, Tensor):
        return all(isinstance(value, Tensor) and torch.equal(value, first) for value in values)
    return all(not isinstance(value, Tensor) and value == first for value in values)
