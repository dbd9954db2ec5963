"""What any optimizer promises, whatever its rule: groups, learning rates, zero gradients, saved state, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from optexp.audit import problems
from optexp.audit.checks import FAIL, Check, deviation, failed, not_applicable, passed, told_apart
from optexp.audit.exceptions import Crashed, Refused, constructing, stepping
from optexp.audit.hyperparameters import SWITCHES
from optexp.audit.subject import Follow, Subject, follow_rule, quiet

_STEPS = 12
_CHANGE = 6
"""The step after which a learning rate changes, or state goes through a file."""


def promise_checks(subject: Subject) -> Iterator[Check]:
    """Yield one check for each promise. The configured settings are known to run: what then raises is a failure."""
    for check in (_zero_gradient, _no_gradient, _lr_changes, _decay_of_groups, _lr_of_groups, _reload, _state_bytes):
        name = _NAMES[check]
        try:
            yield check(subject, name)
        except Refused as error:
            yield not_applicable(name, f"{subject.name} refuses: {error}")
        except Crashed as error:
            yield failed(name, str(error), error.step)


def _idle(subject: Subject) -> dict[str, Any]:
    """Return the changes that leave nothing but the gradient to move a weight."""
    return {name: 0.0 for name in ("weight_decay", "lambd") if name in subject.settings}


def _zero_gradient(subject: Subject, name: str) -> Check:
    """Nothing but weight decay moves weights that have no gradient: no buffer may start with them."""
    plain = {switch: False for switch in SWITCHES if switch in subject.settings}
    for switches, how in (({}, ""), (plain, " in single-tensor code")):
        changes = {**_idle(subject), **switches}
        trajectory = subject.follow(subject.suited(problems.zero_gradient()), 5, Follow(changes=changes))
        check = _stays(name, trajectory.weights, f"5 steps{how} with a gradient of 0 and no weight decay")
        if check.verdict == FAIL:
            break
    return check


def _no_gradient(subject: Subject, name: str) -> Check:
    """A parameter without a gradient is left alone, weight decay and momentum included."""
    if subject.needs_closure:
        return not_applicable(name, f"{subject.name} treats all parameters as one vector")
    problem = subject.suited(problems.quadratic()).twice()
    half = len(problem.starts) // 2
    trajectory = subject.follow(problem, 5, Follow(skipping=tuple(range(half, 2 * half))))
    size = sum(start.size for start in problem.starts[:half])
    return _stays(name, trajectory.weights[:, size:], "5 steps of a parameter whose gradient is None")


def _stays(name: str, weights: np.ndarray[Any, Any], when: str) -> Check:
    moved = np.abs(weights - weights[0])
    steps = np.flatnonzero(~(moved == 0).all(1))
    if not len(steps):
        return passed(name, f"no weight moves in {when}")
    step = int(steps[0])
    place = int(np.argmax(moved[step]))
    before, after = float(weights[0, place]), float(weights[step, place])
    texts = told_apart(before, after)
    told = f"a weight of {texts[0]} is {texts[1]} after step {step} of {when}"
    return failed(name, told, step, before=before, after=after)


def _lr_changes(subject: Subject, name: str) -> Check:
    """A learning rate that changes counts from the next step on: it is not baked into a buffer."""
    lr = subject.settings.get("lr")
    if not isinstance(lr, int | float):
        return not_applicable(name, f"lr is {lr}")
    if subject.published and subject.published.lr_is_initial:
        return not_applicable(name, "documented: lr is the size of the first step only")
    lrs = tuple(1.0 if step < _CHANGE else 0.1 for step in range(_STEPS))
    problem, idle = subject.suited(problems.quadratic()), _idle(subject)
    if subject.published and not subject.published.obstacle({}):
        rule, tolerance = subject.published, subject.tolerance
        expected = follow_rule(rule, {**subject.settings, **idle}, problem, _STEPS, lrs=lrs)
        found = subject.follow(problem, _STEPS, Follow(changes=idle, lrs=lrs))
        off = deviation(found.weights, expected.weights, tolerance)
        short = off.too_short(_CHANGE + 2)
        if off.step is None and short:
            return not_applicable(name, short)
        if off.step is None:
            return passed(name, f"a tenth of the lr after step {_CHANGE}: as published", largest=off.largest)
        return failed(name, f"a tenth of the lr after step {_CHANGE}: {off.told()}", off.step, largest=off.largest)
    if subject.averages:
        return not_applicable(name, "weights that are averaged move on at a learning rate of 0")
    stopped = tuple(1.0 if step < _CHANGE else 0.0 for step in range(_STEPS))
    found = subject.follow(problem, _STEPS, Follow(changes=idle, lrs=stopped))
    check = _stays(name, found.weights[_CHANGE:], f"steps with an lr of 0, after {_CHANGE} with the configured one")
    step = None if check.step is None else check.step + _CHANGE
    return Check(check.name, check.verdict, check.explanation, step, check.numbers)


def _decay_of_groups(subject: Subject, name: str) -> Check:
    """Weight decay acts on the group that has it and on no other."""
    if "weight_decay" not in subject.settings:
        return not_applicable(name, f"{subject.name} has no weight_decay")
    problem = subject.suited(problems.zero_gradient()).twice()
    idle = {key: value for key, value in _idle(subject).items() if key != "weight_decay"}
    decay = subject.settings["weight_decay"] or 0.1
    groups = ({"weight_decay": decay}, {"weight_decay": 0.0})
    for settings in groups:
        subject.follow(problem, 1, Follow(changes={**idle, **settings}))  # refusals are not the groups' fault
    trajectory = subject.follow(problem, 3, Follow(changes=idle, group_settings=groups))
    half = trajectory.weights.shape[1] // 2
    decayed, exempt = trajectory.weights[:, :half], trajectory.weights[:, half:]
    check = _stays(name, exempt, "a group with weight_decay=0 and a gradient of 0")
    if check.verdict == "fail":
        return check
    kept = float((np.abs(decayed[-1]) / np.abs(decayed[0])).mean())
    if kept >= 1:
        return failed(name, f"a group with weight_decay={decay} does not decay: {kept:.6g} of it is left", 1, kept=kept)
    return passed(name, f"the group with weight_decay={decay} shrinks to {kept:.6g}, the one with 0 stays", kept=kept)


def _lr_of_groups(subject: Subject, name: str) -> Check:
    """A group moves as it would alone with the group's learning rate: by its own, not by the first group's."""
    lr = subject.settings.get("lr")
    if not isinstance(lr, int | float):
        return not_applicable(name, f"lr is {lr}")
    problem = subject.suited(problems.quadratic())
    alone = subject.follow(problem, 1, Follow(changes={**_idle(subject), "lr": 2 * lr}))  # refusals come first
    together = subject.follow(
        problem.twice(), 1, Follow(group_settings=({"lr": lr}, {"lr": 2 * lr}), changes=_idle(subject))
    )
    half = together.weights.shape[1] // 2
    off = deviation(together.weights[:, half:], alone.weights, max(subject.tolerance, 1e-6))
    short = off.too_short(1)
    if off.step is None and short:
        return not_applicable(name, short)
    if off.step is None:
        return passed(name, "a second group with twice the lr steps as it would alone", largest=off.largest)
    return failed(name, f"a second group with twice the lr does not step as it would alone: {off.told()}", 1)


def _reload(subject: Subject, name: str) -> Check:
    """State that went through a file continues in a fresh optimizer, to the last bit."""
    problem = subject.suited(problems.sparse_gradient())
    whole = subject.follow(problem, _STEPS)
    parts = subject.follow(problem, _STEPS, Follow(reload_after=_CHANGE))
    off = deviation(parts.weights, whole.weights, 0.0)
    short = off.too_short(_CHANGE + 2)
    if off.step is None and short:
        return not_applicable(name, short)
    if off.step is None:
        return passed(name, f"saved after step {_CHANGE}, loaded into a fresh optimizer: the same to the last bit")
    told = f"saved after step {_CHANGE} and loaded into a fresh optimizer, it deviates at {off.told()}"
    return failed(name, told, off.step, largest=off.largest)


def _state_bytes(subject: Subject, name: str) -> Check:
    """Measure the bytes of state per parameter of a matrix of 256 × 256 in single precision."""
    weight = torch.zeros(256, 256, requires_grad=True)
    with constructing(()):
        optimizer: Any = subject.build([{"params": [weight]}], {})
    draw = torch.Generator().manual_seed(0)

    def evaluate() -> torch.Tensor:
        weight.grad = torch.randn(weight.shape, generator=draw)
        return torch.tensor(0.0)

    more: Mapping[str, Any] = {"hessian": [torch.ones_like(weight)]} if subject.takes_hessian else {}
    for step in (1, 2):
        with quiet(torch.float32), stepping(step):
            if subject.needs_closure:
                optimizer.step(evaluate)
            else:
                evaluate()
                optimizer.step(**more)
    measured = sum(_bytes(value) for value in optimizer.state.values()) / weight.numel()
    documented = subject.published.bytes_per_parameter if subject.published else None
    told = f"{measured:.4g} bytes per parameter in single precision"
    if documented is None:
        return passed(name, f"{told}, measured", measured=measured)
    expected = documented(subject.settings)
    if abs(measured - expected) <= 0.1:
        return passed(name, f"{told}; the rule's buffers need {expected:g}", measured=measured, expected=expected)
    return failed(name, f"{told}; the rule's buffers need {expected:g}", 1, measured=measured, expected=expected)


def _bytes(value: Any) -> int:
    """Return the size of all tensors in a state, lists and mappings included."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


_NAMES = {
    _zero_gradient: "zero gradient",
    _no_gradient: "no gradient",
    _lr_changes: "lr changes",
    _decay_of_groups: "groups: weight decay",
    _lr_of_groups: "groups: lr",
    _reload: "save and load",
    _state_bytes: "state bytes",
}
