"""Measure a table: tune every optimizer alike, train it on the judged seeds, weigh and time its step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from optexp.assemble import Training
from optexp.engine.runtime import describe, prepare
from optexp.errors import BadInput
from optexp.optimizer_table.cost import Memory, StepTime, measure_memory, measure_times, training_of
from optexp.optimizer_table.outcomes import Curve, Outcome, median_steps, outcomes_in, within
from optexp.optimizer_table.plan import Contestant, Plan
from optexp.records.console import say
from optexp.records.numbers import setting
from optexp.statistics import t_interval
from optexp.sweeps.members import train_members
from optexp.sweeps.record import SweepRecord

LEVEL = 0.95
"""Of the interval of each final metric."""

TARGET_TOLERANCE = 0.05
"""The target, where none is given: within so much of the best final mean of all."""

Costs = tuple[dict[str, Memory], dict[str, StepTime | None]]


def measure(plan: Plan, metric: str, path: Path, command: Sequence[str]) -> dict[str, Any]:
    """Return the table as plain values; see `table_of`. Everything trained lies below `path`, in ordinary sweeps.

    Raises SystemExit when a signal has ended one of them.
    """
    lower_is_better = metric == "val/loss"
    tuned, curves = _tune(plan, metric, path, command)
    chosen = {name: curve.rates[curve.best] for name, curve in curves.items() if curve.best is not None}
    judged: list[Outcome] = []
    if chosen:
        _train(
            plan, plan.record({name: [lr] for name, lr in chosen.items()}, plan.judged_seeds, command), path / "final"
        )
        judged = outcomes_in(path / "final", metric)
    return table_of(plan, metric, curves, tuned, judged, _costs(plan, chosen), lower_is_better)


def _tune(plan: Plan, metric: str, path: Path, command: Sequence[str]) -> tuple[list[Outcome], dict[str, Curve]]:
    """Train the grids, widened for all alike while the best of one lies on an edge."""
    rates: Mapping[str, Sequence[float]] = {c.name: c.rates for c in plan.contestants}
    outcomes: list[Outcome] = []
    for widening in range(plan.settings.widenings + 1):
        folder = path / (f"tune-{widening + 1}" if widening else "tune")
        _train(plan, plan.record(rates, plan.tuning_seeds, command), folder)
        outcomes += outcomes_in(folder, metric)
        curves = {c.name: Curve.of(outcomes, c.name, metric == "val/loss") for c in plan.contestants}
        on_edge = {name: curve.edge for name, curve in curves.items()}
        if not any(on_edge.values()) or widening == plan.settings.widenings:
            break
        named = [f"{name} ({edge})" for name, edge in on_edge.items() if edge]
        say(f"best learning rate on an edge: {', '.join(named)}; two more for every optimizer")
        rates = plan.widened(on_edge)
    return outcomes, curves


def _train(plan: Plan, record: SweepRecord, folder: Path) -> None:
    """Train a sweep. Raises SystemExit when a signal has ended it."""
    folder.mkdir()
    record.create(folder)
    say(f"{folder.name}: {len(record.members)} runs")
    status = train_members(plan.composer, record, folder)
    if status > 128:
        raise SystemExit(status)


def _costs(plan: Plan, rates: Mapping[str, float]) -> Costs:
    """Measure memory and time of every contestant that has a learning rate, with plain SGD beside them."""
    say("memory and time of a step")
    reference = next((c for c in plan.contestants if c.words == plan.reference.words), plan.reference)
    able = [c for c in plan.contestants if c.name in rates]
    everyone = list({c.name: c for c in [reference, *able]}.values())
    lrs = {c.name: rates.get(c.name, c.default_lr) for c in everyone}
    composed = {c.name: plan.composed(c, lrs[c.name]) for c in everyone}
    trainings = {name: training_of(one) for name, one in composed.items()}
    first = trainings[reference.name]
    prepare(first.device, first.engine.threads, first.flops_per_step)
    measure_memory(composed[reference.name], lrs[reference.name])  # the libraries' own workspaces come with the first
    memory = {name: measure_memory(one, lrs[name]) for name, one in composed.items()}
    return memory, measure_times(trainings, lrs, reference.name, plan.settings.repeats)


def facts(training: Training, choices: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what was trained, for whoever reads the table."""
    plan = training.plan
    return {
        **{group: choices.get(group) for group in ("model", "dataset", "schedule")},
        "parameters": sum(p.numel() for p in training.model.parameters() if p.requires_grad),
        "batch_size": plan.samples_per_step,
        "steps": plan.total_steps,
        "device": describe(training.device),
        "threads": torch.get_num_threads(),
    }


def table_of(
    plan: Plan,
    metric: str,
    curves: Mapping[str, Curve],
    tuned: Sequence[Outcome],
    judged: Sequence[Outcome],
    costs: Costs,
    lower_is_better: bool,
) -> dict[str, Any]:
    """Return the table: how it was made, and a row of plain values for every optimizer, in the order asked for."""
    settings = plan.settings
    finals = {
        c.name: [o.final for o in judged if o.optimizer == c.name and o.final is not None] for c in plan.contestants
    }
    target = settings.target
    if target is None:
        means = [fmean(values) for values in finals.values() if values]
        best = (min(means) if lower_is_better else max(means)) if means else None
        target = None if best is None else within(best, TARGET_TOLERANCE, lower_is_better)
    memory, times = costs
    rows = []
    for contestant in plan.contestants:
        name = contestant.name
        own = [outcome for outcome in judged if outcome.optimizer == name]
        rows.append(
            _numbers(contestant, curves[name], finals[name], settings.tolerance)
            | _reached(own, target, lower_is_better)
            | _cost(memory.get(name), times.get(name))
            | {"remarks": _remarks(contestant, curves[name], tuned, own, memory.get(name), times.get(name))}
        )
    return {
        "metric": metric,
        "lower_is_better": lower_is_better,
        "tolerance": settings.tolerance,
        "target": target,
        "target_tolerance": None if settings.target is not None else TARGET_TOLERANCE,
        "eval_every": settings.eval_every,
        "rates": len(plan.contestants[0].rates),
        "rates_per_decade": settings.rates_per_decade,
        "tuning_seeds": plan.tuning_seeds,
        "seeds": plan.judged_seeds,
        "level": LEVEL,
        "repeats": settings.repeats,
        "runs": len(tuned) + len(judged),
        "optimizers": rows,
    }


def _numbers(contestant: Contestant, curve: Curve, finals: Sequence[float], tolerance: float) -> dict[str, Any]:
    window = curve.window(tolerance)
    interval = asdict(t_interval(finals, LEVEL)) if len(finals) > 1 else None
    return {
        "optimizer": contestant.name,
        "default_lr": contestant.default_lr,
        "lr": None if curve.best is None else curve.rates[curve.best],
        "final": interval,
        "finals": list(finals),
        "window": None if window is None else asdict(window),
        "curve": {"rates": list(curve.rates), "values": list(curve.values)},
    }


def _reached(own: Sequence[Outcome], target: float | None, lower_is_better: bool) -> dict[str, Any]:
    median, reached = (None, 0) if target is None else median_steps(own, target, lower_is_better)
    return {"steps_to_target": median, "reached": reached}


def _cost(memory: Memory | None, step_time: StepTime | None) -> dict[str, Any]:
    return {
        "state_bytes_per_parameter": memory and memory.state_per_parameter,
        "peak_bytes_per_parameter": memory and memory.peak_per_parameter,
        "seconds_per_step": step_time and step_time.seconds,
        "time_ratio": step_time and {"median": step_time.ratio, "low": step_time.low, "high": step_time.high},
    }


def _remarks(
    contestant: Contestant,
    curve: Curve,
    tuned: Sequence[Outcome],
    judged: Sequence[Outcome],
    memory: Memory | None,
    step_time: StepTime | None,
) -> list[str]:
    """Return what a reader must know about a row that its numbers do not tell."""
    remarks = []
    own = [outcome for outcome in tuned if outcome.optimizer == contestant.name]
    if curve.best is None:
        remarks.append("no learning rate of its grid brought all runs to an end")
    elif curve.edge:
        end = {"low": "smallest", "high": "largest"}[curve.edge]
        remarks.append(f"best learning rate is the {end} of its grid")
    for stage, outcomes in (("tuning", own), ("judged", judged)):
        for status in dict.fromkeys(outcome.status for outcome in outcomes if outcome.final is None):
            bad = [outcome for outcome in outcomes if outcome.final is None and outcome.status == status]
            lowest = min(outcome.lr for outcome in bad)
            where = f" from lr {setting(lowest)} on" if stage == "tuning" else ""
            reason = f" ({bad[0].reason})" if status == "failed" and bad[0].reason else ""
            told = "without a metric" if status == "completed" else status
            remarks.append(f"{len(bad)} of {len(outcomes)} {stage} runs {told}{where}{reason}")
    if memory is not None and step_time is None:
        remarks.append("no time: diverged while it was timed")
    if memory is not None and memory.grows:
        remarks.append("state still grows after the steps it was measured in")
    return remarks


def metric_of(training: Training, wanted: str | None) -> str:
    """Return the metric of a table: the one that was asked for, else accuracy where there is one. Raises BadInput."""
    has_accuracy = training.program.objective.has_accuracy
    if wanted == "val/accuracy" and not has_accuracy:
        raise BadInput(f"task.metric=val/accuracy: {training.dataset.name} is a regression; allowed is val/loss")
    return wanted or ("val/accuracy" if has_accuracy else "val/loss")


def main_numbers(table: Mapping[str, Any]) -> dict[str, float]:
    """Return the final metric of each optimizer by `optimizer/metric`, for lists of runs."""
    found = {f"{row['optimizer']}/{table['metric']}": row["final"] for row in table["optimizers"]}
    return {name: final["estimate"] for name, final in found.items() if final and math.isfinite(final["estimate"])}
