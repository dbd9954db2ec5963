"""The direction that an update rule takes, from its settings and its state alone: Δw = −lr · direction.

An independent account of the step, to which the measured one is held: the ledger's `unexplained`. The formulas are
those of torch's documentation (and of pytorch_optimizer's Lion); state is read after the update, weights and gradient
are those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from optexp.instruments.rules import Rule, Settings
from optexp.instruments.successive import Snapshot, column, couples_decay

_SECOND_MOMENTS = {"Adam": "exp_avg_sq", "AdamW": "exp_avg_sq", "RMSprop": "square_avg", "Adagrad": "sum"}


def measured(rule: Rule, settings: Sequence[Sequence[Settings]], step: Snapshot, weights: Tensor) -> dict[str, Tensor]:
    """Return `directions`, the norm of each group's direction [R, G], and `eps_share` [R]: the fraction of elements
    whose second moment has a root below eps. Empty for rules, or settings of them, that are not known here.

    `weights` [R, n] are those before the step, zero where it has no gradient.
    """
    if rule.kind is None:
        return {}
    norms, below, count = [], [], 0
    for index, (start, end) in enumerate(rule.bounds):
        first, last = sum(rule.sizes[:start]), sum(rule.sizes[:end])
        gradient = step.gradient[:, first:last]
        if step.decay is not None:
            gradient = gradient + step.decay[:, first:last]
        group = _Group(rule, index, [member[index] for member in settings], gradient, weights[:, first:last])
        direction = _DIRECTIONS[rule.kind](group)
        if direction is None:
            return {}
        norms.append(torch.linalg.vector_norm(direction, dim=1))
        if rule.kind in _SECOND_MOMENTS:
            below.append(group.below_eps())
            count += last - first - sum(rule.sizes[place] for place in rule.absent if start <= place < end)
    found = {"directions": torch.stack(norms, dim=1)}
    return found | ({"eps_share": torch.stack(below).sum(0) / count} if count else {})


class _Group:
    """A parameter group as vectors [R, n], and its settings as columns [R, 1]."""

    def __init__(self, rule: Rule, index: int, settings: Sequence[Settings], gradient: Tensor, weights: Tensor) -> None:
        self.rule = rule
        self.index = index
        self.settings = settings
        self.gradient = gradient
        self.weights = weights

    def slot(self, name: str) -> Tensor:
        """Return an entry of the state, in memory of its own."""
        found = self.rule.slot(self.index, name)
        return torch.zeros_like(self.gradient) if found is None else self.rule.flat(found)

    def setting(self, name: str, place: int | None = None, default: Any = None) -> Any:
        """Return a setting, as a column [R, 1] where the members differ."""
        return self._shared(self._values(name, place, default))

    def _shared(self, values: Sequence[float]) -> Any:
        """Return the number that all members have, else a column [R, 1]."""
        return values[0] if len(set(values)) == 1 else column(values, self.gradient)

    def has(self, name: str) -> Tensor:
        """Return for which members a setting is neither false nor zero, [R, 1]."""
        return column(self._values(name), self.gradient) != 0

    def _values(self, name: str, place: int | None = None, default: Any = None) -> list[float]:
        return [float((own.get(name, default) if place is None else own[name][place]) or 0) for own in self.settings]

    def any(self, name: str) -> bool:
        return any(own.get(name) for own in self.settings)

    def all(self, name: str) -> bool:
        return all(own.get(name) for own in self.settings)

    def decay(self) -> Any:
        """Return the weight decay that is applied to the weights apart from the gradient, or 0."""
        kind = self.rule.kind
        rates = [0.0 if couples_decay(kind, own) else float(own.get("weight_decay", 0.0)) for own in self.settings]
        return self._shared(rates) * self.weights if any(rates) else 0.0

    def correction(self, place: int) -> Any:
        """Return 1 − beta^t, in double precision: for t of one and beta of 0.999 single loses three digits."""
        steps, betas = self.rule.steps(self.index), self._values("betas", place)
        assert steps is not None
        if isinstance(steps, Tensor):
            exact = steps.float() if self.gradient.device.type == "mps" else steps.double()
            beta = betas[0] if len(set(betas)) == 1 else column(betas, exact)
            return (1 - beta**exact).to(self.gradient)
        return self._shared([1 - beta**steps for beta in betas])

    @cached_property
    def root(self) -> Tensor:
        """Return the root of the second moment, corrected for its start at zero where the rule does so."""
        moment = self.slot("max_exp_avg_sq" if self.any("amsgrad") else _SECOND_MOMENTS[self.rule.kind or ""])
        if self.rule.kind in ("Adam", "AdamW"):
            return moment.div_(self.correction(1)).sqrt_()
        if self.any("centered"):
            moment = moment.sub_(self.slot("grad_avg").square_())
        return moment.sqrt_()

    def below_eps(self) -> Tensor:
        """Return how many elements have a root below eps, [R]. A CPU finds signs five times as fast as it compares."""
        distance = (self.setting("eps") - self.root).sign_().clamp_(min=0)
        if self.rule.absent:
            start, end = self.rule.bounds[self.index]
            for place, part in enumerate(distance.split(self.rule.sizes[start:end], dim=1), start):
                if place in self.rule.absent:
                    part.zero_()
        return distance.sum(1)


def _sgd(group: _Group) -> Tensor | None:
    if not group.any("momentum"):
        return group.gradient
    if group.all("momentum") and not group.any("nesterov"):
        return group.slot("momentum_buffer")
    momentum, buffer = group.setting("momentum"), group.slot("momentum_buffer")
    ahead = torch.where(group.has("nesterov"), group.gradient + momentum * buffer, buffer)
    return torch.where(group.has("momentum"), ahead, group.gradient)


def _adam(group: _Group) -> Tensor | None:
    if group.rule.steps(group.index) is None:
        return None
    mean = group.slot("exp_avg").div_(group.correction(0))
    return mean.div_(group.root + group.setting("eps")).add_(group.decay())


def _rmsprop(group: _Group) -> Tensor | None:
    scaled = group.gradient / (group.root + group.setting("eps"))
    if not group.any("momentum"):
        return scaled
    return torch.where(group.has("momentum"), group.slot("momentum_buffer"), scaled)


def _adagrad(group: _Group) -> Tensor | None:
    steps = group.rule.steps(group.index)
    if steps is None:
        return None
    slowed = 1 + (steps - 1) * group.setting("lr_decay", default=0.0)
    return group.gradient / (group.root + group.setting("eps")) / slowed


def _lion(group: _Group) -> Tensor | None:
    if group.any("fixed_decay"):
        return None
    first, second = group.setting("betas", 0), group.setting("betas", 1)
    old = (group.slot("exp_avg") - (1 - second) * group.gradient) / second
    return (first * old + (1 - first) * group.gradient).sign() + group.decay()


_DIRECTIONS: dict[str, Callable[[_Group], Tensor | None]] = {
    "SGD": _sgd,
    "Adam": _adam,
    "AdamW": _adam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "Lion": _lion,
}
