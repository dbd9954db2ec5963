"""The ledger: the multiplicative account of one optimizer step, in decades.

    ‖Δw‖ / ‖w‖  =  lr · (1 − dampening) / (1 − momentum) · clipping · ‖g‖ / ‖w‖ · direction

`lr` is that of the step: base learning rate times schedule and warm-up. `direction` is what the rule makes of a clipped
gradient beyond those constants. Under momentum it is how far successive gradients agree: 1 for a constant gradient,
√((1 − μ)/(1 + μ)) for pure noise. In Adam-type rules it is the adaptive factor. It holds weight decay, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def amplification(settings: Mapping[str, Any], amplifies: bool = True) -> tuple[float, float]:
    """Return (1 − dampening, 1 / (1 − momentum)): what a constant gradient is multiplied by in the long run.

    Both are 1 for rules whose averages are normalized, as Adam's are, and without momentum: torch ignores dampening
    then.
    """
    momentum = settings.get("momentum", 0.0)
    if not amplifies or not momentum:
        return 1.0, 1.0
    return 1 - settings.get("dampening", 0.0), 1 / (1 - momentum)


@dataclass(frozen=True)
class Sizes:
    """Measured norms of a parameter group in one step."""

    gradient: float  # after clipping
    weight: float  # before the step
    update: float
    clipping: float = 1.0  # what clipping has multiplied the gradient by


def account(
    settings: Mapping[str, Any], amplifies: bool, sizes: Sizes, direction: float | None = None
) -> dict[str, float]:
    """Return the entries of one parameter group that settings do not tell, in decades (log10); nan where one is zero.

    `direction` is the norm of the direction that the rule should have taken, computed from its state; with it there is
    `unexplained`, the decades by which the measured update is larger.
    """
    lr = float(settings["lr"])
    dampening, momentum = amplification(settings, amplifies)
    weight, update = decades(sizes.weight), decades(sizes.update)
    entries = {
        "gradient": decades(sizes.gradient) - decades(sizes.clipping) - weight,
        "update": update - weight,
        "direction": update - decades(lr * dampening * momentum) - decades(sizes.gradient),
    }
    if direction is not None:
        entries["unexplained"] = update - decades(lr) - decades(direction)
    return entries


def decades(factor: float) -> float:
    """Return log10 of a factor, nan of one that is not positive."""
    return math.log10(factor) if factor > 0 else math.nan
