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


def differing_effective_lr(run: Run) -> float | None:
    """Return a run's effective learning rate where the learning rate alone would mislead: where the two differ."""
    rate = effective_lr(run.settings)
    if rate is None or math.isclose(rate, run.settings["optimizer.lr"], rel_tol=1e-9):
        return None
    return float(f"{rate:.12g}")  # as typed: 0.1 and not 0.09999999999999999
