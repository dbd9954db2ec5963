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
    gradient_norms: list[Tensor] | None  # of each parameter, for all members, after clipping
    gradient: Tensor | None  # [R, n], after clipping; parameters without one have zeros
    weights: Tensor  # [R, n]


class Observer:
    """Measures the steps of one optimizer, or of a stack of R.

    `before` is called between clipping and the update, `after` behind the update, with the same `look`.
    """

    def __init__(self, rule: Rule, batch_size: int | None = None) -> None:
        """`batch_size`, of a whole step, turns the ratio of noise to signal into a noise scale in samples."""
        self.rule = rule
        self.batch_size = batch_size
        self._before: _Before | None = None
        self._last: Snapshot | None = None  # of the step before, when that was to be remembered
        self._last_lr: list[float] = []  # of the step before the last probe
        self._no_grad = torch.no_grad()  # making one takes longer than using it

    def before(self, look: Look, coefficient: float | Tensor | None = None) -> None:
        """Note weights and gradients. `coefficient` is what clipping has multiplied the gradients by, [R] or one."""
        if not look.looks:
            return
        with self._no_grad:
            self._before = self._noted(look, coefficient)

    def _noted(self, look: Look, coefficient: float | Tensor | None) -> _Before:
        self.rule.refresh()
        parameters = self.rule.parameters
        given = self.rule.gradients()
        self.rule.absent = frozenset(place for place, gradient in enumerate(given) if gradient is None)
        pairs = zip(parameters, given, strict=True)
        gradients = [torch.zeros_like(own) if gradient is None else gradient for own, gradient in pairs]
        scale = None
        if coefficient is not None:
            scale = torch.as_tensor(coefficient, dtype=parameters[0].dtype, device=parameters[0].device).reshape(-1)
        return _Before(
            scale,
            self.rule.norms(gradients) if look.sizes else None,
            self.rule.flat(gradients) if look.compares else None,
            self.rule.flat(parameters),
        )

    def after(self, look: Look) -> dict[str, Tensor]:
        """Return what was measured, each with the member first: [R, ...]. Empty when nothing but memory was asked."""
        before, self._before = self._before, None
        if before is None:
            return {}
        with self._no_grad:
            return self._measured(look, before)

    def _measured(self, look: Look, before: _Before) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        rule = self.rule
        update = rule.flat(rule.parameters).sub_(before.weights)
        if before.gradient_norms is not None:
            sizes = rule.sizes if look.probe else rule.group_sizes
            norms = [*before.gradient_norms, *norms_of_parts((before.weights, update), sizes)]
            found["norms"] = torch.stack(norms).view(len(norms), -1).mT  # [R, P + 2 K], see `_Norms`
            if before.coefficient is not None:
                found["coefficient"] = before.coefficient
        if before.gradient is not None:
            settings, changed = rule.settings(), rule.without_absent(before.weights)
            decay = coupled_decay(rule, settings, changed)
            rates = [float(member[0]["lr"]) for member in settings]
            now = Snapshot(before.gradient, decay, update, before.coefficient, rates)
            if look.probe and self._last is not None:
                found |= compared(rule, self._last, now)
                self._last_lr = self._last.learning_rates
            self._last = now if look.remember else None  # frees what is compared: it is as large as the weights, thrice
            if look.probe:
                found |= directions.measured(rule, settings, now, changed)
        return found

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
        complete = len(remembering) == len(members)
        self._last = Snapshot.of(remembering).to(self.rule.parameters[0].device) if complete else None

    def reading(self) -> Callable[[Numbers, int], Row]:
        """Return what makes a member's row of the step's numbers, on the host and maybe later.

        To be asked for before the next step: the settings are those of now, as a captured step does not pass by here.
        """
        rule, settings, last_lr, batch_size = self.rule, self.rule.settings(), self._last_lr, self.batch_size

        def row(numbers: Numbers, member: int) -> Row:
            if "norms" not in numbers:
                return {}
            own = settings[member]
            found = _sizes(rule, own, numbers)
            if "gram" in numbers:
                found |= quantities(rule, own, last_lr[member], numbers)
                if batch_size is not None and found["probe/signal"] > 0:
                    found["probe/noise_scale"] = batch_size * found["probe/noise"] / found["probe/signal"]
            if "gram" in numbers or "directions" in numbers:
                found |= _layers(rule, numbers)
            return {tag: value for tag, value in found.items() if math.isfinite(value) or tag == "optim/update_ratio"}

        return row


class _Norms:
    """The norms of one member's step: of the P gradients, then of weights and updates, of each or of each group."""

    def __init__(self, rule: Rule, numbers: Numbers) -> None:
        norms, count = numbers["norms"], rule.bounds[-1][1]
        kinds = (len(norms) - count) // 2
        self.gradient, self.weight, self.update = norms[:count], norms[count : count + kinds], norms[count + kinds :]
        groups = [(index, index + 1) for index in range(len(rule.bounds))]
        self._bounds = list(zip(rule.bounds, rule.bounds if kinds == count else groups, strict=True))

    def of_group(self, index: int, clipping: float) -> Sizes:
        (start, end), (first, last) = self._bounds[index]
        weight, update = math.hypot(*self.weight[first:last]), math.hypot(*self.update[first:last])
        return Sizes(math.hypot(*self.gradient[start:end]), weight, update, clipping)


def _sizes(rule: Rule, settings: Sequence[Settings], numbers: Numbers) -> Row:
    """Return the sizes of a step over all parameters, and the ledger of each parameter group."""
    norms, coefficient = _Norms(rule, numbers), numbers.get("coefficient", 1.0)
    total = math.hypot(*norms.weight)
    row = {"optim/update_ratio": math.hypot(*norms.update) / total if total else math.inf, "optim/weight_norm": total}
    if "coefficient" in numbers:
        row["optim/clip_coefficient"] = coefficient
    groups = [norms.of_group(index, coefficient) for index in range(len(rule.bounds))]
    for index, sizes in enumerate(groups):
        direction = numbers["directions"][index] if "directions" in numbers else None
        entries = account(settings[index], rule.amplifies, sizes, direction)
        row |= {f"ledger/group{index}/{name}": value for name, value in entries.items()}
    if "directions" in numbers or "gram" in numbers:
        pulls = [own.get("weight_decay", 0.0) * sizes.weight for own, sizes in zip(settings, groups, strict=True)]
        if any(pulls) and (norm := math.hypot(*norms.gradient)) > 0:
            row["probe/decay_ratio"] = math.hypot(*pulls) / norm * coefficient
    if "eps_share" in numbers:
        row["probe/eps_share"] = numbers["eps_share"]
    return row


def _layers(rule: Rule, numbers: Numbers) -> Row:
    """Return gradient norm (before clipping) and update ratio of every weight with two axes or more."""
    norms, coefficient = _Norms(rule, numbers), numbers.get("coefficient", 1.0)
    row: Row = {}
    for place, name in sorted(rule.layers.items(), key=lambda item: rule.order[item[0]]):
        weight = norms.weight[place]
        row[f"layer/{name}/grad_norm"] = norms.gradient[place] / coefficient if coefficient else math.nan
        row[f"layer/{name}/update_ratio"] = norms.update[place] / weight if weight else math.nan
    return row
