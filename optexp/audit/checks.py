"""The verdict of a check, and comparing trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from optexp.audit.problems import Array

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"


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


@dataclass(frozen=True)
class Deviation:
    """How far a trajectory is from the expected one.

    `largest` is relative to the distance the expected one travels; `step` is the first step whose deviation exceeds the
    tolerance, None where none does, with the weights `found` and `expected` where they differ most there.
    """

    largest: float
    step: int | None
    found: float
    expected: float

    def told(self) -> str:
        return f"step {self.step}: weight {self.found:.9g}, expected {self.expected:.9g}"


def deviation(found: Array, expected: Array, tolerance: float) -> Deviation:
    """Compare weights [steps + 1, n]. Where both overflow, the comparison ends."""
    ends = np.flatnonzero(~np.isfinite(expected).all(1) | (np.abs(expected) > 1e100).any(1))
    last = int(ends[0]) if len(ends) else len(expected)
    found, expected = found[:last], expected[:last]
    scale = float(np.abs(expected - expected[0]).max(initial=0.0)) or float(np.abs(expected).max(initial=0.0)) or 1.0
    off = np.abs(found - expected) / scale
    off[~np.isfinite(off)] = np.inf
    beyond = np.flatnonzero((off > tolerance).any(1))
    if not len(beyond):
        return Deviation(float(off.max(initial=0.0)), None, float("nan"), float("nan"))
    step = int(beyond[0])
    place = int(off[step].argmax())
    return Deviation(float(off.max()), step, float(found[step, place]), float(expected[step, place]))


def first_difference(one: Array, other: Array, threshold: float = 1e-7) -> int | None:
    """Return the first step at which two trajectories differ by more than a share of the distance travelled."""
    scale = (
        max(float(np.abs(part - part[0]).max()) for part in (one, other) if np.isfinite(part).all())
        if (np.isfinite(one).all() or np.isfinite(other).all())
        else 1.0
    )
    with np.errstate(invalid="ignore"):
        apart = ~(np.abs(one - other) <= threshold * (scale or 1.0)) & ~(np.isnan(one) & np.isnan(other))
    steps = np.flatnonzero(apart.any(1))
    return int(steps[0]) if len(steps) else None
