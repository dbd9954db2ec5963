"""Optimizers of other packages that do not do what their arguments say, and since which version they do."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

Group = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """One line about what is wrong, where it is documented, and for which settings and versions it holds."""

    text: str
    reference: str
    holds: Callable[[Group], bool] = lambda group: True
    fixed_in: str | None = None


def _has_momentum(group: Group) -> bool:
    return bool(group.get("momentum"))


_ISSUES = "github.com/kozistr/pytorch_optimizer"

KNOWN_FAULTS: dict[str, tuple[Fault, ...]] = {
    "torch.ASGD": (
        Fault(
            "the schedule acts one step late, and the first step of a warmup takes the full lr: its step size is "
            "computed at the end of the step before",
            "github.com/pytorch/pytorch/issues/74884",
        ),
    ),
    "pytorch_optimizer.SGDW": (
        Fault(
            "its momentum buffer starts as the weights, and its default implementation (foreach) ignores momentum",
            f"{_ISSUES}/issues/519",
            _has_momentum,
            fixed_in="4.0.0",
        ),
    ),
    "pytorch_optimizer.SignSGD": (
        Fault("momentum has no effect", f"{_ISSUES}/pull/516", _has_momentum, fixed_in="3.11.0"),
        Fault(
            "weight_decay has no effect",
            f"{_ISSUES}/pull/518",
            lambda group: bool(group.get("weight_decay")),
            fixed_in="3.11.0",
        ),
    ),
    "pytorch_optimizer.SCIONLight": (
        Fault(
            "momentum has no effect: it is kept in the gradients, which every step computes anew (scion keeps its own)",
            "its implementation",
            lambda group: group.get("momentum") != 1.0,
        ),
    ),
    "pytorch_optimizer.AdaFactor": (
        Fault(
            "lr and the schedule have no effect: relative_step is true; +optimizer.relative_step=false lets them act",
            "its documentation",
            lambda group: bool(group.get("relative_step")),
        ),
    ),
    "pytorch_optimizer.ApolloDQN": (
        Fault(
            "the schedule has no effect in its own warmup, which lasts warmup_steps steps and goes to optimizer.lr",
            "its implementation",
        ),
    ),
    "torch.Rprop": (
        Fault("lr is the size of the first step only: the schedule has no effect", "docs.pytorch.org, Rprop"),
    ),
}
"""Package and class to what is known about it; found by reading and by running, and kept by tests/optimizers."""


def known_faults(optimizer: Optimizer, version: str | None = None) -> list[str]:
    """Return what is known to be wrong with an optimizer as it is set, one line each.

    `version` is that of its package, by default the installed one.
    """
    kind = type(optimizer)
    package = kind.__module__.split(".")[0]
    lines = []
    for fault in KNOWN_FAULTS.get(f"{package}.{kind.__name__}", ()):
        number = version or importlib.metadata.version(package)
        if fault.fixed_in is not None and _numbers(number) >= _numbers(fault.fixed_in):
            continue
        if any(fault.holds(group) for group in optimizer.param_groups):
            fixed = f"; fixed in {package} {fault.fixed_in}" if fault.fixed_in else ""
            lines.append(f"{kind.__name__} of {package} {number}: {fault.text} ({fault.reference}{fixed})")
    return lines


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: (2, 12, 1) for 2.12.1+cpu."""
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])
