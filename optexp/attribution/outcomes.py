"""What the trained members have come to: the metric at the end, and the effective learning rate of their steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from optexp.attribution.games import Combination, Values
from optexp.attribution.plan import Plan
from optexp.records.reading import read_run
from optexp.records.run_directory import RUN_FILE
from optexp.report.effective_rate import amplifies, optimizer_class
from optexp.sweeps.record import SweepRecord

FINISHED = ("completed", "early_stopped")
RATE = "probe/effective_lr"
RATE_OF_SETTINGS = "optim/effective_lr"

RateFrom = Literal["probes", "settings", "not of the SGD type", "not positive", "not logged"]
"""Where an effective learning rate comes from, or why there is none."""

TRIVIAL = ("class frequencies", "token frequencies", "training mean")
"""Names of baselines in run.json that a model reaches without looking far; the first that is there counts."""


@dataclass(frozen=True)
class Outcome:
    """One member: which, how it ended, the metric at its end and its effective learning rate, None where unknown.

    `rate_from` says where the rate comes from, or why there is none.
    """

    combination: Combination
    seed: int
    status: str
    reason: str | None
    value: float | None
    rate: float | None
    rate_from: RateFrom = "probes"


def outcomes_in(folder: Path, plan: Plan) -> list[Outcome]:
    """Read the members of the plan's sweep."""
    found = []
    metric = plan.settings.metric
    for member, (combination, seed) in zip(SweepRecord.read(folder).members, plan.members, strict=True):
        path, status, reason = folder / member.directory, member.status, member.reason
        rows: Sequence[Mapping[str, float]] = []
        baselines: dict[str, Any] = {}
        settings: Mapping[str, Any] = {}
        if (path / RUN_FILE).exists():
            run = read_run(path)
            status, reason, rows = run.status, run.info.get("reason"), run.rows
            baselines, settings = run.info.get("baselines") or {}, run.settings
        value = final_metric(rows, status, metric, trivial_loss(baselines))
        found.append(Outcome(combination, seed, status, reason, value, *effective_rate(rows, settings)))
    return found


def trivial_loss(baselines: Mapping[str, Any]) -> float | None:
    """Return the loss of a model that has learned nothing of its inputs, None where the run does not record it."""
    return next((float(baselines[name]) for name in TRIVIAL if baselines.get(name) is not None), None)


def final_metric(rows: Sequence[Mapping[str, float]], status: str, metric: str, trivial: float | None) -> float | None:
    """Return the metric that a run counts with: the last one of a run that came to its end.

    A run that diverged is worth no more than a model that has learned nothing: it counts with the trivial loss, or
    with its last finite loss where that is larger; of accuracy, with that of guessing, exp(−trivial loss), or its last
    one where that is smaller. Without a baseline its last value is all there is. None for a run that has no such value
    or did not come to an end.
    """
    values = [row[metric] for row in rows if metric in row]
    if status in FINISHED:
        return values[-1] if values and math.isfinite(values[-1]) else None
    if status != "diverged":
        return None
    known = [value for value in values if math.isfinite(value)][-1:]
    if metric == "val/loss":
        return max([*known, *([] if trivial is None else [trivial])], default=None)
    return min([*known, *([] if trivial is None else [math.exp(-trivial)])], default=None)


def measured_rate(rows: Sequence[Mapping[str, float]]) -> float | None:
    """Return the effective learning rate of a run's steps, measured from updates and gradients: median over probes.

    None where no probe of the run could measure it, as with Adam. Under a schedule it is that of the middle of the run.
    """
    values = [row[RATE] for row in rows if math.isfinite(row.get(RATE, math.nan)) and row[RATE] > 0]
    return median(values) if values else None


def effective_rate(rows: Sequence[Mapping[str, float]], settings: Mapping[str, Any]) -> tuple[float | None, RateFrom]:
    """Return the effective learning rate of a run, and where it comes from, or None and why there is none.

    It is `measured_rate`. An SGD that ended before a probe, as one that diverges early, has that of its settings at the
    last logged step, `lr · (1 − dampening) / (1 − momentum)`, which is what probes of SGD measure.
    """
    rate = measured_rate(rows)
    if rate is not None:
        return rate, "probes"
    if not (amplifies(settings) and optimizer_class(settings) == "SGD"):  # RMSprop's is in front of another factor
        return None, "not of the SGD type"
    if settings.get("optimizer.maximize"):
        return None, "not positive"
    logged = [row[RATE_OF_SETTINGS] for row in rows if row.get(RATE_OF_SETTINGS, 0) > 0]
    return (logged[-1], "settings") if logged else (None, "not logged")


@dataclass(frozen=True)
class Measured:
    """The numbers of all combinations on the seeds that every one of them has a value on.

    `rates` is None where some member has no effective learning rate. `rates_from` counts the members of each
    combination by where their rates come from, or why they have none.
    """

    seeds: list[int]
    values: dict[Combination, Values]  # [S]
    rates: dict[Combination, Values] | None  # [S]
    statuses: dict[Combination, dict[str, int]]
    left_out: dict[int, str]  # seeds that were trained and do not count, with the reason
    rates_from: dict[Combination, dict[RateFrom, int]] = field(default_factory=dict)


def measured(outcomes: Sequence[Outcome]) -> Measured:
    """Put outcomes together by combination: a seed counts only where it has a value with all of them (paired)."""
    seeds = list(dict.fromkeys(outcome.seed for outcome in outcomes))
    lost = {outcome.seed: f"{outcome.status}: {outcome.reason}" for outcome in outcomes if outcome.value is None}
    kept = [seed for seed in seeds if seed not in lost]
    statuses: dict[Combination, dict[str, int]] = {}
    values: dict[Combination, list[float]] = {}
    rates: dict[Combination, list[float | None]] = {}
    rates_from: dict[Combination, dict[RateFrom, int]] = {}
    for outcome in outcomes:
        counts = statuses.setdefault(outcome.combination, {})
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
        if outcome.seed in kept and outcome.value is not None:
            values.setdefault(outcome.combination, []).append(outcome.value)
            rates.setdefault(outcome.combination, []).append(outcome.rate)
            sources = rates_from.setdefault(outcome.combination, {})
            sources[outcome.rate_from] = sources.get(outcome.rate_from, 0) + 1
    known = {combination: np.array([rate for rate in each if rate is not None]) for combination, each in rates.items()}
    complete = all(len(known[combination]) == len(kept) for combination in known)
    return Measured(
        kept,
        {combination: np.array(each) for combination, each in values.items()},
        known if complete and known else None,
        statuses,
        lost,
        rates_from,
    )
