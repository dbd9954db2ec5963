"""Looking at optimizer steps: how large each factor of the step is, and what two successive steps tell together.

Measuring happens in two parts. On the device, in `before` and `after`, tensors become a few numbers without a wait for
the host; on the host, when those numbers have arrived, they become the tags of a row (`reading`). What is measured
has a leading axis of members [R, ...]; a single run is a member of its own, R = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optexp.instruments import directions
from optexp.instruments.ledger import Sizes, account
from optexp.instruments.look import Look
from optexp.instruments.norms import norms_of_parts
from optexp.instruments.rules import Rule, Settings
from optexp.instruments.successive import Snapshot, compared, coupled_decay, quantities

Row = dict[str, float]
Tree = dict[str, Any]
Numbers = Mapping[str, Any]
"""What `after` has measured of one member, as nested lists of floats."""


@dataclass(frozen=True)
class _Before:
    coefficient: Tensor | None  # of clipping, [R]
    gradient_norms: Tensor | None  # [P, R], after clipping
    gradient: Tensor | None  # [R, n], after clipping; parameters without one have zeros
    weights: Tensor  # [R, n]


class Observer:
    """Measures the steps of one optimizer, or of a stack of R.

    `before` is called between clipping and the update, `after` behind the update, with the same `look`.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._before: _Before | None = None
        self._last: Snapshot | None = None  # of the step before, when that was to be remembered
        self._last_lr: list[float] = []  # of the step before the last probe

    @torch.no_grad()
    def before(self, look: Look, coefficient: float | Tensor | None = None) -> None:
        """Note weights and gradients. `coefficient` is what clipping has multiplied the gradients by, [R] or one."""
        if not (look.sizes or look.compares):
            return
        self.rule.refresh()
        parameters = self.rule.parameters
        pairs = zip(parameters, self.rule.gradients(), strict=True)
        gradients = [torch.zeros_like(own) if gradient is None else gradient for own, gradient in pairs]
        scale = None
        if coefficient is not None:
            scale = torch.as_tensor(coefficient, dtype=parameters[0].dtype, device=parameters[0].device).reshape(-1)
        self._before = _Before(
            scale,
            self.rule.norms(gradients) if look.sizes else None,
            self.rule.flat(gradients) if look.compares else None,
            self.rule.flat(parameters),
        )

    @torch.no_grad()
    def after(self, look: Look) -> dict[str, Tensor]:
        """Return what was measured, each with the member first: [R, ...]. Empty when nothing but memory was asked."""
        before, self._before = self._before, None
        if before is None:
            return {}
        found: dict[str, Tensor] = {}
        rule = self.rule
        update = rule.flat(rule.parameters).sub_(before.weights)
        if before.gradient_norms is not None:
            found["norms"] = self._norms(before.gradient_norms, before.weights, update, each=look.probe)
            if before.coefficient is not None:
                found["coefficient"] = before.coefficient
        if before.gradient is not None:
            settings = rule.settings()
            decay = coupled_decay(rule, settings, before.weights)
            rates = [float(member[0]["lr"]) for member in settings]
            now = Snapshot(before.gradient, decay, update, before.weights, before.coefficient, rates)
            if look.probe:
                if self._last is not None:
                    found |= compared(rule, self._last, now)
                    self._last_lr = self._last.learning_rates
                found |= directions.measured(rule, settings, now)
            self._last = now if look.remember else None
        return found

    def _norms(self, gradient: Tensor, weights: Tensor, update: Tensor, each: bool) -> Tensor:
        """Return the norms of gradient, weights and update [R, 3, K], of each of the K parameters or of each group."""
        if each:
            parts = [gradient, *(norms_of_parts(matrix, self.rule.sizes) for matrix in (weights, update))]
        else:
            groups = [torch.linalg.vector_norm(gradient[start:end], dim=0) for start, end in self.rule.bounds]
            sizes = self.rule.group_sizes
            parts = [torch.stack(groups), *(norms_of_parts(matrix, sizes) for matrix in (weights, update))]
        return torch.stack(parts).permute(2, 0, 1)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these members, in this order."""
        if self._last is not None:
            self._last = self._last.select(rows)

    def state(self, member: int) -> Tree:
        """Return what a member remembers of its last step; empty when the next one is no probe."""
        return {} if self._last is None else self._last.state(member)

    def load_state(self, members: Mapping[int, Tree]) -> None:
        """Take what `state` returned, for every member by its number."""
        remembering = [tree for _, tree in sorted(members.items()) if tree]
        self._last = Snapshot.of(remembering) if len(remembering) == len(members) else None

    def reading(self) -> Callable[[Numbers, int], Row]:
        """Return what makes a member's row of the step's numbers, on the host and maybe later.

        To be asked for before the next step: the settings are those of now, as a captured step does not pass by here.
        """
        rule, settings, last_lr = self.rule, self.rule.settings(), self._last_lr

        def row(numbers: Numbers, member: int) -> Row:
            if "norms" not in numbers:
                return {}
            own = settings[member]
            found = _sizes(rule, own, numbers)
            if "gram" in numbers:
                found |= quantities(rule, own, last_lr[member], numbers)
            if "gram" in numbers or "directions" in numbers:
                found |= _layers(rule, numbers)
            return {tag: value for tag, value in found.items() if math.isfinite(value) or tag == "optim/update_ratio"}

        return row


def _sizes(rule: Rule, settings: Sequence[Settings], numbers: Numbers) -> Row:
    """Return the sizes of a step over all parameters, and the ledger of each parameter group."""
    gradient, weight, update = numbers["norms"]
    coefficient = numbers.get("coefficient", 1.0)
    total = math.hypot(*weight)
    row = {"optim/update_ratio": math.hypot(*update) / total if total else math.inf, "optim/weight_norm": total}
    if "coefficient" in numbers:
        row["optim/clip_coefficient"] = coefficient
    bounds = rule.bounds
    if len(weight) != bounds[-1][1]:  # the numbers are of groups
        bounds = [(index, index + 1) for index in range(len(bounds))]
    for index, (start, end) in enumerate(bounds):
        own = [math.hypot(*values[start:end]) for values in numbers["norms"]]
        sizes = Sizes(own[0], own[1], own[2], coefficient)
        direction = numbers["directions"][index] if "directions" in numbers else None
        entries = account(settings[index], rule.amplifies, sizes, direction)
        row |= {f"ledger/group{index}/{name}": value for name, value in entries.items()}
    if "directions" in numbers or "gram" in numbers:
        decays = [group.get("weight_decay", 0.0) for group in settings]
        if any(decays) and (norm := math.hypot(*gradient)) > 0:
            pulls = [
                decay * math.hypot(*weight[start:end]) for decay, (start, end) in zip(decays, rule.bounds, strict=True)
            ]
            row["probe/decay_ratio"] = math.hypot(*pulls) / norm * coefficient
    if "eps_share" in numbers:
        row["probe/eps_share"] = numbers["eps_share"]
    return row


def _layers(rule: Rule, numbers: Numbers) -> Row:
    """Return gradient norm (before clipping) and update ratio of every weight with two axes or more."""
    gradient, weight, update = numbers["norms"]
    coefficient = numbers.get("coefficient", 1.0)
    row: Row = {}
    for place, name in sorted(rule.layers.items(), key=lambda item: rule.order[item[0]]):
        row[f"layer/{name}/grad_norm"] = gradient[place] / coefficient if coefficient else math.nan
        row[f"layer/{name}/update_ratio"] = update[place] / weight[place] if weight[place] else math.nan
    return row
