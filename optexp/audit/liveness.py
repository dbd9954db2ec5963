"""Does every hyperparameter in the constructor's signature do something, and what it is documented to do?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from optexp.audit import problems
from optexp.audit.checks import Check, failed, first_difference, not_applicable, passed
from optexp.audit.directions import direction_of
from optexp.audit.exceptions import Crashed, Refused
from optexp.audit.hyperparameters import UNSEEN, alternatives, contexts, entries
from optexp.audit.problems import Array, Problem
from optexp.audit.subject import Follow, Subject, Trajectory

STEPS = 40
_RAMP = tuple(0.2 + 0.02 * step for step in range(STEPS))
"""Learning rates that change: what weighs steps by them shows nothing while they do not."""


def liveness_checks(subject: Subject) -> Iterator[Check]:
    """Return one check for every hyperparameter, entries of tuples by themselves."""
    seen: dict[Any, Trajectory | None] = {}
    for shown, argument, index in entries(subject.settings):
        name = f"alive: {shown}"
        if argument in UNSEEN:
            yield not_applicable(name, UNSEEN[argument])
        else:
            try:
                yield _alive(subject, name, shown, argument, index, seen)
            except Crashed as error:
                yield failed(name, str(error), error.step)


def _alive(
    subject: Subject, name: str, shown: str, argument: str, index: int | None, seen: dict[Any, Trajectory | None]
) -> Check:
    if not alternatives(subject.kind, subject.settings, argument, index):
        return not_applicable(name, "no value but the configured one is known to try")
    found, accepted, in_state = None, False, False
    for context in contexts(subject.kind, subject.settings, argument):
        for change in alternatives(subject.kind, {**subject.settings, **context}, argument, index):
            for base, other in _pairs(subject, context, change, seen):
                accepted = True
                found = first_difference(base.weights, other.weights)
                in_state |= _differ(base.state, other.state)
                if found is not None:
                    return _told(subject, name, shown, {**change, **context}, context, found)
    if not accepted:
        return not_applicable(name, f"{subject.name} accepts no other value that is known to try")
    if in_state and subject.published and argument in subject.published.unread:
        return passed(name, "changes the state and, as documented, no weight")
    only = "only the state and no weight" if in_state else "nothing"
    return failed(name, f"changes {only} in {STEPS} steps, whatever the other hyperparameters: it is ignored", 1)


def _told(
    subject: Subject, name: str, shown: str, changes: Mapping[str, Any], context: Mapping[str, Any], step: int
) -> Check:
    """Say how a hyperparameter that is alive acts, and judge its direction where one is documented."""
    direction = direction_of(subject, shown)
    try:
        verdict = direction(subject, context) if direction else None
    except Refused:
        verdict = None
    if verdict is None:
        with_what = ", ".join(f"{key}={_short(value)}" for key, value in changes.items())
        return passed(name, f"{with_what} changes the weights from step {step}", first_step=step)
    holds, words, numbers = verdict
    if holds:
        return passed(name, words, first_step=step, **numbers)
    return failed(name, f"acts in another direction than documented: {words}", 1, **numbers)


def _differ(one: Array, other: Array) -> bool:
    return one.shape != other.shape or not np.allclose(one, other, rtol=1e-7, atol=0)


def _pairs(
    subject: Subject, context: Mapping[str, Any], change: Mapping[str, Any], seen: dict[Any, Trajectory | None]
) -> Iterator[tuple[Trajectory, Trajectory]]:
    """Yield trajectories without and with a change, on each course that the optimizer takes with these settings."""
    for course in _courses(subject):
        try:
            base = _course(subject, context, course, seen)
        except Crashed:
            if not context:
                raise
            continue  # not by this hyperparameter: the one that the context changes is told of it
        other = _course(subject, {**context, **change}, course, seen)
        if base is not None and other is not None:
            yield base, other


Course = tuple[str, tuple[float, ...], bool]


def _courses(subject: Subject) -> Iterator[Course]:
    """Yield problem, learning rates and where gradients come from: each may show what the others do not."""
    yield "sparse gradient", (), False
    yield "quadratic", _RAMP, False
    if subject.takes_hessian:
        yield "quadratic", (), True


_MAKERS: dict[str, Callable[[], Problem]] = {
    "sparse gradient": problems.sparse_gradient,
    "quadratic": problems.quadratic,
}


def _course(
    subject: Subject, changes: Mapping[str, Any], course: Course, seen: dict[Any, Trajectory | None]
) -> Trajectory | None:
    """Follow a course once for all hyperparameters; None where the optimizer refuses the settings.

    Raises Crashed, with the settings, where they are accepted and a step raises.
    """
    which, lrs, graph = course
    key = (tuple(sorted((name, str(value)) for name, value in changes.items())), course)
    if key not in seen:
        how = Follow(changes=dict(changes), lrs=lrs, graph=graph)
        steps = 10 if subject.needs_closure else STEPS  # each of which is many evaluations
        try:
            seen[key] = subject.follow(subject.suited(_MAKERS[which]()), steps, how)
        except Refused:
            seen[key] = None
        except Crashed as error:
            with_what = ", ".join(f"{name}={_short(value)}" for name, value in changes.items()) or "what is configured"
            raise Crashed(f"{error} (with {with_what})", error.step) from error
    return seen[key]


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
