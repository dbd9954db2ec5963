"""Failures of shipped optimizers that are real and known to their authors, by class and check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from optexp.audit.checks import FAIL, Check


@dataclass(frozen=True)
class Known:
    """A failed check of a class (`library.Class`) with where it was reported, and what it means for a user."""

    of_class: str
    check: str
    reference: str
    meaning: str


KNOWN = (
    Known(
        "torch.ASGD",
        "lr changes",
        "pytorch/pytorch#74884",
        "the step size is computed at the end of the step before: a schedule acts one step late, "
        "and the first step of a warmup takes the full lr of the first step",
    ),
)


def known_failure(kind: type, check: Check) -> Known | None:
    """Return what is known of a failed check of a class; None for one that passed, and for other classes."""
    name = f"{kind.__module__.split('.')[0]}.{kind.__name__}"
    found = (known for known in KNOWN if (known.of_class, known.check) == (name, check.name))
    return next(found, None) if check.verdict == FAIL else None


def unknown_failures(kind: type, checks: Iterable[Check]) -> list[Check]:
    """Return the failed checks that nobody has reported."""
    return [check for check in checks if check.verdict == FAIL and known_failure(kind, check) is None]
