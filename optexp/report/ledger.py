"""The account of a step: what multiplies up to the size of an update relative to the weights, in decades (log10).

    lr · schedule · (1 − dampening) / (1 − momentum) · clipping · ‖gradient‖/‖weight‖ · direction = ‖update‖/‖weight‖

`direction` is what the update rule makes of a gradient beyond the constants: under momentum how far successive
gradients agree (0 when they all do), in rules of Adam's kind the adaptive factor. It holds weight decay, too, which
may be most of it. It is what the measured update leaves over, so that the account always closes; `unexplained` says how
far it misses when the direction, too, is computed, from the optimizer's state. Over several steps every factor is a
geometric mean, because those multiply, as medians do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from optexp.errors import BadInput
from optexp.records.numbers import setting
from optexp.records.reading import Run
from optexp.report.effective_rate import (
    amplifies,
    decades,
    effective_lr,
    factors,
    group_settings,
    logged_amplification,
    momentum_moved,
    optimizer_class,
)

Row = Mapping[str, float]

NEEDED = ("optim/lr", "optim/grad_norm", "optim/weight_norm", "optim/update_ratio")
"""Without these tags nothing can be said about a step."""

SETTINGS = ("lr", "schedule", "dampening", "momentum", "clipping")
"""The factors that are the same for all parameters."""

SAME = 1e-6
"""Decades that tell two factors apart, and not rounding."""

ALL = "all parameters"

ADAPTIVE = re.compile(r"Ada|Adam|RMSprop|Sophia", re.IGNORECASE)
DECOUPLED = re.compile(r"AdamW|^Muon$|^Adafactor$", re.IGNORECASE)


@dataclass(frozen=True)
class Account:
    """The factors of one parameter group's steps, or those of all parameters together.

    `factors` are decades under `lr`, `schedule`, `dampening`, `momentum`, `clipping`, `gradient` and `direction`; their
    sum is `update`, log10 of ‖update‖/‖weight‖. `direction` names what the last of them is for this rule. Where groups
    differ in settings, the account of all parameters has only the factors that are the same in all of them.
    `unexplained` is the largest logged residual, in decades. `decay` is the geometric mean of what weight decay is to
    the gradient (‖weight_decay · w‖/‖g‖), or, for a rule that decays apart from the gradient, to the update.
    """

    name: str
    factors: dict[str, float]
    update: float
    direction: str
    rows: int
    parameters: Mapping[str, Any] | None = None
    unexplained: float | None = None
    decay: float | None = None


@dataclass(frozen=True)
class Rates:
    """Effective learning rates: of the settings, with the schedule, and as measured by probes.

    The latter two are medians over the probed steps; without probes `scheduled` is over all steps looked at. Where the
    momentum moved, the settings have none, and `span` is the least and the largest of the steps looked at. Where the
    parameter groups differ, all are None.
    """

    settings: float | None
    scheduled: float | None
    measured: float | None
    probes: int
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Ledger:
    """The accounts of a run over some of its logged steps: all parameters first, then the groups where logged."""

    run: Run
    steps: tuple[int, ...]
    accounts: tuple[Account, ...]
    rates: Rates
    missing: str | None


def measured_rows(run: Run) -> dict[int, Row]:
    """Return the rows that an account can be made of, by step.

    Raises BadInput when there is none: for a task that is no training, a run that measured nothing, and one whose
    steps were all zero or not finite.
    """
    task = run.info.get("task", "train")
    if task != "train":
        raise BadInput(f"{run.path}: is a task={task}; allowed is a training")
    merged: dict[int, dict[str, float]] = {}
    for row in run.rows:
        merged.setdefault(int(row["step"]), {}).update(row)
    absent = [tag for tag in NEEDED if not any(tag in row for row in merged.values())]
    if absent:
        what = f"no step has logged {', '.join(absent)}" if merged else "no step has been logged"
        raise BadInput(f"{run.path}: {what}, so there is nothing to account for")
    usable: dict[int, Row] = {
        step: row for step, row in merged.items() if all(_decades(row, tag) is not None for tag in NEEDED)
    }
    if not usable:
        steps = [row for row in merged.values() if any(tag in row for tag in NEEDED)]  # others are evaluations
        bad = {tag: sum(_decades(row, tag) is None for row in steps) for tag in NEEDED}
        faulty = [tag for tag in NEEDED if bad[tag] == len(steps)] or [tag for tag in NEEDED if bad[tag]]
        raise BadInput(f"{run.path}: at every logged step {' or '.join(faulty)} is zero or not finite")
    if run.settings.get("optimizer.lr") is not None and factors(run.settings) is None:
        given = {f"optimizer.{name}": run.settings.get(f"optimizer.{name}") for name in ("lr", "momentum", "dampening")}
        named = ", ".join(f"{key}={value}" for key, value in given.items() if value is not None)
        raise BadInput(f"{run.path}: {named}: no step can be accounted for with these")
    return usable


def chosen_steps(rows: Mapping[int, Row], step: int | None, end: int | None = None) -> tuple[int, ...]:
    """Return the steps to look at: the one asked for, else those of the first half of training, up to `end`.

    The first half is when the size of a step decides; later on a schedule makes it small on purpose. The very first
    step is left out where there are others: momentum and averages have not built up. Raises BadInput for a step that
    was not logged.
    """
    steps = sorted(rows)
    if step is not None:
        if step not in rows:
            near = [f"{max(below)}" for below in [[s for s in steps if s < step]] if below]
            near += [f"{min(above)}" for above in [[s for s in steps if s > step]] if above]
            nearest = "steps are" if len(near) > 1 else "step is"
            raise BadInput(f"--step {step}: was not measured; the nearest logged {nearest} {' and '.join(near)}")
        return (step,)
    half = (steps[-1] if end is None else end) / 2
    return tuple(s for s in steps if 1 < s <= half) or (steps[0],)


def ledger(run: Run, steps: Sequence[int]) -> Ledger:
    """Return the accounts of a run over these steps, which `measured_rows` has. Raises BadInput as that does."""
    usable = measured_rows(run)
    rows = [usable[step] for step in steps]
    groups = sorted({int(tag.split("/")[1][5:]) for row in rows for tag in row if tag.startswith("ledger/group")})
    each = [found for index in groups if (found := _account(run, rows, index)) is not None]
    overall = _account(run, rows, None)
    assert overall is not None  # measured_rows has only rows that make one
    if run.differing_settings:
        overall = replace(overall, factors=_common(overall, each))
    accounts = [replace(each[0], name=ALL)] if groups == [0] and each else [overall, *each]
    missing = None if each else "ledger/group*/…: not logged by this run, so there is no account per parameter group"
    return Ledger(run, tuple(steps), tuple(accounts), _rates(run, rows), missing)


def _decades(row: Row, tag: str) -> float | None:
    return decades(row.get(tag))


def _common(overall: Account, each: Sequence[Account]) -> dict[str, float]:
    """Return the factors of all parameters that their groups share; no direction is left over where one is missing."""
    first = each[0].factors if each else {}
    shared = {
        name: value
        for name, value in first.items()
        if name in SETTINGS and all(abs(own.factors[name] - value) < SAME for own in each)
    }
    rest = ("gradient", "direction") if len(shared) == len(SETTINGS) else ("gradient",)
    return shared | {name: overall.factors[name] for name in rest}


def _of_settings(run: Run, row: Row, index: int | None) -> dict[str, float]:
    """Return the factors that settings make of a group's step, or of all groups' where they do not differ, in decades.

    A scheduler may move the momentum: what a row has logged goes before the settings, which are those at the end.
    """
    settings = group_settings(run, index)
    rate = math.log10(row["optim/lr"])
    constants = factors(settings) or {"lr": rate, "dampening": 0.0, "momentum": 0.0}  # a rule with an lr of its own
    amplification = constants["dampening"] + constants["momentum"]
    differing = run.differing_settings  # in these, what is logged under optim/ is the first group's
    if "dampening" not in differing and "momentum" not in differing:
        logged = logged_amplification(row)
        amplification = amplification if logged is None else logged
    if index is not None and "lr" in differing:
        rate = _group_rate(row, index) - amplification
    momentum = amplification - constants["dampening"] if amplifies(settings) else 0.0
    found = {"lr": constants["lr"], "schedule": rate - constants["lr"]}
    found |= {"dampening": constants["dampening"], "momentum": momentum, "clipping": 0.0}
    limit = run.settings.get("engine.clip_norm")
    if limit is not None:
        coefficient = row.get("optim/clip_coefficient", min(1.0, limit / row["optim/grad_norm"]))
        found["clipping"] = decades(coefficient) or 0.0  # a coefficient of zero leaves no update to account for
    return found


def _group_rate(row: Row, index: int) -> float:
    """Return the effective learning rate of a group at a step, in decades: what its logged factors leave of the update.

    The logged direction is the update over the gradient as it was clipped and this rate.
    """
    entries = {name: row.get(f"ledger/group{index}/{name}", math.nan) for name in ("update", "gradient", "direction")}
    clipping = decades(row.get("optim/clip_coefficient", 1.0)) or 0.0
    return entries["update"] - entries["gradient"] - clipping - entries["direction"]


def _account(run: Run, rows: Sequence[Row], index: int | None) -> Account | None:
    """Return the account of a group, or of all parameters; None when no row has it."""
    lines: list[dict[str, float]] = []
    misses: list[float] = []
    decays: list[float | None] = []
    group = _group(run, index)
    decay = _weight_decay(run, index)
    for row in rows:
        if index is None:
            ratio = math.log10(row["optim/grad_norm"]) - math.log10(row["optim/weight_norm"])
            update = math.log10(row["optim/update_ratio"])
        else:
            ratio = row.get(f"ledger/group{index}/gradient", math.nan)
            update = row.get(f"ledger/group{index}/update", math.nan)
            misses.append(abs(row.get(f"ledger/group{index}/unexplained", math.nan)))
        line = {**_of_settings(run, row, index), "gradient": ratio, "update": update}
        if not all(map(math.isfinite, line.values())):
            continue
        lines.append(line)
        if index is None or decay is not None:  # probes measure over all parameters
            rate = line["lr"] + line["schedule"]
            decays.append(_decay(run, row, decay, ratio, update - rate))
    if not lines:
        return None
    means = {name: _mean([line[name] for line in lines]) for name in lines[0]}
    update = means.pop("update")
    means["direction"] = update - math.fsum(means.values())
    misses = [miss for miss in misses if math.isfinite(miss)]
    pulls = [pull for pull in decays if pull is not None]
    return Account(
        ALL if index is None else f"group {index}",
        means,
        update,
        direction_name(run, index, decay),
        len(lines),
        group,
        max(misses) if misses else None,
        10 ** _mean(pulls) if pulls else None,
    )


def _decay(run: Run, row: Row, decay: float | None, ratio: float, step: float) -> float | None:
    """Return what weight decay is to the gradient, or to the update, at a step, in decades; None where unknown or 0.

    `step` is the update without the learning rate. Where the groups of an account decay differently (`decay` None) it
    is what a probe has measured.
    """
    if decay is None:
        return None if _is_decoupled(run) else _decades(row, "probe/decay_ratio")
    if decay == 0:
        return None
    return math.log10(decay) - (step if _is_decoupled(run) else ratio)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _group(run: Run, index: int | None) -> Mapping[str, Any] | None:
    """Return what run.json says about a parameter group; None where it says nothing."""
    groups = run.info.get("parameter_groups") or []
    return groups[index] if index is not None and index < len(groups) else None


def _weight_decay(run: Run, index: int | None) -> float | None:
    """Return the weight decay of a group, or the one of all parameters; None when those differ or nothing says it."""
    groups = run.info.get("parameter_groups") or []
    if index is not None and index < len(groups):
        return float(groups[index].get("weight_decay") or 0.0)
    if groups:
        each = {float(group.get("weight_decay") or 0.0) for group in groups}
        return each.pop() if len(each) == 1 else None
    decay = float(run.settings.get("optimizer.weight_decay") or 0.0)
    return decay if run.settings.get("engine.decay_norm_and_bias") or decay == 0 else None


def _is_decoupled(run: Run) -> bool:
    """Return whether the rule decays weights apart from the gradient: `w ← w − lr · weight_decay · w`."""
    for key in ("optimizer.decoupled_weight_decay", "optimizer.weight_decouple"):
        if key in run.settings:
            return bool(run.settings[key])
    return bool(DECOUPLED.search(optimizer_class(run.settings)))


def decay_name(run: Run) -> str:
    """Return what weight decay is measured against: the gradient it is added to, or else the update."""
    return "weight decay / update" if _is_decoupled(run) else "weight decay / gradient"


WITH_DECAY = " and weight decay"
"""Behind the name of a direction in which weight decay acts, be it a little of it or nearly all."""


def direction_name(run: Run, index: int | None, decay: float | None) -> str:
    """Return what the direction of a group holds for a run's rule; `decay` is the one that acts, None for some."""
    rule = optimizer_class(run.settings)
    if rule == "SGD":
        name = "agreement of gradients" if group_settings(run, index).get("optimizer.momentum") else "direction"
    elif rule.lower() == "lion":
        name = "sign of the momentum"
    else:
        name = "adaptive factor" if ADAPTIVE.search(rule) else "direction"
    return name if decay == 0 else f"{name}{WITH_DECAY}"


def _rates(run: Run, rows: Sequence[Row]) -> Rates:
    promised = effective_lr(run.settings)
    if promised is None or run.differing_settings:
        return Rates(None, None, None, 0)
    probed = [row for row in rows if math.isfinite(row.get("probe/effective_lr", math.nan))]
    scheduled = [row["optim/effective_lr"] for row in probed or rows if "optim/effective_lr" in row]
    measured = [row["probe/effective_lr"] for row in probed]
    moved = [row["optim/effective_lr"] for row in rows if "optim/effective_lr" in row] if momentum_moved(run) else []
    return Rates(
        None if moved else promised,
        median(scheduled) if scheduled else None,
        median(measured) if measured else None,
        len(probed),
        (min(moved), max(moved)) if moved else None,
    )


def summary(run: Run) -> str:
    """Return a run's optimizer with the settings that make its step: `SGD: lr 1e-4, momentum 0.9`."""
    shown = ("lr", "momentum", "dampening", "nesterov", "betas", "alpha", "eps", "weight_decay")
    words = [
        f"{name} {setting(run.settings[f'optimizer.{name}'])}"
        for name in shown
        if run.settings.get(f"optimizer.{name}") not in (None, False) and name not in run.differing_settings
    ]
    words += [f"{' and '.join(run.differing_settings)} by group"] if run.differing_settings else []
    words += ["the momentum moved, this is its last"] if momentum_moved(run) else []
    limit = run.settings.get("engine.clip_norm")
    words += [] if limit is None else [f"gradients clipped at norm {setting(limit)}"]
    return f"{optimizer_class(run.settings)}: {', '.join(words)}"


def shown_factors(runs: Sequence[Run]) -> list[str]:
    """Return the factors that runs have: dampening, momentum and clipping only where one of them is set."""
    hidden = set()
    if not any(_has_momentum(run) for run in runs):
        hidden |= {"dampening", "momentum"}
    if not any(run.settings.get("engine.clip_norm") is not None for run in runs):
        hidden.add("clipping")
    return [name for name in (*SETTINGS, "gradient", "direction") if name not in hidden]


def _has_momentum(run: Run) -> bool:
    groups = range(len(run.info.get("parameter_groups") or [None]))
    return amplifies(run.settings) and any(group_settings(run, index).get("optimizer.momentum") for index in groups)
