"""What two successive optimizer steps tell together, from dot products of their gradients and updates.

With g the gradients, s the updates and B the batch size, of steps p − 1 and p:

- signal = g_{p−1} · g_p: batches are independent, so it estimates ‖G‖² without their noise; noise = mean ‖g‖² − signal
  estimates tr Σ / B; noise_scale = B · noise / signal, in samples (McCandlish et al. 2018, arXiv 1812.06162)
- alpha = −(g_p · s_{p−1}) / (g_{p−1} · s_{p−1}): −1 no progress, 0 valley floor, +1 the other side (Cockpit, Schneider
  et al. 2021)
- momentum_cosine = cos(g_p, −s_{p−1}); sign_changes = fraction of the moving elements whose update changes its sign
- effective_lr = (c1 + c0) / (1 − a) of the fit s_p = a s_{p−1} − c1 d_p − c0 d_{p−1}, see `effective_rate`

alpha takes the slope before the step from the batch that made the step, so noise in it pulls alpha towards 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optexp.instruments.rules import Rule, Settings

LARGEST_RESIDUAL = 0.1
"""A fit of the effective rate that leaves more of the update unexplained is no measurement."""

LARGEST_RESIDUAL_OF_UNKNOWN = 0.01
"""The same for rules that may not be linear in the gradient, whose steps may look so by chance."""

_PIECE = 1 << 22  # elements of a vector that are looked at together


@dataclass(frozen=True)
class Snapshot:
    """One step as vectors of all parameters in order, [R, n]: gradient after clipping, coupled decay, update."""

    gradient: Tensor
    decay: Tensor | None  # weight_decay · w, where the rule adds it to the gradient
    update: Tensor
    coefficient: Tensor | None  # of clipping, [R] or [1]
    learning_rates: list[float]  # of the members' first group

    def state(self, member: int) -> dict[str, Any]:
        """Return the part of one member, as tensors and numbers by name."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        own = {name: value[member % len(value)].clone() for name, value in tensors.items()}
        return own | {"learning_rate": self.learning_rates[member]}

    @classmethod
    def of(cls, members: Sequence[Mapping[str, Any]]) -> Snapshot:
        """Return the snapshot of members from what `state` returned of each.

        Those without clipping or decay of their own are not changed by that of others.
        """

        def stacked(name: str, without: Callable[[Tensor], Tensor]) -> Tensor | None:
            if not any(name in member for member in members):
                return None
            return torch.stack([member.get(name, without(member["gradient"])) for member in members])

        gradient, update = (torch.stack([member[name] for member in members]) for name in ("gradient", "update"))
        rates = [float(member["learning_rate"]) for member in members]
        decay = stacked("decay", torch.zeros_like)
        coefficient = stacked("coefficient", lambda gradient: gradient.new_ones(()))
        return cls(gradient, decay, update, coefficient, rates)

    def to(self, device: torch.device) -> Snapshot:
        """Return it on a device."""
        tensors: dict[str, Any] = {n: value.to(device) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def select(self, rows: Sequence[int]) -> Snapshot:
        kept = torch.tensor(rows, device=self.gradient.device)
        return Snapshot(
            self.gradient[kept],
            None if self.decay is None else self.decay[kept],
            self.update[kept],
            self.coefficient if self.coefficient is None or len(self.coefficient) == 1 else self.coefficient[kept],
            [self.learning_rates[row] for row in rows],
        )


def decay_rate(kind: str | None, settings: Settings, coupled: bool) -> float:
    """Return a group's weight decay if it is `coupled`, that is, added to the gradient; or if it is not, else 0."""
    apart = settings.get("decoupled_weight_decay") or kind in (None, "AdamW") or settings.get("weight_decouple", False)
    return 0.0 if bool(apart) == coupled else float(settings.get("weight_decay", 0.0))


def coupled_decay(rule: Rule, settings: Sequence[Sequence[Settings]], weights: Tensor) -> Tensor | None:
    """Return what weight decay adds to the gradient, [R, n]; None where it adds nothing.

    `weights` are zero where the step has no gradient.
    """
    rates = [[decay_rate(rule.kind, group, coupled=True) for group in member] for member in settings]
    return rule.times(weights, rates) if any(map(any, rates)) else None


def compared(rule: Rule, first: Snapshot, second: Snapshot) -> dict[str, Tensor]:
    """Return the dot products of two steps' vectors and what is counted over them, [R, ...] each.

    `gram` is [R, 4, 4] over (update, gradient) of the first and of the second step, in this order: s1, s2, g1, g2; or
    [R, 6, 6] with the coupled decay of both behind them.
    """
    vectors = [first.update, second.update, first.gradient, second.gradient]
    if first.decay is not None and second.decay is not None:
        vectors += [first.decay, second.decay]
    found = {"gram": _gram(vectors), "sign_changes": _sign_changes(first.update, second.update)}
    if first.coefficient is not None:
        found["coefficient_before"] = first.coefficient
    if units := [place for place in rule.units if place not in rule.absent]:
        found["dead_units"] = _dead_units(rule, units, first, second)
    return found


def _gram(vectors: Sequence[Tensor]) -> Tensor:
    """Return the dot products of V vectors [R, n], [R, V, V], in pieces: a stack of all would be V more copies."""
    total: Tensor | None = None
    for parts in zip(*(vector.split(_PIECE, dim=1) for vector in vectors), strict=True):
        stacked = torch.stack(parts, dim=1)
        products = stacked @ stacked.mT
        total = products if total is None else total + products
    assert total is not None
    return total


def _sign_changes(before: Tensor, now: Tensor) -> Tensor:
    """Return the fraction of the elements that move in both steps whose update changes its sign."""
    signs = (before * now).sign_()
    balance = signs.sum(1)
    moving = signs.abs_().sum(1)
    return (moving - balance) / (2 * moving)


def _dead_units(rule: Rule, places: Sequence[int], first: Snapshot, second: Snapshot) -> Tensor:
    """Return the fraction of units, rows of these matrices and kernels, whose gradient was zero in both steps."""
    parts = first.gradient.abs().add_(second.gradient.abs()).split(rule.sizes, dim=1)
    largest = [parts[place].unflatten(1, (rule.rows[place], -1)).amax(-1) for place in places]
    return 1 - torch.cat(largest, dim=1).sign_().mean(1)


def quantities(
    rule: Rule, settings: Sequence[Settings], lr_before: float, numbers: Mapping[str, Any]
) -> dict[str, float]:
    """Return the tags of one member's probe from what `compared` has found; nan for what is not defined."""
    gram = numbers["gram"]
    before, now = numbers.get("coefficient_before", 1.0), numbers.get("coefficient", 1.0)
    s1, g1, g2 = 0, 2, 3
    signal = gram[g1][g2] / (before * now) if before * now else math.nan
    power = (gram[g1][g1] / before**2 + gram[g2][g2] / now**2) / 2 if before * now else math.nan
    row = {
        "probe/signal": float(signal),
        "probe/noise": float(power - signal),
        "probe/alpha": _ratio(-gram[g2][s1] * before, gram[g1][s1] * now),
        "probe/momentum_cosine": _ratio(-gram[g2][s1], math.sqrt(gram[g2][g2] * gram[s1][s1])),
        "probe/sign_changes": numbers["sign_changes"],
    }
    if "dead_units" in numbers:
        row["probe/dead_units"] = numbers["dead_units"]
    lr, sign = float(settings[0]["lr"]), -1.0 if settings[0].get("maximize") else 1.0
    linear = rule.kind == "SGD"
    if linear or (rule.kind is None and "momentum" in settings[0]):
        rate, residual = effective_rate(gram, lr / lr_before if lr_before else 1.0)
        if sign * rate > 0 and residual < (LARGEST_RESIDUAL if linear else LARGEST_RESIDUAL_OF_UNKNOWN):
            row |= {"probe/effective_lr": sign * rate, "probe/fit_residual": residual}
    return row


def effective_rate(gram: Sequence[Sequence[float]], lr_growth: float = 1.0) -> tuple[float, float]:
    """Return the effective learning rate that two steps reveal, and the relative residual of the fit.

    s_p = a s_{p−1} − c1 d_p − c0 d_{p−1} holds exactly for SGD: a = μ, c1 = lr (1 − τ), c0 = 0; with Nesterov
    a = μ, c1 = lr (1 + μ), c0 = −lr μ. The gain for a constant gradient is (c1 + c0) / (1 − a). `gram` is that of
    `compared`; `lr_growth` is lr_p / lr_{p−1}. Parallel vectors leave open how much of the step is momentum, as after
    the very first update: the answer is then nan, with an infinite residual, unless there is no momentum at all.
    """
    d1, d2 = ([2, 4], [3, 5]) if len(gram) == 6 else ([2], [3])
    parts = {"s1": [0], "s2": [1], "d1": d1, "d2": d2}

    def product(one: str, other: str) -> float:
        return sum(gram[row][column] for row in parts[one] for column in parts[other])

    powers = {name: product(name, name) for name in parts}
    if lr_growth <= 0 or not all(math.isfinite(power) and power > 0 for power in powers.values()):
        return math.nan, math.inf
    length = {name: math.sqrt(power) for name, power in powers.items()}
    known = ("s1", "d2", "d1")
    cosines = [[product(one, other) / length[one] / length[other] for other in (*known, "s2")] for one in known]
    wanted = [cosine.pop() for cosine in cosines]
    solution, _, rank, _ = np.linalg.lstsq(cosines, wanted, rcond=1e-6)
    weights = solution.tolist()
    if rank < len(known) and abs(weights[0]) > 1e-3:
        return math.nan, math.inf
    explained = sum(weight * cosine for weight, cosine in zip(weights, wanted, strict=True))
    a, c1, c0 = (weight * length["s2"] / length[name] for weight, name in zip(weights, known, strict=True))
    rate = -(c1 + c0) / (1 - a / lr_growth) if a != lr_growth else math.nan
    return rate, math.sqrt(max(0.0, 1 - explained))


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else math.nan
