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

from optexp.instruments.norms import norms_of_parts
from optexp.instruments.rules import Rule, Settings
from optexp.instruments.successive import Snapshot, decay_rate
from optexp.transfers import to_device

_SECOND_MOMENTS = {"Adam": "exp_avg_sq", "AdamW": "exp_avg_sq", "RMSprop": "square_avg", "Adagrad": "sum"}


def measured(rule: Rule, settings: Sequence[Sequence[Settings]], step: Snapshot, weights: Tensor) -> dict[str, Tensor]:
    """Return `directions`, the norm of each group's direction [R, G], and `eps_share` [R]: the fraction of elements
    whose second moment has a root below eps. Empty for rules, or settings of them, that are not known here.

    `weights` [R, n] are those before the step, zero where it has no gradient.
    """
    if rule.kind is None:
        return {}
    gradient = step.gradient if step.decay is None else step.gradient + step.decay
    state = _State(rule, settings, gradient, weights)
    direction = _DIRECTIONS[rule.kind](state)
    if direction is None:
        return {}
    norms = norms_of_parts([direction], rule.group_sizes)
    found = {"directions": torch.stack(norms).view(len(norms), -1).mT}
    if rule.kind not in _SECOND_MOMENTS:
        return found
    count = sum(size for place, size in enumerate(rule.sizes) if place not in rule.absent)
    return found | ({"eps_share": state.below_eps() / count} if count else {})


class _State:
    """Settings, state and gradient of a step, over all parameters: what the formulas of the rules read.

    Tensors are [R, n]. A setting is a number where all members and groups have the same, else a tensor.
    """

    def __init__(self, rule: Rule, settings: Sequence[Sequence[Settings]], gradient: Tensor, weights: Tensor) -> None:
        self.rule = rule
        self.settings = settings
        self.gradient = gradient
        self.weights = weights

    def slot(self, name: str) -> Tensor:
        """Return an entry of the optimizer's state, in memory of its own; zero for groups that have none."""
        tensors: list[Tensor] = []
        for group, (start, end) in enumerate(self.rule.bounds):
            found = self.rule.slot(group, name)
            tensors += [torch.zeros_like(own) for own in self.rule.parameters[start:end]] if found is None else found
        return self.rule.flat(tensors)

    def setting(self, name: str, place: int | None = None) -> Any:
        """Return a setting, or one of those that it consists of."""
        return self.rule.spread(self.values(name, place), self.gradient)

    def where(self, name: str, given: Tensor, absent: Tensor) -> Tensor:
        """Return `given` where a setting is neither false nor zero, and `absent` elsewhere."""
        setting = self.setting(name)
        if isinstance(setting, Tensor):
            return torch.where(setting != 0, given, absent)
        return given if setting else absent

    def values(self, name: str, place: int | None = None) -> list[list[float]]:
        """Return a setting, or one of those that it consists of, of every member's groups; 0 where there is none."""

        def value(own: Settings) -> float:
            return float((own.get(name) if place is None else own[name][place]) or 0)

        return [[value(own) for own in member] for member in self.settings]

    def any(self, name: str) -> bool:
        return any(own.get(name) for member in self.settings for own in member)

    def all(self, name: str) -> bool:
        return all(own.get(name) for member in self.settings for own in member)

    def decay(self) -> Any:
        """Return the weight decay that is applied to the weights apart from the gradient, or 0."""
        kind = self.rule.kind
        rates = [[decay_rate(kind, own, coupled=False) for own in member] for member in self.settings]
        return self.rule.times(self.weights, rates) if any(map(any, rates)) else 0.0

    @cached_property
    def steps(self) -> list[Any] | None:
        """Return how many updates each group has had, the present one included; None when its state does not tell."""
        counts = [self.rule.steps(group) for group in range(len(self.rule.bounds))]
        return None if any(count is None for count in counts) else counts

    def of_steps(self, formula: Callable[[Any, Any], Any], values: list[list[float]]) -> Any:
        """Return a function of a setting and the number of updates, in double precision."""
        steps = self.steps
        assert steps is not None
        if not isinstance(steps[0], Tensor):
            found = [[formula(value, count) for value, count in zip(own, steps, strict=True)] for own in values]
            return self.rule.spread(found, self.gradient)
        counts = torch.stack(steps, dim=1)
        exact = counts.float() if counts.device.type == "mps" else counts.double()
        rates = to_device(lambda: torch.tensor(values, dtype=exact.dtype), exact.device)
        return self.rule.over_elements(formula(rates, exact).to(self.gradient))

    def correction(self, place: int) -> Any:
        """Return 1 − beta^t: for t of one and beta of 0.999 single precision loses three digits."""
        return self.of_steps(lambda beta, steps: 1 - beta**steps, self.values("betas", place))

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
        """Return how many elements with a gradient have a root below eps, [R].

        A CPU finds signs five times as fast as it compares.
        """
        distance = (self.setting("eps") - self.root).sign_().clamp_(min=0)
        return self.rule.without_absent(distance).sum(1)


def _sgd(state: _State) -> Tensor | None:
    if not state.any("momentum"):
        return state.gradient
    if state.all("momentum") and not state.any("nesterov"):
        return state.slot("momentum_buffer")
    momentum, buffer = state.setting("momentum"), state.slot("momentum_buffer")
    ahead = state.where("nesterov", state.gradient + momentum * buffer, buffer)
    return state.where("momentum", ahead, state.gradient)


def _adam(state: _State) -> Tensor | None:
    if state.steps is None:
        return None
    mean = state.slot("exp_avg").div_(state.correction(0))
    return mean.div_(state.root + state.setting("eps")).add_(state.decay())


def _rmsprop(state: _State) -> Tensor | None:
    scaled = state.gradient / (state.root + state.setting("eps"))
    if not state.any("momentum"):
        return scaled
    return state.where("momentum", state.slot("momentum_buffer"), scaled)


def _adagrad(state: _State) -> Tensor | None:
    if state.steps is None:
        return None
    slowed = state.of_steps(lambda decay, steps: 1 + (steps - 1) * decay, state.values("lr_decay"))
    return state.gradient / (state.root + state.setting("eps")) / slowed


def _lion(state: _State) -> Tensor | None:
    if state.any("fixed_decay"):
        return None
    first, second = state.setting("betas", 0), state.setting("betas", 1)
    old = (state.slot("exp_avg") - (1 - second) * state.gradient) / second
    return (first * old + (1 - first) * state.gradient).sign() + state.decay()


_DIRECTIONS: dict[str, Callable[[_State], Tensor | None]] = {
    "SGD": _sgd,
    "Adam": _adam,
    "AdamW": _adam,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "Lion": _lion,
}
