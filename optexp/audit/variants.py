"""Do the ways of computing a step agree: torch's switches, compiled code, optexp's own steps and stacked rules?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from optexp.audit import problems
from optexp.audit.checks import Check, Deviation, deviation, failed, not_applicable, passed
from optexp.audit.exceptions import Crashed, Refused, constructing, stepping
from optexp.audit.hyperparameters import SWITCHES, alternatives, contexts, entries
from optexp.audit.subject import Follow, Subject, Trajectory
from optexp.errors import BadInput, Unstackable
from optexp.optimizers.stacked import settings_of, stacked_rule
from optexp.optimizers.stepping import direct_step

STEPS = 20
TOLERANCE = 1e-9
"""Of variants in double precision: the same formula, the order of its operations aside."""


def variant_checks(subject: Subject, compiled: bool) -> Iterator[Check]:
    """Compare each variant with single-tensor code, in the configured settings and with each hyperparameter changed."""
    plain = {switch: False for switch in SWITCHES if switch in subject.settings}
    wanted = [] if subject.needs_closure else _settings_to_compare(subject, plain)
    for switch in SWITCHES:
        name = f"agrees: {switch}"
        if subject.needs_closure or switch not in subject.settings:
            yield not_applicable(name, f"{subject.name} has no such switch")
        else:
            yield _agrees(subject, name, wanted, {**plain, switch: True}, None)
    yield _direct(subject, wanted)
    yield _stacked(subject, wanted)
    if not compiled:
        yield not_applicable("agrees: compiled", "not asked for: task.compile=true")
    elif subject.needs_closure:
        yield not_applicable("agrees: compiled", f"{subject.name} evaluates the loss within its step")
    else:
        yield _agrees(subject, "agrees: compiled", wanted[:1], plain, _compiled_step, steps=5)


Compared = tuple[dict[str, Any], Trajectory | Crashed]
"""Settings with what single-tensor code does in them."""


def _settings_to_compare(subject: Subject, plain: Mapping[str, Any]) -> list[Compared]:
    """Return settings with their trajectories in single-tensor code: a variant may be wrong where momentum is not 0."""
    every: list[dict[str, Any]] = [{}]
    for _, argument, index in entries(subject.settings):
        for context in list(contexts(subject.kind, subject.settings, argument))[:2]:
            settings = {**subject.settings, **context}
            every += [{**context, **change} for change in alternatives(subject.kind, settings, argument, index)[:1]]
    found: list[Compared] = []
    for changes in every:
        if any(changes == other for other, _ in found):
            continue
        try:
            found.append((changes, _followed(subject, {**plain, **changes}, None)))
        except Refused:
            continue  # these values do not go together
        except Crashed as error:
            found.append((changes, error))
    return found


def _followed(subject: Subject, changes: Mapping[str, Any], steps_of: Any, steps: int = STEPS) -> Trajectory:
    problem = subject.suited(problems.sparse_gradient())
    return subject.follow(problem, steps, Follow(changes=dict(changes), steps_of=steps_of))


def _agrees(
    subject: Subject, name: str, wanted: list[Compared], switches: Mapping[str, Any], steps_of: Any, steps: int = STEPS
) -> Check:
    tolerance = max(TOLERANCE, 0.0 if subject.dtype == torch.float64 else 1e-4)
    largest, compared, refusal = 0.0, 0, ""
    for changes, expected in wanted:
        if isinstance(expected, Crashed):
            return _crashing(name, expected, changes, "single-tensor code: ")
        try:
            found = _followed(subject, {**changes, **switches}, steps_of, steps)
        except Refused as error:
            refusal = f"{subject.name} refuses it here: {error}"
            continue
        except Crashed as error:
            return _crashing(name, error, changes)
        off = deviation(found.weights, expected.weights[: steps + 1], tolerance)
        if off.step is not None:
            return _deviating(name, off, changes, "single-tensor code")
        short = off.too_short()
        if short:
            refusal = short
            continue
        compared += 1
        largest = max(largest, off.largest)
    if not compared:
        return not_applicable(name, refusal)
    told = f"as single-tensor code within {largest:.1e} of the distance, in {compared} settings, {steps} steps each"
    return passed(name, told, largest=largest, settings=compared)


def _deviating(name: str, off: Deviation, changes: Mapping[str, Any], than: str) -> Check:
    told = f"{off.told()} in {than}, with {_settings(changes)}"
    return failed(name, told, off.step, found=off.found, expected=off.expected, settings=_settings(changes))


def _crashing(name: str, error: Crashed, changes: Mapping[str, Any], where: str = "") -> Check:
    return failed(name, f"{where}{error}, with {_settings(changes)}", error.step, settings=_settings(changes))


def _settings(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in changes.items()) or "the configured settings"


def _compiled_step(optimizer: Optimizer) -> Callable[[], Any]:
    return torch.compile(lambda: optimizer.step())


def _direct(subject: Subject, wanted: list[Compared]) -> Check:
    """The step that optexp takes in a run: torch's kernels without its wrappers, or one vector per group."""
    name = "agrees: in a run"
    if subject.needs_closure or subject.takes_hessian:
        return not_applicable(name, "its step takes arguments, and a run calls it as it is")
    switches = {"fused": True, "foreach": None} if "fused" in subject.settings else {}
    return _agrees(subject, name, wanted, switches, direct_step)


def _stacked(subject: Subject, wanted: list[Compared]) -> Check:
    """The rule that trains several runs of a sweep at once, with all compared settings as its members."""
    name = "agrees: in a fused sweep"
    rule = stacked_rule(subject.kind)
    if rule is None:
        return not_applicable(name, "members of a sweep are trained one by one")
    largest, compared = 0.0, 0
    for changes, expected in wanted:
        if isinstance(expected, Crashed):
            continue  # there is nothing to agree with; the variants above tell it
        try:
            found = _follow_stacked(subject, rule, changes)
        except (Unstackable, BadInput, Refused):
            continue
        except Crashed as error:
            return _crashing(name, error, changes)
        off = deviation(found, expected.weights, TOLERANCE)
        if off.step is not None:
            return _deviating(name, off, changes, "torch")
        if off.too_short():
            continue
        compared += 1
        largest = max(largest, off.largest)
    if not compared:
        return not_applicable(name, "members with these settings are trained one by one")
    return passed(
        name, f"as single-tensor code within {largest:.1e} of the distance, in {compared} settings", largest=largest
    )


def _follow_stacked(subject: Subject, rule: Any, changes: Mapping[str, Any]) -> Any:
    """Train two equal members together, so that the member axis is really there; returns the first one's weights."""
    problem = subject.suited(problems.sparse_gradient())
    single = [torch.tensor(start, dtype=subject.dtype, requires_grad=True) for start in problem.starts]
    with constructing(changes):
        settings = settings_of(subject.build([{"params": single}], changes))
    parameters = {str(i): nn.Parameter(torch.stack([own.detach()] * 2)) for i, own in enumerate(single)}
    stack = rule(parameters, [list(parameters)], [settings, settings])
    seen = [_first_member(parameters)]
    for step in range(1, STEPS + 1):
        for index, stacked in enumerate(parameters.values()):
            gradient = problem.gradient(index, stacked[0].detach().double().numpy(), step)
            stacked.grad = torch.tensor(np.stack([gradient] * 2), dtype=subject.dtype)
        with stepping(step):
            stack.step([settings[0]["lr"]] * 2)
        seen.append(_first_member(parameters))
    return np.stack(seen)


def _first_member(parameters: Mapping[str, nn.Parameter]) -> Any:
    return np.concatenate([stacked[0].detach().double().numpy().ravel() for stacked in parameters.values()])
