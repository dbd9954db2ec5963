"""Which way a hyperparameter is documented to act, shown on a problem on which nothing else can.

A direction returns (does it hold, in words, numbers), or None where the documentation promises none for this rule.
`h` are settings in which the hyperparameter has been found alive, so that it can be compared with itself at work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optexp.audit import problems
from optexp.audit.problems import Array, Problem
from optexp.audit.subject import Follow, Subject

Told = tuple[bool, str, dict[str, float]]
Direction = Callable[[Subject, Mapping[str, Any]], "Told | None"]

_STEPS = 30
_FLIP = 10


def _moves(subject: Subject, problem: Problem, steps: int, changes: Mapping[str, Any]) -> Array:
    return subject.follow(subject.suited(problem), steps, Follow(changes=dict(changes))).moves


def _without_decay(subject: Subject, **changes: Any) -> dict[str, Any]:
    idle = {name: 0.0 for name in ("weight_decay", "lambd") if name in subject.settings}
    return {**idle, **changes}


def _length(displacement: Array) -> np.float64:
    """Return a length that can be divided by where nothing moves."""
    return np.float64(np.abs(displacement).sum())


def _first_move(subject: Subject, problem: Problem, **changes: Any) -> Array:
    """Return the first displacement that is not zero: some optimizers only look at the first gradients."""
    moves = _moves(subject, problem, 5, _without_decay(subject, **changes))
    moving = np.flatnonzero(np.abs(moves).max(1) > 0)
    return moves[moving[0]] if len(moving) else moves[0]


def _lr(subject: Subject, h: Mapping[str, Any]) -> Told | None:
    """Twice the learning rate makes the first step twice as long."""
    lr = subject.settings["lr"]
    if not isinstance(lr, int | float) or lr <= 0 or subject.needs_closure:
        return None
    first = _first_move(subject, problems.constant_gradient())
    if not first.any():
        return None  # it only gathers gradients for longer than this
    twice = _first_move(subject, problems.constant_gradient(), lr=2 * lr)
    ratio = _length(twice) / _length(first)
    holds = bool(abs(ratio - 2) < 1e-3 if subject.published else ratio > 1)
    return holds, f"twice the lr makes the first step {ratio:.4g} times as long", {"ratio": ratio}


def _weight_decay(subject: Subject, h: Mapping[str, Any]) -> Told | None:
    """Without a gradient, weight decay brings every weight nearer to zero, and the more the larger it is."""
    decay = subject.settings["weight_decay"] or 0.1
    on = (
        {**h, "weight_decay": decay, "maximize": False}
        if "maximize" in subject.settings
        else {**h, "weight_decay": decay}
    )
    trajectory = subject.follow(subject.suited(problems.zero_gradient()), 3, Follow(changes=on))
    before, after = np.abs(trajectory.weights[0]), np.abs(trajectory.weights[-1])
    nearer = float((after < before).mean())
    kept = float((after / before).mean())
    holds = nearer == 1.0
    told = (
        f"without a gradient, 3 steps leave {kept:.6g} of the weights"
        if holds
        else (f"without a gradient, {1 - nearer:.0%} of the weights do not come nearer to zero")
    )
    return holds, told, {"kept": kept}


def _accumulates(name: str, values: tuple[Any, Any], context: Mapping[str, Any]) -> Direction:
    """Under a constant gradient more of `name` goes further."""

    def direction(subject: Subject, h: Mapping[str, Any]) -> Told | None:
        low, high = (
            _length(
                _moves(subject, problems.constant_gradient(), _STEPS, _without_decay(subject, **context, **{name: v}))[
                    -1
                ]
            )
            for v in values
        )
        return (
            bool(high > low * (1 + 1e-6)),
            f"under a constant gradient {name}={values[1]} goes {high / low:.4g} times as far as {values[0]}",
            {"ratio": high / low},
        )

    return direction


def _dampening(subject: Subject, h: Mapping[str, Any]) -> Told | None:
    """Dampening shrinks later steps, and leaves the first as it is."""
    base = _without_decay(subject, momentum=0.9, nesterov=False)
    free = _moves(subject, problems.constant_gradient(), 2, {**base, "dampening": 0.0})
    damped = _moves(subject, problems.constant_gradient(), 2, {**base, "dampening": 0.5})
    first = _length(damped[0]) / _length(free[0])
    second = _length(damped[1] - damped[0]) / _length(free[1] - free[0])
    holds = bool(abs(first - 1) < max(subject.tolerance, 1e-6) and second < 1 - 1e-6)
    told = f"dampening 0.5 makes the first step {first:.4g} and the second {second:.4g} times as long"
    return holds, told, {"first": first, "second": second}


def _maximize(subject: Subject, h: Mapping[str, Any]) -> Told | None:
    """The first step is the opposite one, weight decay aside."""
    down = _first_move(subject, problems.constant_gradient(), maximize=False)
    up = _first_move(subject, problems.constant_gradient(), maximize=True)
    gap = float(np.abs(up + down).max() / (np.abs(down).max() or 1.0))
    return gap < max(subject.tolerance, 1e-6), f"the first step is the opposite one within {gap:.1e}", {"gap": gap}


def _remembers(index: int) -> Direction:
    """A larger first beta goes on longer in the old direction when the gradient changes its sign."""

    def direction(subject: Subject, h: Mapping[str, Any]) -> Told | None:
        went = []
        for beta in (0.3, 0.95):
            betas = list(subject.settings["betas"])
            betas[index] = beta
            changes = _without_decay(subject, betas=tuple(betas))
            moves = _moves(subject, problems.flipping_gradient(_FLIP), _FLIP + 5, changes)
            forward = np.sign(moves[_FLIP - 1])
            went.append(float(((moves[-1] - moves[_FLIP - 1]) * forward).sum() / _length(moves[0])))
        holds = went[1] > went[0]
        ahead = f"{went[1] - went[0]:.4g} first steps ahead of 0.3"
        told = f"5 steps after the gradient changes its sign, betas[{index}]=0.95 is {ahead}"
        return holds, told, {"low": went[0], "high": went[1]}

    return direction


def _softens(name: str, values: tuple[float, float], step: int = 0) -> Direction:
    """More of `name` makes a step shorter."""

    def direction(subject: Subject, h: Mapping[str, Any]) -> Told | None:
        lengths = []
        for value in values:
            moves = _moves(subject, problems.constant_gradient(), step + 1, _without_decay(subject, **{name: value}))
            lengths.append(_length(moves[step] - (moves[step - 1] if step else 0.0)))
        ratio = lengths[1] / lengths[0]
        told = f"{name}={values[1]} makes step {step + 1} {ratio:.4g} times as long as {values[0]}"
        return bool(ratio < 1 - 1e-6), told, {"ratio": ratio}

    return direction


_ADAMS = ("adam", "adamw", "adamw8bit", "nadam", "radam", "adamax")

ANY: dict[str, Direction] = {"lr": _lr, "weight_decay": _weight_decay, "maximize": _maximize}
"""Directions that the name promises, whatever the optimizer."""

OF_RULE: dict[tuple[str, str], Direction] = {
    ("sgd", "momentum"): _accumulates("momentum", (0.0, 0.9), {"dampening": 0.0, "nesterov": False}),
    ("sgd", "dampening"): _dampening,
    ("sgd", "nesterov"): _accumulates("nesterov", (False, True), {"momentum": 0.9, "dampening": 0.0}),
    ("rmsprop", "momentum"): _accumulates("momentum", (0.0, 0.9), {}),
    ("rmsprop", "eps"): _softens("eps", (1e-8, 1e-2)),
    ("adagrad", "eps"): _softens("eps", (1e-10, 1e-2)),
    ("adagrad", "lr_decay"): _softens("lr_decay", (0.0, 0.1), step=5),
    ("adagrad", "initial_accumulator_value"): _softens("initial_accumulator_value", (0.0, 1.0)),
    ("lion", "betas[1]"): _remembers(1),
    **{(rule, "betas[0]"): _remembers(0) for rule in _ADAMS},
    **{(rule, "eps"): _softens("eps", (1e-8, 1e-2)) for rule in ("adam", "adamw", "adamw8bit", "nadam", "adamax")},
}


def direction_of(subject: Subject, shown: str) -> Direction | None:
    """Return the documented direction of a hyperparameter, by the name it is shown under (`betas[0]`)."""
    if subject.published and (subject.published.name, shown) in OF_RULE:
        return OF_RULE[subject.published.name, shown]
    return ANY.get(shown)
