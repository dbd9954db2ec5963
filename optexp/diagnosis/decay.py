"""Causes in weight decay: too strong, or coupled to an adaptive step."""

from __future__ import annotations

import math

from optexp.diagnosis.account import is_adaptive
from optexp.diagnosis.candidates import Candidate, Case
from optexp.diagnosis.values import log10, nice, percent
from optexp.records.numbers import measured, setting

COUPLED = ("Adam", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta")
"""Adaptive rules of torch whose weight decay is an L2 penalty inside the gradient, unless told otherwise."""


def is_coupled(case: Case) -> bool:
    return case.history.optimizer in COUPLED and not case.measures.setting("decoupled_weight_decay")


def weight_decay_too_strong(case: Case) -> Candidate | None:
    """Decay alone would shrink the weights by much within the run, and is a good part of every update."""
    measures, rate = case.measures, _rate(case)
    decay, update = measures.number("weight_decay"), measures.update.median()
    if not rate or not update or decay <= 0 or not case.outcome.failed:
        return None
    folds, part = rate * decay * measures.steps, rate * decay / update
    growth = measures.weight_growth or 0.0
    evidence = [
        f"weight decay {setting(decay)} alone shrinks the weights by a factor of e^{folds:.1f} in the run "
        "(effective lr · weight_decay · steps)",
        f"its share of an update is {percent(min(part, 1.0))}",
    ]
    if growth < -0.1:
        evidence.append(f"the weights fell to {percent(10**growth)} of their size at the start")
    score = min(log10(folds) + 0.2, log10(part) + 0.8, 2 * (0.3 - growth))
    if is_coupled(case):  # what the rule makes of the penalty is another matter, see below
        score = min(score, log10(folds / 10))
    least = (f"optimizer.weight_decay={setting(nice(decay * min(0.1, 0.1 / folds)))}",)
    return Candidate("weight-decay-too-strong", score, tuple(evidence), least)


def l2_coupled_to_adaptive_step(case: Case) -> Candidate | None:
    """The penalty outweighs the gradient in a rule that scales their sum to the learning rate."""
    rate, decay = _rate(case), case.measures.number("weight_decay")
    if not is_coupled(case) or not case.outcome.failed or not rate or decay <= 0:
        return None
    ratio = _first_ratio(case)
    if ratio is None:
        return None
    folds = rate * decay * case.measures.steps
    growth = case.measures.weight_growth or 0.0
    evidence = [
        f"{case.history.optimizer} divides gradient and L2 penalty by their common size, and at the start the penalty "
        f"(weight decay {setting(decay)}) is {measured(ratio)} times the gradient: the step follows the penalty",
        f"decoupled, the same decay would take {percent(1 - math.exp(-folds))} of the weights in the whole run",
    ]
    if growth < -0.1:
        evidence.append(f"the weights fell to {percent(10**growth)} of their size at the start")
    if "optimizer.decoupled_weight_decay" in case.history.config:
        words = ("optimizer.decoupled_weight_decay=true",)
    else:
        words = (f"optimizer.weight_decay={setting(nice(decay * 0.03 / ratio))}",)
    score = min(log10(ratio) + 0.6, 2 * (0.3 - growth)) - max(0.0, log10(folds / 3))
    return Candidate("l2-coupled-to-adaptive-step", score, tuple(evidence), words)


def _rate(case: Case) -> float | None:
    """Return the mean learning rate that decoupled weight decay would act with."""
    measures = case.measures
    if is_adaptive(measures):
        return measures.lr.mean()
    return measures.curve("optim/effective_lr").mean() or measures.lr.mean()


def _first_ratio(case: Case) -> float | None:
    """Return ‖weight_decay · w‖ / ‖g‖ at the first row, when nothing was learned yet."""
    weight, gradient = case.measures.curve("optim/weight_norm").first, case.measures.gradient.first
    return case.measures.number("weight_decay") * weight / gradient if weight and gradient else None
