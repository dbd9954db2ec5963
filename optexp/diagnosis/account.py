"""How far the weights could travel against how far they need to, and which settings take the difference.

All in decades (log10). The step is a product, so what each factor takes away adds up to the whole shortfall: learning
rate, schedule, dampening, clipping, and the factor of an adaptive rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from optexp.diagnosis.curves import Curve
from optexp.diagnosis.measures import WHOLE_STEP, Measures

GOOD_UPDATE, GOOD_ADAPTIVE_UPDATE = 10**-2.25, 10**-1.6
"""Update ratio ‖Δw‖/‖w‖ per step at the best learning rates from random weights; adaptive rules begin with larger ones.

Fitted on MLPs and residual networks. The rule of thumb says 1e-3 (A. Karpathy, CS231n, "Ratio of weights:updates").
"""

LEAST_UPDATE = 10**-2.25
"""Update ratio below which the same networks are the worse for it within some hundred steps, whatever the rule."""

LEAST_PATH = 0.4
"""Σ ‖Δw‖/‖w‖ that the same networks need however long the run: what is learned must replace what was random."""

ADAPTIVE = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Lion", "AdaFactor")
"""Rules whose step does not grow with the gradient: clipping and small gradients do not shrink it."""

MOST = 0.6
"""Share of the shortfall from which one setting is the cause of it, and a small learning rate comes second."""

FULL_DIRECTION = 0.3
"""Size of an update element in units of the learning rate, as Adam's are early in training: 1 would be a sign."""


@dataclass(frozen=True)
class Account:
    """Where the step went. All but `path` and `needed` (Σ ‖Δw‖/‖w‖) are in decades.

    `parts` has what is taken away, as positive numbers. `shortfall` is the distance to a good step, `lacking` that to
    the least that would do.
    `rest` is the part of the shortfall that no other setting explains: it is the learning rate's.
    """

    path: float
    needed: float
    least: float
    parts: dict[str, float]

    @property
    def shortfall(self) -> float:
        return math.log10(self.needed / self.path) if self.path > 0 else math.inf

    @property
    def lacking(self) -> float:
        return math.log10(self.least / self.path) if self.path > 0 else math.inf

    @property
    def dominant(self) -> str | None:
        """The part that takes most of the shortfall, if one does."""
        name = max(self.parts, key=lambda name: self.parts[name], default=None)
        return name if name is not None and self.parts[name] >= MOST * self.lacking else None

    @property
    def rest(self) -> float:
        return self.shortfall - math.fsum(self.parts.values())


def account(measures: Measures) -> Account | None:
    """Return where the step went; None where the updates were not measured."""
    path = measures.path
    if path is None or measures.steps == 0:
        return None
    planned = max(measures.total, measures.steps)
    least = max(min(LEAST_PATH, WHOLE_STEP * planned), LEAST_UPDATE * planned)
    needed = least * good_update(measures) / LEAST_UPDATE
    parts = {
        "dampening": dampening(measures),
        "clipping": clipping(measures),
        "schedule": schedule(measures),
        **adaptive(measures),
    }
    return Account(
        path * planned / measures.steps, needed, least, {name: part for name, part in parts.items() if part > 0.05}
    )


def good_update(measures: Measures) -> float:
    """Return the update ratio of a good step under the run's rule. Lion's elements are alike from the start."""
    return GOOD_ADAPTIVE_UPDATE if is_adaptive(measures) and measures.history.optimizer != "Lion" else GOOD_UPDATE


def dampening(measures: Measures) -> float:
    """Return the decades that dampening takes from the step in the long run: −log10(1 − dampening), exactly.

    torch ignores dampening where momentum is 0. It leaves the first gradient of a run whole, so that no dampening takes
    more than all the others: a dampening of 1 leaves one gradient of `steps`. Groups that differ have no one answer.
    """
    if not {"dampening", "momentum"}.isdisjoint(measures.history.differing):
        return 0.0
    factor = measures.number("dampening")
    if measures.number("momentum") <= 0 or factor <= 0:
        return 0.0
    return -math.log10(max(1 - factor, 1 / measures.steps))


def clipping(measures: Measures) -> float:
    """Return the decades that clipping takes from the mean gradient; none under a rule that divides by its size."""
    kept = measures.clip_coefficient.mean_of_samples()
    return -math.log10(kept) if kept and not is_adaptive(measures) else 0.0


def schedule(measures: Measures) -> float:
    """Return the decades between the base learning rate and its mean over the run, beyond a usual decay's 0.3."""
    mean, base = measures.lr.mean(), measures.base_lr
    if not mean or not base or mean >= base:
        return 0.0
    return max(0.0, -math.log10(mean / base) - 0.3)


def is_adaptive(measures: Measures) -> bool:
    return measures.history.optimizer in ADAPTIVE


def adaptive(measures: Measures) -> dict[str, float]:
    """Return the decades by which an adaptive rule's updates fall below `FULL_DIRECTION` · lr per element, by reason.

    `epsilon`: eps is as large as the gradient's elements. `exhaustion`: Adagrad's sums have grown or began large, and
    its lr_decay, whose factor 1/(1 + t · lr_decay) is known exactly.
    """
    if not is_adaptive(measures) or not measures.count:
        return {}
    sizes = element_sizes(measures)
    mean = Curve(tuple(step for step, _ in sizes), tuple(size for _, size in sizes)).mean_of_samples()
    missing = max(0.0, math.log10(FULL_DIRECTION / mean)) if mean else 0.0
    if measures.history.optimizer == "Adagrad":
        decay = measures.number("lr_decay")
        kept = math.fsum(1 / (1 + step * decay) for step in range(measures.steps)) / max(measures.steps, 1)
        return {"exhaustion": max(missing, -math.log10(kept) if kept else 0.0)}
    eps, element = measures.number("eps"), gradient_element(measures)
    return {"epsilon": min(missing, math.log10(1 + eps / element))} if eps > 0 and element else {}


def element_sizes(measures: Measures) -> list[tuple[float, float]]:
    """Return (step, root mean square of an update's elements in units of that step's learning rate) of every row."""
    count = measures.count
    sizes = []
    for row in measures.history.rows:
        ratio, weight, lr = (row.get(f"optim/{tag}", math.nan) for tag in ("update_ratio", "weight_norm", "lr"))
        if count and lr > 0 and math.isfinite(ratio * weight):
            sizes.append((row["step"], ratio * weight / (math.sqrt(count) * lr)))
    return sizes


def gradient_element(measures: Measures) -> float | None:
    """Return the root mean square of the gradient's elements, median over the run."""
    norm, count = measures.gradient.median(), measures.count
    return norm / math.sqrt(count) if norm and count else None
