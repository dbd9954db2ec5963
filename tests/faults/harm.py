"""Which plants count: faults that really harm their run, and healthy runs that really train.

The rule was fixed before any run was diagnosed. A run is judged by its final val/loss beside the reference runs of its
family and optimizer: healthy settings at the good learning rate, on several seeds. It is harmed when it did not come to
its end with a finite loss, or when it lacks more than a tenth of the decrease that the reference makes from the loss of
predicting frequencies without looking at the inputs, and lies more than three standard deviations of the reference's
seeds above their mean. A plant that fails the rule is dropped, and counted as dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from plants import Plant

from optexp.records.reading import Run

LACKING = 0.1
SPREADS = 3.0
GOOD_AT_FIRST = 0.7
"""What a run with late oscillation must have made, at some evaluation, of the decrease that the reference makes."""


@dataclass(frozen=True)
class Reference:
    """How the healthy runs of one optimizer end: mean and spread of val/loss; `start` is that of frequencies."""

    mean: float
    spread: float
    start: float

    @classmethod
    def of(cls, losses: Sequence[float], start: float) -> Reference:
        """Make it from the final losses of several seeds."""
        return cls(fmean(losses), stdev(losses), start)

    @property
    def limit(self) -> float:
        """The val/loss above which a run is harmed."""
        return self.mean + max(LACKING * (self.start - self.mean), SPREADS * self.spread)


def final_loss(run: Run) -> float:
    """Return the last val/loss of a run; infinite unless it came to its end with a finite one."""
    loss = run.metrics.get("val/loss")
    if run.status not in ("completed", "early_stopped") or loss is None or not math.isfinite(loss):
        return math.inf
    return loss


def references(plants: Sequence[Plant], runs: Sequence[Run]) -> dict[str, Reference]:
    """Return the reference of each optimizer of a family."""
    losses: dict[str, list[float]] = {}
    for plant, run in zip(plants, runs, strict=True):
        if plant.reference:
            losses.setdefault(plant.kind, []).append(final_loss(run))
            start = frequencies_loss(run)
    return {kind: Reference.of(values, start) for kind, values in losses.items()}


def frequencies_loss(run: Run) -> float:
    """Return the val/loss of predicting how frequent the classes or tokens are, as the run recorded it."""
    baselines = run.info["baselines"]
    return float(baselines.get("class frequencies") or baselines["token frequencies"])


def counted(plants: Sequence[Plant], runs: Sequence[Run]) -> list[bool]:
    """Return for each plant of a family whether it counts: a healthy one that trained, or a fault that did harm.

    Late oscillation is more than harm: the run must have been good at first, and its twin, the same with a cosine
    schedule, must be healthy on the mean of its seeds. Otherwise its step is too large from the beginning.
    """
    reference = references(plants, runs)
    twins: dict[str, list[float]] = {}
    for plant, run in zip(plants, runs, strict=True):
        if plant.cause is None:
            twins.setdefault(plant.arm, []).append(final_loss(run))
    found = []
    for plant, run in zip(plants, runs, strict=True):
        own = reference[plant.kind]
        harmed = final_loss(run) > own.limit
        counts = harmed == (plant.cause is not None)
        if plant.twin is not None:
            best = min(loss for loss in run.series("val/loss")[1] if math.isfinite(loss))
            good_at_first = own.start - best >= GOOD_AT_FIRST * (own.start - own.mean)
            counts = counts and good_at_first and fmean(twins[plant.twin]) <= own.limit
        found.append(counts)
    return found
