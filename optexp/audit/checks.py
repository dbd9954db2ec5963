"""The verdict of a check, and comparing trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from optexp.audit.problems import Array

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"


OVERFLOW = 1e100
"""Weights beyond this have diverged: rules square them, and what overflows cannot be compared."""
MINIMUM = 10
"""Steps that must be compared for agreement to mean something; fewer are a verdict of not applicable."""


@dataclass(frozen=True)
class Check:
    """One check: its name, verdict and a line of explanation; where it fails, the first deviating step and numbers.

    `step` counts optimizer steps from 1. `numbers` holds what the explanation is based on.
    """

    name: str
    verdict: str
    explanation: str
    step: int | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def passed(name: str, explanation: str, **numbers: Any) -> Check:
    return Check(name, PASS, explanation, None, numbers)


def failed(name: str, explanation: str, step: int | None = None, **numbers: Any) -> Check:
    return Check(name, FAIL, explanation, step, numbers)


def not_applicable(name: str, why: str) -> Check:
    return Check(name, NOT_APPLICABLE, why)


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Return two numbers in 9 digits, which tell float32 apart, or in 17 where those are the same."""
    short = f"{one:.9g}", f"{other:.9g}"
    return short if short[0] != short[1] else (f"{one:.17g}", f"{other:.17g}")


@dataclass(frozen=True)
class Deviation:
    """How far a trajectory is from the expected one.

    `largest` is relative to the distance the expected one travels; `step` is the first step whose deviation exceeds the
    tolerance, None where none does, with the weights `found` and `expected` where they differ most there. `compared`
    are the steps that were compared of `steps`: a comparison ends where the expected weights overflow.
    """

    largest: float
    step: int | None
    found: float
    expected: float
    compared: int
    steps: int

    def told(self) -> str:
        found, expected = told_apart(self.found, self.expected)
        return f"step {self.step}: weight {found}, expected {expected}"

    def over(self) -> str:
        """Return in words how many steps were compared."""
        if self.compared == self.steps:
            return f"{self.steps} steps"
        return f"{self.compared} of {self.steps} steps (then the expected weights exceed {OVERFLOW:.0e})"

    def too_short(self, needed: int = MINIMUM) -> str | None:
        """Return why nothing can be said of a trajectory whose compared steps agree; None where they suffice."""
        if self.compared >= min(needed, self.steps):
            return None
        return (
            f"the expected weights exceed {OVERFLOW:.0e} after step {self.compared}, with these settings: "
            f"at least {min(needed, self.steps)} steps are needed for a comparison"
        )


def deviation(found: Array, expected: Array, tolerance: float) -> Deviation:
    """Compare weights [steps + 1, n] until the expected ones overflow.

    Deviations are relative to the largest distance travelled. Where weights diverge, which makes that distance say
    nothing of the steps before, it is the distance up to the step, or the size of the start where that is larger.
    """
    steps = len(expected) - 1
    ends = np.flatnonzero(~(np.abs(expected) <= OVERFLOW).all(1))
    last = max(int(ends[0]), 1) if len(ends) else len(expected)
    found, expected = found[:last], expected[:last]
    travelled = np.maximum.accumulate(np.abs(expected - expected[0]).max(1, initial=0.0))
    size = float(np.abs(expected[0]).max(initial=0.0))
    scale = np.maximum(travelled, min(float(travelled[-1]), size)) if travelled[-1] else np.full(last, size or 1.0)
    with np.errstate(all="ignore"):
        off = np.abs(found - expected) / scale[:, None]
    off[~np.isfinite(off)] = np.inf
    beyond = np.flatnonzero((off > tolerance).any(1))
    largest = float(off.max(initial=0.0))
    if not len(beyond):
        return Deviation(largest, None, float("nan"), float("nan"), last - 1, steps)
    step = int(beyond[0])
    place = int(off[step].argmax())
    return Deviation(largest, step, float(found[step, place]), float(expected[step, place]), last - 1, steps)


def first_difference(one: Array, other: Array, threshold: float = 1e-7) -> int | None:
    """Return the first step at which two trajectories differ by more than a share of the distance travelled."""
    with np.errstate(all="ignore"):
        scale = (
            max(float(np.abs(part - part[0]).max()) for part in (one, other) if np.isfinite(part).all())
            if (np.isfinite(one).all() or np.isfinite(other).all())
            else 1.0
        )
        apart = ~(np.abs(one - other) <= threshold * (scale or 1.0)) & ~(np.isnan(one) & np.isnan(other))
    steps = np.flatnonzero(apart.any(1))
    return int(steps[0]) if len(steps) else None
