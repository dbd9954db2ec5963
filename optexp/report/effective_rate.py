"""The effective learning rate that a run's settings promise, read from its config without torch.

`lr · (1 − dampening) / (1 − momentum)` is the step per unit of a constant gradient in the long run: the fixed point of
torch's `buf = momentum · buf + (1 − dampening) · d` (torch.optim.SGD). RMSprop has the same amplification in front of
an adaptive factor; rules whose averages are normalized, as Adam's are, have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optexp.records.reading import Run
from optexp.report.grouping import is_number

FACTORS = ("lr", "dampening", "momentum")
"""The arguments whose factors make the effective learning rate, in the order of the formula."""

MOVED = 1e-4
"""Decades by which an amplification differs from another, and not by rounding."""


def optimizer_class(settings: Mapping[str, Any]) -> str:
    """Return the class of a run's optimizer, `SGD`; of an optimizer chosen by name, the name."""
    target = str(settings.get("optimizer._target_", "")).rpartition(".")[2]
    return str(settings.get("optimizer.name", target)) if target == "by_name" else target


def amplifies(settings: Mapping[str, Any]) -> bool:
    """Return whether momentum makes the step larger: for torch's SGD and RMSprop."""
    module = str(settings.get("optimizer._target_", "")).partition(".")[0]
    return module == "torch" and optimizer_class(settings) in ("SGD", "RMSprop")


def decades(number: Any) -> float | None:
    """Return log10 of a positive number, None for anything else."""
    return math.log10(number) if is_number(number) and 0 < number < math.inf else None


def factors(settings: Mapping[str, Any]) -> dict[str, float] | None:
    """Return what lr, dampening and momentum contribute to the effective learning rate, in decades.

    torch ignores dampening where momentum is 0, so it contributes nothing there; nor does either of them where
    nothing is amplified. None when no step can be expected of the settings: a learning rate that is no positive number,
    or a dampening or momentum of 1 and above.
    """
    momentum = settings.get("optimizer.momentum") or 0.0
    dampening = settings.get("optimizer.dampening") or 0.0
    if not amplifies(settings) or momentum == 0:
        momentum = dampening = 0.0
    if not (is_number(momentum) and is_number(dampening)):
        return None
    found = [decades(settings.get("optimizer.lr")), decades(1 - dampening), decades(1 / (1 - momentum or math.nan))]
    known = {name: value for name, value in zip(FACTORS, found, strict=True) if value is not None}
    return known if len(known) == len(FACTORS) else None


def effective_lr(settings: Mapping[str, Any]) -> float | None:
    """Return the effective learning rate before schedule and clipping; None where nothing is amplified."""
    found = factors(settings) if amplifies(settings) else None
    return None if found is None else 10 ** math.fsum(found.values())


def group_settings(run: Run, index: int | None) -> Mapping[str, Any]:
    """Return a run's settings as a parameter group has them; for None as its config has them, the first group's."""
    groups = run.info.get("parameter_groups") or []
    own = groups[index] if index is not None and index < len(groups) else {}
    return run.settings | {f"optimizer.{name}": own[name] for name in FACTORS if name in own}


def logged_amplification(row: Mapping[str, float]) -> float | None:
    """Return (1 − dampening)/(1 − momentum) of the first group at a step, in decades; None where it was not logged."""
    rates = [decades(row.get(tag)) for tag in ("optim/effective_lr", "optim/lr")]
    return None if rates[0] is None or rates[1] is None else rates[0] - rates[1]


def momentum_moved(run: Run) -> bool:
    """Return whether the momentum was another at some steps than at the last, as schedulers of torch may have it.

    No schedule of optexp moves it, so only the rows of Monitor's runs are read.
    """
    found = factors(run.settings) if run.recorded_by_monitor and amplifies(run.settings) else None
    if found is None:
        return False
    last = found["dampening"] + found["momentum"]
    logged = map(logged_amplification, run.rows)
    return any(value is not None and abs(value - last) > MOVED for value in logged)


def why_no_single_rate(run: Run) -> str | None:
    """Return why the settings of a run promise no one effective learning rate; None where they may."""
    if differing := run.differing_settings:
        return f"parameter groups differ in {' and '.join(differing)}"
    return "momentum moved" if momentum_moved(run) else None


def single_effective_lr(run: Run) -> float | None:
    """Return the effective learning rate before schedule and clipping, if all parameters have one at all steps."""
    return None if why_no_single_rate(run) else effective_lr(run.settings)


def differing_effective_lr(run: Run) -> float | None:
    """Return a run's effective learning rate where the learning rate alone would mislead: where the two differ."""
    rate = single_effective_lr(run)
    if rate is None or math.isclose(rate, run.settings["optimizer.lr"], rel_tol=1e-9):
        return None
    return float(f"{rate:.12g}")  # as typed: 0.1 and not 0.09999999999999999
