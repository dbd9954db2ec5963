"""From the curves of several seeds to one recommendation, and in plain words whether it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from optexp.range_test.smoothing import Array, smoothed_loss
from optexp.range_test.suggestions import HIGH, LOW, MIDDLE, RULES, steepest_place
from optexp.range_test.sweep import Curve, Sweep

LARGEST_SPREAD = 0.3
"""Decades: the standard deviation over seeds up to which the steepest point counts as one. It is a factor of 2."""

SMALLEST_FALL = 0.01
"""The loss must fall by this part of its first value, and by four standard errors, to have fallen at all."""

EDGE = 0.02
"""A steepest point in this first part of the range, and a minimum in this last part, lie at its ends."""


@dataclass(frozen=True)
class Suggestions:
    """What one seed suggests: a learning rate for each rule of `RULES`, none where the loss never falls."""

    curve: Curve
    smoothed: Array
    rates: dict[str, float]
    at_start: bool = False
    at_end: bool = False

    @property
    def falls(self) -> bool:
        return bool(self.rates)


@dataclass(frozen=True)
class Advice:
    """What all seeds together suggest. `problems` say why it is not to be trusted; none: it is.

    `means` are geometric means over the seeds whose loss falls, `spreads` standard deviations in decades (None of one
    seed), both by rule; empty where no loss falls.
    """

    seeds: list[Suggestions]
    means: dict[str, float]
    spreads: dict[str, float | None]
    problems: list[str]

    @property
    def trusted(self) -> bool:
        return not self.problems

    @property
    def window(self) -> tuple[float, float] | None:
        """The recommended learning rates: a tenth to a half of the steepest point."""
        mean = self.means.get("steepest")
        return None if mean is None else (LOW * mean, HIGH * mean)

    @property
    def middle(self) -> float | None:
        """The middle of the window on a logarithmic scale, 0.22 of the steepest point."""
        mean = self.means.get("steepest")
        return None if mean is None else MIDDLE * mean


def suggestions_of(curve: Curve, sweep: Sweep) -> Suggestions:
    """Apply all rules to the smoothed curve of one seed."""
    rates = sweep.rates
    if len(curve.losses) < 2:
        return Suggestions(curve, np.array(curve.losses), {})
    smoothed = smoothed_loss(curve.losses, sweep.beta)
    if not _falls(curve.losses, smoothed, sweep.beta):
        return Suggestions(curve, smoothed, {})
    place = steepest_place(rates, smoothed)
    return Suggestions(
        curve,
        smoothed,
        {name: rule(rates, smoothed) for name, rule in RULES.items()},
        at_start=place < EDGE * len(rates),
        at_end=curve.ended is None and int(smoothed.argmin()) >= (1 - EDGE) * (len(rates) - 1),
    )


def _falls(losses: Sequence[float], smoothed: Array, beta: float) -> bool:
    """Return whether the smoothed loss comes down from its first value by more than noise.

    The noise of a single loss is that of the differences from step to step; the mean at the first step has the weights
    β^j (1 − β) and hence (1 − β)/(1 + β) of its variance.
    """
    noise = float(np.median(np.abs(np.diff(losses)))) / (0.6745 * math.sqrt(2))
    error = noise * math.sqrt((1 - beta) / (1 + beta))
    fall = float(smoothed[0] - smoothed.min())
    return fall > max(4 * error, SMALLEST_FALL * abs(float(smoothed[0])))


def advise(curves: Sequence[Curve], sweep: Sweep) -> Advice:
    """Combine the suggestions of all seeds."""
    seeds = [suggestions_of(curve, sweep) for curve in curves]
    known = [seed.rates for seed in seeds if seed.falls]
    decades = {name: [math.log10(rates[name]) for rates in known] for name in RULES} if known else {}
    means = {name: 10 ** fmean(values) for name, values in decades.items()}
    spreads = {name: stdev(values) if len(values) > 1 else None for name, values in decades.items()}
    return Advice(seeds, means, spreads, _problems(seeds, sweep, spreads.get("steepest")))


def _problems(seeds: Sequence[Suggestions], sweep: Sweep, spread: float | None) -> list[str]:
    """Say what speaks against the suggestion, each with what to do about it."""
    found = []

    def share(number: int) -> str:
        return f"on {number} of {len(seeds)} seeds" if len(seeds) > 1 else "here"

    flat = sum(not seed.falls for seed in seeds)
    if flat:
        found.append(
            f"the loss never falls {share(flat)}, so there is nothing to read off; try more steps "
            f"(task.num_iter={2 * sweep.num_iter}) or another range (task.start_lr, task.end_lr)"
        )
    if spread is not None and spread > LARGEST_SPREAD:
        found.append(
            f"the steepest point differs between seeds by {spread:.2f} decades (standard deviation; up to "
            f"{LARGEST_SPREAD} counts as one point), so another seed would give another answer; try more seeds "
            f"(task.seeds={2 * len(seeds)}), more smoothing (task.smoothing={2 * sweep.smoothing or 0.2:g}) or a "
            "larger batch"
        )
    if early := sum(seed.at_start for seed in seeds):
        lower = f"{sweep.start_lr / 100:g}"
        found.append(f"the loss falls fastest at the start of the range {share(early)}; try task.start_lr={lower}")
    if late := sum(seed.at_end for seed in seeds):
        higher = f"{sweep.end_lr * 100:g}"
        found.append(f"the loss still falls at the end of the range {share(late)}; try task.end_lr={higher}")
    if len(seeds) == 1:
        found.append("one seed cannot tell whether another would give the same answer; try task.seeds=5")
    return found
