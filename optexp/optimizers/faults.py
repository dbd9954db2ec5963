"""Optimizers of other packages that do not do what their arguments say, and since which version they do."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

Group = Mapping[str, Any]
Condition = Callable[[Optimizer], bool]


@dataclass(frozen=True)
class Fault:
    """One line about what is wrong, where it is documented, and for which settings and versions it holds.

    `ignores_schedule`: some steps do not read the learning rate that is set for them, so that neither a schedule nor a
    range test acts.
    """

    text: str
    reference: str
    holds: Condition = lambda optimizer: True
    fixed_in: str | None = None
    ignores_schedule: bool = False


def _in_a_group(condition: Callable[[Group], bool]) -> Condition:
    return lambda optimizer: any(condition(group) for group in optimizer.param_groups)


_has_momentum = _in_a_group(lambda group: bool(group.get("momentum")))


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
            _in_a_group(lambda group: bool(group.get("weight_decay"))),
            fixed_in="3.11.0",
        ),
    ),
    "pytorch_optimizer.SCIONLight": (
        Fault(
            "momentum has no effect: it is kept in the gradients, which every step computes anew (scion keeps its own)",
            "its implementation",
            _in_a_group(lambda group: group.get("momentum") != 1.0),
        ),
    ),
    "pytorch_optimizer.AdaFactor": (
        Fault(
            "lr and the schedule have no effect: relative_step is true; +optimizer.relative_step=false lets them act",
            "its documentation",
            _in_a_group(lambda group: bool(group.get("relative_step"))),
            ignores_schedule=True,
        ),
    ),
    "pytorch_optimizer.ApolloDQN": (
        Fault(
            "the schedule has no effect in its own warmup, which lasts warmup_steps steps and goes to optimizer.lr; "
            "+optimizer.warmup_steps=0 leaves it out",
            "its implementation",
            lambda optimizer: getattr(optimizer, "warmup_steps", 0) > 1,  # no key of its groups
            ignores_schedule=True,
        ),
    ),
    "torch.Rprop": (
        Fault(
            "lr is the size of the first step only: the schedule has no effect",
            "docs.pytorch.org, Rprop",
            ignores_schedule=True,
        ),
    ),
}
"""Package and class to what is known about it; found by reading and by running, and kept by tests/optimizers."""


def known_faults(optimizer: Optimizer, version: str | None = None) -> list[str]:
    """Return what is known to be wrong with an optimizer as it is set, one line each.

    `version` is that of its package, by default the installed one.
    """
    return [_line(optimizer, fault, version) for fault in _holding(optimizer, version)]


def ignored_schedule(optimizer: Optimizer, version: str | None = None) -> str | None:
    """Return the line that says why a learning rate that is set for a step has no effect; None where it has one."""
    found = (_line(optimizer, fault, version) for fault in _holding(optimizer, version) if fault.ignores_schedule)
    return next(found, None)


def has_entry(target: Callable[..., Any]) -> bool:
    """Return whether anything is known of a class, whatever its settings."""
    return isinstance(target, type) and _key(target) in KNOWN_FAULTS


def _key(kind: type) -> str:
    return f"{_package(kind)}.{kind.__name__}"


def _package(kind: type) -> str:
    return kind.__module__.split(".")[0]


def _holding(optimizer: Optimizer, version: str | None) -> list[Fault]:
    """Return the faults that the version has and that the settings show."""
    kind = type(optimizer)
    found = []
    for fault in KNOWN_FAULTS.get(_key(kind), ()):
        number = version or importlib.metadata.version(_package(kind))
        is_fixed = fault.fixed_in is not None and _numbers(number) >= _numbers(fault.fixed_in)
        if not is_fixed and fault.holds(optimizer):
            found.append(fault)
    return found


def _line(optimizer: Optimizer, fault: Fault, version: str | None) -> str:
    package = _package(type(optimizer))
    number = version or importlib.metadata.version(package)
    fixed = f"; fixed in {package} {fault.fixed_in}" if fault.fixed_in else ""
    return f"{type(optimizer).__name__} of {package} {number}: {fault.text} ({fault.reference}{fixed})"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: (2, 12, 1) for 2.12.1+cpu."""
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])
