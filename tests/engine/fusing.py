"""Runs trained together beside the same runs trained alone, from the shipped configuration: the oracle is alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trainings import assembled, group, member_of

from optexp.engine.checkpoint import Checkpoints
from optexp.engine.fused import FusedRuns
from optexp.engine.loop import Ending, Member, Row, train
from optexp.engine.program import Program, Tree
from optexp.engine.runtime import Interruption
from optexp.fuse import fuse

Variants = Sequence[Sequence[str]]

GRADIENTS = ("optim/grad_norm", "optim/update_ratio", "optim/clip")


@dataclass
class Run:
    """What is left of a training: how it ended, what was recorded but for times, and its last state."""

    ending: Ending
    rows: list[Row]
    state: Tree
    member: Member


@dataclass
class Start:
    """Where the members of a program go on: after a step, each with the program state and member state of its own."""

    step: int
    trees: Sequence[Tree]


def alone(common: Sequence[str], variants: Variants, **nodes: dict[str, Any]) -> list[Run]:
    """Train the runs one after the other, each in a SingleRun of its own."""
    runs = []
    for variant in variants:
        training = assembled(*common, *variant, **nodes)
        runs += drive(training.program, [training])
    return runs


def together(
    common: Sequence[str],
    variants: Variants,
    prepare: Callable[[FusedRuns], None] = lambda program: None,
    **nodes: dict[str, Any],
) -> list[Run]:
    """Train the runs in one program, to which `prepare` may do something first."""
    trainings = group(common, variants, **nodes)
    program = fuse(trainings)
    prepare(program)
    return drive(program, trainings)


def drive(
    program: Program,
    trainings: Sequence[Any],
    *,
    folder: Path | None = None,
    interruption: Interruption | None = None,
    start: Start | None = None,
) -> list[Run]:
    """Run the loop over a program of these trainings, from a given place or the beginning; checkpoints go to `folder`.

    The states are taken when a member ends, before the program forgets it.
    """
    pairs = [
        member_of(training, Checkpoints(folder / str(number)) if folder else None)
        for number, training in enumerate(trainings)
    ]
    states: dict[int, Tree] = {}
    numbers = list(range(len(trainings)))  # of the members that the program still has
    keep = program.keep

    def renumbering(members: Sequence[int]) -> None:
        numbers[:] = [numbers[member] for member in members]
        keep(members)

    def take_state(number: int) -> None:
        states[number] = copy.deepcopy(program.state(numbers.index(number)))

    program.keep = renumbering
    for number, (member, _) in enumerate(pairs):
        member.on_end = partial(take_state, number)
        if start is not None:
            program.load_state(number, start.trees[number]["program"])
            member.load_state(start.trees[number]["member"])
    first = trainings[0]
    members = [member for member, _ in pairs]
    begin = start.step if start else 0
    train(program, members, first.plan, first.validation, interruption or Interruption(), begin, first.test)
    runs = []
    for number, (member, rows) in enumerate(pairs):
        assert member.ending is not None
        runs.append(Run(member.ending, rows.without_times(), states[number], member))
    return runs


def saved(folder: Path, members: Iterable[int | str]) -> Start:
    """Read the last checkpoints of these members, which `drive` wrote to folders of their numbers."""
    loaded = [Checkpoints(folder / str(member)).load("last") for member in members]
    steps = {found[0] for found in loaded if found}
    assert len(steps) == 1
    return Start(steps.pop(), [found[1] for found in loaded if found])


def interrupted_at(step: int, program: Program) -> Interruption:
    """Return an interruption that comes while a program takes its optimizer step `step` (from 1)."""
    import signal

    interruption, take = Interruption(), program.step

    def interrupting(number: int, *arguments: Any) -> Sequence[int]:
        if number == step - 1:
            interruption.received = signal.SIGTERM
        return take(number, *arguments)

    program.step = interrupting
    return interruption


def assert_same_runs(
    actual: Sequence[Run], expected: Sequence[Run], rows: float, weights: float | None, gradients: float | None = None
) -> None:
    """Runs end alike and recorded the same, values to the relative error `rows`; so do states to `weights`, if given.

    Zero means bitwise; `gradients` is another error for what is measured on gradients. States are those of runs that
    came to a good end, or were interrupted.
    """
    assert len(actual) == len(expected)
    for number, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert one.ending == other.ending, f"member {number}"
        assert_same_rows(one.rows, other.rows, rows, f"member {number}", gradients)
        if weights is not None and one.ending.status != "diverged":
            assert_same_tree(one.state, other.state, weights, f"member {number}")


def without_key_biases(runs: Sequence[Run]) -> list[Run]:
    """Return runs of transformers without the biases of the keys, and without what is measured on all weights.

    Attention does not depend on them, so their gradients are zero but for rounding. An optimizer that divides by the
    size of a gradient, or takes its sign, makes steps of that, in any direction: nothing else depends on them either.
    """
    cleared = []
    for run in copy.deepcopy(runs):
        of_all = ("optim/update_ratio", "optim/weight_norm", "ledger/", "probe/")
        run.rows = [{key: value for key, value in row.items() if not key.startswith(of_all)} for row in run.rows]
        run.member.latest = {key: value for key, value in run.member.latest.items() if not key.startswith(of_all)}
        slots = run.state["optimizer"]["parameters"]
        for name, values in run.state["model"].items():
            if name.endswith("qkv.bias"):
                for tensor in (values, *slots[name].values()):
                    if tensor.ndim:
                        tensor.chunk(3)[1].zero_()
        cleared.append(run)
    return cleared


def assert_same_rows(
    actual: Sequence[Row], expected: Sequence[Row], relative: float, where: str, gradients: float | None = None
) -> None:
    assert [sorted(row) for row in actual] == [sorted(row) for row in expected], where
    for row, wanted in zip(actual, expected, strict=True):
        for tag, value in wanted.items():
            looser = gradients is not None and tag.startswith((*GRADIENTS, "probe/", "layer/", "ledger/"))
            own = gradients if gradients is not None and looser else relative
            close = math.isclose(row[tag], value, rel_tol=own, abs_tol=_absolute(tag, wanted, own))
            assert close, f"{where}: {tag} of step {row['step']} is {row[tag]}, alone {value}"


def _absolute(tag: str, row: Row, relative: float) -> float:
    """Return the absolute error that rounding by `relative` may make of a tag."""
    if tag.endswith("update_ratio"):  # the difference of two weights is known to a rounding error of the weights
        return relative / 100
    if tag in ("probe/sign_changes", "probe/dead_units", "probe/eps_share"):  # an element on the edge counts or not
        return 0.05
    if tag.startswith("ledger/"):
        update = row.get(f"{tag.rpartition('/')[0]}/update", 0.0)
        return 100 * relative + (0.0 if tag.endswith("/gradient") else relative / 10**update)
    if tag.startswith("probe/"):  # sums of products of either sign
        return 100 * relative * max(1.0, abs(row.get("probe/noise", 0.0)))
    return 0.0


def assert_same_tree(actual: Any, expected: Any, tolerance: float, where: str) -> None:
    """Equal keys, types, dtypes and shapes all the way down; numbers to the tolerance, relative to 1 or the number."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), where
        assert actual.keys() == expected.keys(), where
        for key, value in expected.items():
            if not (key == "first" and not expected["losses"]):  # the first unread step, when there is one
                assert_same_tree(actual[key], value, tolerance, f"{where}, {key}")
    elif isinstance(expected, list | tuple):
        assert isinstance(actual, list | tuple), where  # a checkpoint makes lists of tuples
        assert len(actual) == len(expected), where
        for index, value in enumerate(expected):
            assert_same_tree(actual[index], value, tolerance, f"{where}, {index}")
    elif isinstance(expected, Tensor):
        assert isinstance(actual, Tensor), where
        assert strides(actual) == strides(expected), where
        torch.testing.assert_close(
            actual, expected, rtol=tolerance, atol=tolerance, msg=lambda text: f"{where}: {text}"
        )
    elif isinstance(expected, float):
        assert math.isclose(actual, expected, rel_tol=tolerance, abs_tol=tolerance), f"{where}: {actual}, {expected}"
    else:
        assert (type(actual), actual) == (type(expected), expected), where


def strides(tensor: Tensor) -> list[int]:
    """Return the strides that mean something: those of an axis of length 1 do not."""
    return [stride for stride, length in zip(tensor.stride(), tensor.shape, strict=True) if length > 1]
