"""Checks against the published rule, and against what every optimizer's documentation promises of its first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from optexp.audit import problems
from optexp.audit.checks import FAIL, Check, deviation, failed, not_applicable, passed, told_apart
from optexp.audit.exceptions import Crashed, Refused
from optexp.audit.hyperparameters import UNSEEN, alternatives, contexts, entries
from optexp.audit.problems import Problem
from optexp.audit.published import Published
from optexp.audit.subject import Follow, Subject, follow_rule

VARIED_STEPS = 25
"""Steps of the comparisons with one hyperparameter set to another value."""


def rule_checks(subject: Subject, steps: int) -> Iterator[Check]:
    """Compare trajectories with the published rule: on each problem, and with each hyperparameter changed."""
    names = [f"rule: {name}" for name in ("constant gradient", "quadratic", "sparse gradient", "two groups")]
    obstacle = _obstacle(subject)
    if obstacle:
        yield from (not_applicable(name, obstacle) for name in (*names, "rule: other settings", "first step"))
        return
    rule = subject.published
    assert rule is not None
    makers: tuple[Callable[[], Problem], ...] = (
        problems.constant_gradient,
        problems.quadratic,
        problems.sparse_gradient,
    )
    for name, make in zip(names, makers, strict=False):
        yield _compare(subject, rule, name, make(), steps, Follow())
    yield _two_groups(subject, rule, names[-1], steps)
    yield _other_settings(subject, rule)
    yield _first_step(subject, rule)


def _obstacle(subject: Subject) -> str | None:
    if subject.published is None:
        return f"no published rule is known here for {subject.name}"
    relevant = {
        name: value
        for name, value in subject.settings.items()
        if name not in UNSEEN and name in {argument for _, argument, _ in entries(subject.settings)}
    }
    return subject.published.obstacle(relevant)


def _compare(subject: Subject, rule: Published, name: str, problem: Problem, steps: int, how: Follow) -> Check:
    problem = subject.suited(problem) if not how.group_settings else problem
    settings = {**subject.settings, **how.changes}
    expected = follow_rule(rule, settings, problem, steps, how.group_settings, how.lrs)
    try:
        found = subject.follow(problem, steps, how)
    except Refused as error:
        return not_applicable(name, f"{subject.name} refuses: {error}")
    except Crashed as error:
        return failed(name, str(error), error.step)
    off = deviation(found.weights, expected.weights, subject.tolerance)
    numbers = {"largest_deviation": off.largest, "tolerance": subject.tolerance, "steps": off.compared}
    if off.step is None:
        short = off.too_short()
        if short:
            return not_applicable(name, short)
        told = f"within {off.largest:.1e} of the distance travelled over {off.over()}"
        return passed(name, told + (f" ({rule.because})" if rule.because else ""), **numbers)
    return failed(name, f"{off.told()}", off.step, **numbers, found=off.found, expected=off.expected)


def _two_groups(subject: Subject, rule: Published, name: str, steps: int) -> Check:
    first: dict[str, Any] = {}
    second: dict[str, Any] = {"lr": 2 * subject.settings["lr"]}
    if "weight_decay" in subject.settings:
        first["weight_decay"] = subject.settings["weight_decay"] or 0.1
        second["weight_decay"] = 0.0
    problem = subject.suited(problems.quadratic()).twice()
    try:
        for settings in (first, second):
            subject.follow(problem, 1, Follow(changes=settings))  # refusals are not the groups' fault
    except Refused as error:
        return not_applicable(name, f"{subject.name} refuses: {error}")
    except Crashed as error:
        return failed(name, str(error), error.step)
    return _compare(subject, rule, name, problem, steps, Follow(group_settings=(first, second)))


def _other_settings(subject: Subject, rule: Published) -> Check:
    """Compare with every hyperparameter set to another value, in a context in which it matters."""
    name, wrong, compared = "rule: other settings", [], 0
    for shown, argument, index in entries(subject.settings):
        if argument in UNSEEN or argument not in rule.arguments:
            continue
        check = _first_that_runs(subject, rule, argument, index)
        if check is not None:
            compared += 1
            if check.verdict == FAIL:
                wrong.append((shown, check))
    if wrong:
        shown, check = wrong[0]
        others = f"; and with {', '.join(other for other, _ in wrong[1:])}" if wrong[1:] else ""
        told = f"{check.explanation} (with another {shown}{others})"
        return failed(name, told, check.step, settings=[other for other, _ in wrong], **check.numbers)
    if not compared:
        return not_applicable(name, "no other value is known that it accepts and under which weights do not diverge")
    return passed(name, f"as published with each of {compared} hyperparameters changed, {VARIED_STEPS} steps each")


def _first_that_runs(subject: Subject, rule: Published, argument: str, index: int | None) -> Check | None:
    """Compare with another value of a hyperparameter as configured and in the first context known for it."""
    found = None
    tried = 0
    for context in contexts(subject.kind, subject.settings, argument):
        for change in alternatives(subject.kind, {**subject.settings, **context}, argument, index)[:1]:
            if rule.obstacle({**change, **context}):
                continue
            how = Follow(changes={**context, **change})
            check = _compare(subject, rule, argument, problems.sparse_gradient(), VARIED_STEPS, how)
            if check.verdict == FAIL:
                return check
            found = check if check.verdict == "pass" else found
        tried += 1
        if tried == 3:  # as configured, and two others: enough to wake what sleeps in the configured settings
            break
    return found


def _first_step(subject: Subject, rule: Published) -> Check:
    """Compare the first displacement with the closed form that the documentation gives."""
    changes: dict[str, Any] = {key: 0.0 for key in ("weight_decay",) if key in subject.settings}
    if {"momentum", "dampening"} <= subject.settings.keys():  # a first buffer that is dampened would pass without
        changes |= {"momentum": 0.9, "dampening": 0.0 if subject.settings["nesterov"] else 0.5}
    if _hides_bias_correction(subject.settings.get("betas", ())):
        changes["betas"] = (0.9, 0.999)
    problem, h = subject.suited(problems.quadratic()), {**subject.settings, **changes}
    sign = -1.0 if h.get("maximize") else 1.0
    expected = np.concatenate(
        [
            rule.first_step(h, start, sign * problem.gradient(i, start, 1), problem.curvature(i, 1)).ravel()
            for i, start in enumerate(problem.starts)
        ]
    )
    try:
        found = subject.follow(problem, 1, Follow(changes=changes)).moves[0]
    except Refused as error:
        return not_applicable("first step", f"{subject.name} refuses: {error}")
    except Crashed as error:
        return failed("first step", str(error), error.step)
    place = int(np.abs(found - expected).argmax())
    off = float(np.abs(found - expected)[place] / (np.abs(expected).max() or 1.0))
    numbers = {"found": float(found[place]), "expected": float(expected[place]), "deviation": off}
    if off <= max(rule.first_tolerance, subject.tolerance):
        return passed("first step", rule.first_words, **numbers)
    texts = told_apart(found[place], expected[place])
    told = f"moves by {texts[0]} where the documentation says {texts[1]}: {rule.first_words}"
    return failed("first step", told, 1, **numbers)


def _hides_bias_correction(betas: Any) -> bool:
    """Return whether the first step is right without it: with (0.9, 0.99), 0.1 g / sqrt(0.01 g²) is sign(g)."""
    return len(betas) == 2 and abs((1 - betas[0]) ** 2 - (1 - betas[1])) < 0.2 * (1 - betas[1])
