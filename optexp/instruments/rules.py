"""What the instruments know of an optimizer: its parameters by group, its settings and its state, for R members."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from optexp.optimizers.stacked import StackedOptimizer
from optexp.transfers import to_device

Settings = dict[str, Any]
"""A parameter group without its parameters."""

_KNOWN = (SGD, Adam, AdamW, RMSprop, Adagrad)


class Rule:
    """Parameters in the order of the groups, `bounds` of the groups in that order, and what is known of them.

    Tensors are those of a single run, or stacked: [R, ...]; `flat` makes vectors [R, n] of either. `sizes` are the
    elements of each parameter of one member, `group_sizes` those of each group, `rows` the lengths of the first axes.
    `layers` names the parameters of two axes or more by their place, `order` tells the place of each in the model, and
    `units` are the places of the weights whose rows are units of a layer (no embeddings).
    """

    kind: str | None
    """`SGD`, `Adam`, `AdamW`, `RMSprop`, `Adagrad`, `Lion`; None for a rule that is not known here."""
    amplifies: bool
    """Whether the step under a constant gradient is lr · (1 − dampening) / (1 − momentum)."""

    def __init__(self, kind: str | None, amplifies: bool, group_sizes: Sequence[int]) -> None:
        self.kind = kind
        self.amplifies = amplifies
        self.parameters: list[Tensor] = []
        self.sizes: list[int] = []
        self.rows: list[int] = []
        self.group_sizes: list[int] = []
        ends = list(accumulate(group_sizes))
        self.bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        self.layers: dict[int, str] = {}
        self.order: dict[int, int] = {}
        self.units: list[int] = []
        self.absent: frozenset[int] = frozenset()  # places of the parameters that this step has no gradient for

    def _describe(self, own: Sequence[Tensor], model: nn.Module, axes: int) -> None:
        """Note sizes and names of the parameters `own` of the model; `axes` come before those of one run."""
        self.sizes = [math.prod(parameter.shape[axes:]) for parameter in own]
        self.group_sizes = [sum(self.sizes[start:end]) for start, end in self.bounds]
        self.rows = [parameter.shape[axes] if parameter.ndim > axes else 1 for parameter in own]
        places = {id(parameter): place for place, parameter in enumerate(own)}
        embeddings = {
            id(weight)
            for module in model.modules()
            if "Embedding" in type(module).__name__ or "Positions" in type(module).__name__
            for weight in module.parameters(recurse=False)
        }
        for order, (name, parameter) in enumerate(model.named_parameters()):
            place = places.get(id(parameter))
            if place is not None and parameter.ndim - axes >= 2:
                self.layers[place], self.order[place] = name, order
                if id(parameter) not in embeddings:
                    self.units.append(place)

    def spread(self, values: Sequence[Sequence[float]], like: Tensor) -> Any:
        """Return a setting, given for every member's groups, as what goes with matrices [R, n]: a number where all have
        the same, else a tensor.
        """
        if _all_equal(values):
            return values[0][0]
        return self.over_elements(to_device(lambda: torch.tensor(values, dtype=like.dtype), like.device))

    def over_elements(self, of_groups: Tensor) -> Tensor:
        """Return numbers of the members' groups, [R, G], repeated for every element: [R, n]."""
        columns = zip(of_groups.split(1, dim=1), self.group_sizes, strict=True)
        return torch.cat([column.expand(-1, size) for column, size in columns], dim=1)

    def times(self, matrix: Tensor, values: Sequence[Sequence[float]]) -> Tensor:
        """Return a matrix [R, n] times a setting, given for every member's groups; faster than by `spread`."""
        if _all_equal(values):
            return matrix * values[0][0]
        columns = to_device(lambda: torch.tensor(values, dtype=matrix.dtype), matrix.device).split(1, dim=1)
        parts = zip(matrix.split(self.group_sizes, dim=1), columns, strict=True)
        return torch.cat([part * column for part, column in parts], dim=1)

    def refresh(self) -> None:
        """Take the parameters as they are now: members may have been dropped, tensors replaced."""
        raise NotImplementedError

    def without_absent(self, matrix: Tensor) -> Tensor:
        """Return [R, n] with zeros for the parameters that this step has no gradient for, and so does not change."""
        if not self.absent:
            return matrix
        parts = list(matrix.split(self.sizes, dim=1))
        for place in self.absent:
            parts[place] = torch.zeros_like(parts[place])
        return torch.cat(parts, dim=1)

    def first_present(self, group: int) -> int | None:
        """Return the place of the first parameter of a group that has a gradient."""
        start, end = self.bounds[group]
        return next((place for place in range(start, end) if place not in self.absent), None)

    def gradients(self) -> list[Tensor | None]:
        """Return the gradients as the rule is given them."""
        raise NotImplementedError

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return tensors as one matrix [R, n], in memory of its own."""
        raise NotImplementedError

    def norms(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the norm of each tensor, for all members."""
        raise NotImplementedError

    def settings(self) -> list[list[Settings]]:
        """Return the settings of every member's groups as they are now, lr included."""
        raise NotImplementedError

    def slot(self, group: int, name: str) -> list[Tensor] | None:
        """Return an entry of the state of each parameter of a group, zeros for those without a gradient; None when any
        other has none.
        """
        raise NotImplementedError

    def steps(self, group: int) -> Tensor | float | None:
        """Return how many updates the group has had, the present one included; None when the state does not tell."""
        raise NotImplementedError


def _all_equal(values: Sequence[Sequence[float]]) -> bool:
    return len({value for member in values for value in member}) == 1


def _kind(optimizer: Optimizer) -> str | None:
    if type(optimizer).__name__ == "Lion" and type(optimizer).__module__.startswith("pytorch_optimizer"):
        return "Lion"
    kind = type(optimizer)
    return kind.__name__ if kind in _KNOWN else None


class SingleRule(Rule):
    """A torch optimizer: R = 1."""

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        self._optimizer = optimizer
        self._own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        super().__init__(_kind(optimizer), isinstance(optimizer, SGD | RMSprop), sizes)
        self.refresh()
        self._describe(self._own, model, axes=0)

    def refresh(self) -> None:
        self.parameters = list(self._own)

    def gradients(self) -> list[Tensor | None]:
        gradients = [parameter.grad for parameter in self._own]
        return [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        vector = _flatten_dense_tensors(tensors)
        return (vector.clone() if len(tensors) == 1 else vector).unsqueeze(0)

    def norms(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(torch._foreach_norm(list(tensors)))

    def settings(self) -> list[list[Settings]]:
        return [[{k: v for k, v in group.items() if k != "params"} for group in self._optimizer.param_groups]]

    def slot(self, group: int, name: str) -> list[Tensor] | None:
        start, end = self.bounds[group]
        found: list[Tensor] = []
        for place, parameter in enumerate(self._own[start:end], start):
            value = self._optimizer.state.get(parameter, {}).get(name)
            if not isinstance(value, Tensor):
                if place not in self.absent:
                    return None
                value = torch.zeros_like(parameter)
            found.append(value)
        return found

    def steps(self, group: int) -> Tensor | float | None:
        first = self.first_present(group)
        step = None if first is None else self._optimizer.state.get(self._own[first], {}).get("step")
        if step is None:
            step = self._optimizer.param_groups[group].get("step")
        if not isinstance(step, Tensor):
            return None if step is None else float(step)
        return step.item() if step.device.type == "cpu" else step.reshape(1)  # on a device nothing waits for it


class StackedRule(Rule):
    """A stack of R members; `members` are their own optimizers, for the settings."""

    def __init__(self, optimizer: StackedOptimizer, single: Optimizer, model: nn.Module) -> None:
        self._optimizer = optimizer
        names = [name for group in optimizer.groups for name in group]
        own = [optimizer.parameters[name] for name in names]
        sizes = [len(group) for group in optimizer.groups]
        super().__init__(_kind(single), isinstance(single, SGD | RMSprop), sizes)
        self._names = names
        self.refresh()
        self._describe(own, model, axes=1)

    def refresh(self) -> None:
        self.parameters = [self._optimizer.parameters[name].detach() for name in self._names]

    def gradients(self) -> list[Tensor | None]:
        return [self._optimizer.parameters[name].grad for name in self._names]

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors], dim=1)

    def norms(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        axes = [tuple(range(1, tensor.ndim)) or (1,) for tensor in tensors]
        matrices = [tensor.unsqueeze(1) if tensor.ndim == 1 else tensor for tensor in tensors]
        return [torch.linalg.vector_norm(m, dim=dim) for m, dim in zip(matrices, axes, strict=True)]

    def settings(self) -> list[list[Settings]]:
        return [[dict(group) for group in member] for member in self._optimizer.settings]

    def slot(self, group: int, name: str) -> list[Tensor] | None:
        found: list[Tensor] = []
        for place in range(*self.bounds[group]):
            value = self._optimizer.slots[self._names[place]].get(name)
            if value is None:
                if place not in self.absent:
                    return None
                value = torch.zeros_like(self.parameters[place])
            found.append(value)
        return found

    def steps(self, group: int) -> Tensor | float | None:
        first = self.first_present(group)
        if first is None:
            return None
        return self._optimizer.counts[self._names[first]] + 1.0  # the present update is not counted yet
