"""The direction that an update rule takes, from its settings and its state alone: Δw = −lr · direction.

An independent account of the step, to which the measured one is held: the ledger's `unexplained`. The formulas are
those of torch's documentation (and of pytorch_optimizer's Lion); state is read after the update, weights and gradient
are those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from optexp.instruments.rules import Rule, Settings
from optexp.instruments.successive import Snapshot, column

_SECOND_MOMENTS = {"Adam": "exp_avg_sq", "AdamW": "exp_avg_sq", "RMSprop": "square_avg", "Adagrad": "sum"}


def measured(rule: Rule, settings: Sequence[Sequence[Settings]], step: Snapshot) -> dict[str, Tensor]:
    """Return `directions`, the norm of each group's direction [R, G], and `eps_share` [R]: the fraction of elements
    whose second moment has a root below eps. Empty for rules, or settings of them, that are not known here.
    """
    if rule.kind is None:
        return {}
    norms, below, count = [], [], 0
    for index, (start, end) in enumerate(rule.bounds):
        first, last = sum(rule.sizes[:start]), sum(rule.sizes[:end])
        gradient = step.gradient[:, first:last]
        if step.decay is not None:
            gradient = gradient + step.decay[:, first:last]
        group = _Group(rule, index, [member[index] for member in settings], gradient, step.weights[:, first:last])
        direction = _DIRECTIONS[rule.kind](group)
        if direction is None:
            return {}
        norms.append(torch.linalg.vector_norm(direction, dim=1))
        if rule.kind in _SECOND_MOMENTS:
            root = group.root()
            below.append((root < group.setting("eps")).sum(1))
            count += root.shape[1]
    found = {"directions": torch.stack(norms, dim=1)}
    return found | ({"eps_share": torch.stack(below).sum(0) / count} if below else {})


class _Group:
    """A parameter group as vectors [R, n], and its settings as columns [R, 1]."""

    def __init__(self, rule: Rule, index: int, settings: Sequence[Settings], gradient: Tensor, weights: Tensor) -> None:
        self.rule = rule
        self.index = index
        self.settings = settings
        self.gradient = gradient
        self.weights = weights

    def slot(self, name: str) -> Tensor:
        found = self.rule.slot(self.index, name)
        return torch.zeros_like(self.gradient) if found is None else self.rule.flat(found)

    def setting(self, name: str, place: int | None = None, default: Any = None) -> Tensor:
        values = [own.get(name, default) if place is None else own[name][place] for own in self.settings]
        return column([float(value) for value in values], self.gradient)

    def any(self, name: str) -> bool:
        return any(own.get(name) for own in self.settings)

    def all(self, name: str) -> bool:
        return all(own.get(name) for own in self.settings)

    def correction(self, beta: Tensor) -> Tensor:
        """Return 1 − beta^t, in double precision: for t of one and beta of 0.999 single loses three digits."""
        steps = self.rule.steps(self.index)
        assert steps is not None
        precise = beta if beta.device.type == "mps" else beta.double()
        return (1 - precise ** steps.to(precise)).to(beta.dtype)

    def root(self) -> Tensor:
        """Return the root of the second moment, corrected for its start at zero where the rule does so."""
        moment = self.slot("max_exp_avg_sq" if self.any("amsgrad") else _SECOND_MOMENTS[self.rule.kind or ""])
        if self.rule.kind in ("Adam", "AdamW"):
            return moment.sqrt() / self.correction(self.setting("betas", 1)).sqrt()
        if self.any("centered"):
            moment = moment - self.slot("grad_avg") ** 2
        return moment.sqrt()


def _sgd(group: _Group) -> Tensor | None:
    if not group.any("momentum"):
        return group.gradient
    if group.all("momentum") and not group.any("nesterov"):
        return group.slot("momentum_buffer")
    momentum, buffer = group.setting("momentum"), group.slot("momentum_buffer")
    ahead = torch.where(group.setting("nesterov", default=False) != 0, group.gradient + momentum * buffer, buffer)
    return torch.where(momentum == 0, group.gradient, ahead)


def _adam(group: _Group) -> Tensor | None:
    if group.rule.steps(group.index) is None:
        return None
    mean = group.slot("exp_avg") / group.correction(group.setting("betas", 0))
    direction = mean / (group.root() + group.setting("eps"))
    if group.rule.kind == "AdamW" or group.any("decoupled_weight_decay"):
        direction = direction + group.setting("weight_decay") * group.weights
    return direction


def _rmsprop(group: _Group) -> Tensor | None:
    scaled = group.gradient / (group.root() + group.setting("eps"))
    if not group.any("momentum"):
        return scaled
    return torch.where(group.setting("momentum") == 0, scaled, group.slot("momentum_buffer"))


def _adagrad(group: _Group) -> Tensor | None:
    steps = group.rule.steps(group.index)
    if steps is None:
        return None
    slowed = 1 + (steps.to(group.gradient) - 1) * group.setting("lr_decay", default=0.0)
    return group.gradient / (group.root() + group.setting("eps")) / slowed


def _lion(group: _Group) -> Tensor | None:
    if group.any("fixed_decay"):
        return None
    first, second = group.setting("betas", 0), group.setting("betas", 1)
    old = (group.slot("exp_avg") - (1 - second) * group.gradient) / second
    sign = (first * old + (1 - first) * group.gradient).sign()
    return sign + group.setting("weight_decay") * group.setting("weight_decouple", default=True) * group.weights


_DIRECTIONS: dict[str, Callable[[_Group], Tensor | None]] = {
    "SGD": _sgd,
    "Adam": _adam,
    "AdamW": _adam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "Lion": _lion,
}
