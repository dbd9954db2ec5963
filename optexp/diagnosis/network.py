"""Causes in the network: how gradients pass through its layers, units that are dead, parameters that are frozen."""

from __future__ import annotations

import math

from optexp.diagnosis.account import is_adaptive
from optexp.diagnosis.candidates import Candidate, Case
from optexp.diagnosis.values import decades, percent
from optexp.records.numbers import measured

FAILED = ("slow", "stalled", "unstable", "diverged")


def vanishing_gradients(case: Case) -> Candidate | None:
    """Gradients fall towards the input by decades."""
    profile = _profile(case)
    if profile is None or case.outcome.name not in ("slow", "stalled"):
        return None
    per_layer, fall, first, last = profile
    evidence = (
        f"the gradient of {first} is {decades(fall)} smaller than that of {last}: {abs(per_layer):.2f} per layer",
    )
    return Candidate("vanishing-gradients", fall - 1.7, evidence) if fall > 0 else None


def exploding_gradients(case: Case) -> Candidate | None:
    """Gradients grow towards the input by decades, or are large against the weights before anything was learned."""
    measures, profile = case.measures, _profile(case)
    if case.outcome.name not in FAILED:
        return None
    gradient, weight = measures.gradient.first, measures.curve("optim/weight_norm").first
    scores, evidence = [], []
    if gradient and weight:
        relative = math.log10(gradient / weight)
        scores.append(relative - 0.7)
        if relative > 0:
            evidence.append(
                f"at the first step the gradient's norm is {measured(gradient)}, {10**relative:.3g} times the weights'"
            )
    if profile is not None and profile[1] < 0:
        _, fall, first, last = profile
        scores.append(-fall - 1.7)
        evidence.append(f"the gradient of {first} is {decades(-fall)} larger than that of {last}")
    if not evidence:
        return None
    # Where clipping is on already, or the rule divides by the gradient's size, the initial weights are at fault.
    words = () if case.history.clip_norm or is_adaptive(measures) else ("engine.clip_norm=1.0",)
    return Candidate("exploding-gradients", max(scores), tuple(evidence), words)


def dead_units(case: Case) -> Candidate | None:
    """More than half of the units pass no gradient."""
    curve = case.measures.curve("probe/dead_units")
    dead = case.measures.late("probe/dead_units")
    if dead is None or case.outcome.name not in FAILED:
        return None
    evidence = (
        f"{percent(dead)} of the units had no gradient at all in two successive steps "
        f"({percent(curve.values[0])} at step {int(curve.steps[0]):,})",
    )
    start = min(curve.values[0], dead)
    moved = abs(case.measures.weight_growth or 0.0)  # units that large steps have killed leave large weights behind
    return Candidate("dead-units", min(4 * (dead - 0.7), 4 * (start - 0.5), 4 * (0.3 - moved)), evidence)


def frozen_parameters(case: Case) -> Candidate | None:
    """A large part of the parameters is not trained."""
    share = case.measures.trainable_share
    if share is None or share == 1 or case.outcome.name not in FAILED:
        return None
    evidence = (f"of {case.history.parameters:,} parameters {case.history.trainable:,} are trained ({percent(share)})",)
    return Candidate("frozen-parameters", 3 * (0.6 - share), evidence)


def _profile(case: Case) -> tuple[float, float, str, str] | None:
    """Return (decades per layer, fall of the gradient from last to first layer, first, last layer); by a line fit."""
    layers = [(name, max(size, -30.0)) for name, size in case.measures.layers]
    if len(layers) < 4:
        return None
    count = len(layers)
    middle, mean = (count - 1) / 2, math.fsum(size for _, size in layers) / count
    spread = math.fsum((index - middle) ** 2 for index in range(count))
    slope = math.fsum((index - middle) * (size - mean) for index, (_, size) in enumerate(layers)) / spread
    fall, ends = slope * (count - 1), layers[-1][1] - layers[0][1]
    # Inner layers of a residual block may have hardly any gradient at first, which says nothing of the others.
    fall = math.copysign(min(abs(fall), abs(ends)), fall) if fall * ends > 0 else 0.0
    return slope, fall, layers[0][0], layers[-1][0]
