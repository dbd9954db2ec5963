"""The optimizer under audit, and its trajectory on a problem: weights after every step, as float64 NumPy arrays."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from optexp.audit.exceptions import Crashed, Refused, constructing, line, reloading, stepping
from optexp.audit.problems import Array, Problem, quadratic
from optexp.audit.published import Published, rule_of
from optexp.errors import BadInput
from optexp.optimizers.construction import construct

Build = Callable[[list[dict[str, Any]], Mapping[str, Any]], Optimizer]
Steps = Callable[[Optimizer], Callable[[], Any]]


@dataclass(frozen=True)
class Follow:
    """How to follow an optimizer: what differs from its configuration, and how its steps are taken.

    `group_settings` makes as many parameter groups, of equal parts of the parameters, with these settings; `lrs` are
    the learning rates of the steps as multiples of each group's own. `reload_after` goes on, after that step, with a
    fresh optimizer that has loaded the state of the first. `skipping` lists parameters that get no gradient.
    `steps_of` replaces `optimizer.step`. With `graph` the gradients come from autograd, with a graph of their own, for
    optimizers that ask it for the Hessian; elsewhere the Hessian is given to those that take one.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    group_settings: tuple[Mapping[str, Any], ...] = ()
    lrs: Sequence[float] = ()
    reload_after: int | None = None
    skipping: tuple[int, ...] = ()
    steps_of: Steps | None = None
    graph: bool = False


@dataclass(frozen=True)
class Trajectory:
    """All weights, flat, before the first step and after every one: [steps + 1, n]; and the state at the end, flat."""

    weights: Array
    state: Array

    @property
    def moves(self) -> Array:
        """The displacement from the start after every step, [steps, n]."""
        return self.weights[1:] - self.weights[0]


@dataclass(frozen=True)
class Subject:
    """An optimizer class with its configured arguments, and what it can be asked for.

    `settings` are all hyperparameters by name: the constructor's defaults and what the configuration says. `ranks` are
    the ranks of the tensors it takes, `dtype` the widest floating type that it keeps weights in without rounding them.
    """

    name: str
    build: Build
    kind: type
    settings: Mapping[str, Any]
    published: Published | None
    dtype: torch.dtype = torch.float64
    ranks: tuple[int, ...] = (1, 2)

    @property
    def averages(self) -> bool:
        """Whether it switches between training and averaged weights, so that weights move on without a gradient."""
        return callable(getattr(self.kind, "train", None)) and callable(getattr(self.kind, "eval", None))

    @cached_property
    def takes_hessian(self) -> bool:
        return "hessian" in inspect.signature(self.kind.step).parameters  # type: ignore[attr-defined]

    @cached_property
    def needs_closure(self) -> bool:
        closure = inspect.signature(self.kind.step).parameters.get("closure")  # type: ignore[attr-defined]
        return closure is not None and closure.default is inspect.Parameter.empty

    @property
    def tolerance(self) -> float:
        """The largest deviation from what is expected, as a fraction of the distance travelled, that is agreement."""
        usual = self.published.tolerance_with(self.settings) if self.published else 1e-6
        return usual if self.dtype == torch.float64 else max(usual, 1e-3)

    def suited(self, problem: Problem) -> Problem:
        """Return the part of a problem that it takes."""
        return problem.of_shapes(lambda shape: len(shape) in self.ranks)

    def follow(self, problem: Problem, steps: int, how: Follow | None = None) -> Trajectory:
        """Take steps on a problem; raises Refused or Crashed for what the optimizer raises."""
        with quiet(self.dtype):
            return _Course(self, problem, how or Follow()).run(steps)


def subject(build: Build, given: Mapping[str, Any], published: Published | str | None = "auto") -> Subject:
    """Find out what an optimizer takes. Raises BadInput where it takes no step at all.

    `build(groups, changes)` makes it with changed arguments; `given` are the configured ones. `published` is the rule
    to compare with; "auto" finds it by the class.
    """
    try:
        with quiet(torch.float32):
            kind = type(build([{"params": [torch.zeros(4, 3, requires_grad=True)]}], {}))
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"optimizer: rejects its arguments: {line(error)}") from error
    rule = rule_of(kind) if published == "auto" else published
    assert not isinstance(rule, str)
    settings = {**signature_defaults(kind), **given}
    if published == "auto" and rule and rule.lacking(settings):
        rule = None  # derived from a class with a rule, with a constructor of its own
    problem: Exception | None = None
    for dtype in (torch.float64, torch.float32):
        for ranks in ((1, 2), (2,)):
            found = Subject(kind.__name__, build, kind, settings, rule, dtype, ranks)
            try:
                trajectory = found.follow(found.suited(quadratic()), 2)
            except (Refused, Crashed) as error:
                problem = error
                continue
            if not np.isfinite(trajectory.weights).all():
                problem = ValueError("its weights are not finite after two steps on a quadratic")
            elif dtype == torch.float32 or not _rounded(trajectory):
                return found
    assert problem is not None
    raise BadInput(f"optimizer: {kind.__name__} cannot be audited: {line(problem)}")


def _rounded(trajectory: Trajectory) -> bool:
    """Return whether all weights are float32 numbers after a step, which the starts in float64 are not.

    bitsandbytes takes weights in float64 and rounds them: its double precision is single precision.
    """
    ends = trajectory.weights[-1]
    with np.errstate(over="ignore"):
        return bool((ends == ends.astype(np.float32)).all()) and bool(ends.any())


def signature_defaults(kind: type) -> dict[str, Any]:
    """Return the constructor's hyperparameters with their defaults."""
    parameters = list(inspect.signature(kind).parameters.values())[1:]  # the first are the parameters to optimize
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return {p.name: p.default for p in named if p.default is not inspect.Parameter.empty}


@contextlib.contextmanager
def quiet(dtype: torch.dtype) -> Iterator[None]:
    """Let nothing an optimizer draws or warns of reach the caller.

    Scalars that torch's optimizers keep as tensors (step counts, NAdam's product) have the default type of torch, which
    in a float64 comparison is float64.
    """
    before = torch.get_default_dtype()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


class _Course:
    """One trajectory while it is being followed."""

    def __init__(self, subject: Subject, problem: Problem, how: Follow) -> None:
        self.subject, self.problem, self.how = subject, problem, how
        differentiable = bool({**subject.settings, **how.changes}.get("differentiable"))
        self.weights = [
            torch.tensor(start, dtype=subject.dtype, requires_grad=not differentiable) for start in problem.starts
        ]
        self._start()

    def _start(self) -> None:
        number = max(len(self.how.group_settings), 1)
        size = len(self.weights) // number
        parts = [self.weights[size * group : size * (group + 1)] for group in range(number)]
        settings = self.how.group_settings or ({},)
        groups = [{"params": part, **own} for part, own in zip(parts, settings, strict=True)]
        with constructing(self.how.changes, number):
            self.optimizer = self.subject.build(groups, self.how.changes)
        train = getattr(self.optimizer, "train", None)
        if callable(train):
            train()
        self.own_lrs: list[Any] = [group.get("lr") for group in self.optimizer.param_groups]
        with stepping(1, self.how.changes):
            self.take = (self.how.steps_of or _own_step)(self.optimizer)

    def run(self, steps: int) -> Trajectory:
        seen = [self._flat()]
        for step in range(1, steps + 1):
            if self.how.lrs:
                for group, own in zip(self.optimizer.param_groups, self.own_lrs, strict=True):
                    group["lr"] = own * self.how.lrs[step - 1]
            self._step(step)
            seen.append(self._flat())
            if step == self.how.reload_after:
                self._reload(step)
        return Trajectory(np.stack(seen), _state_of(self.optimizer, self.weights))

    def _step(self, step: int) -> None:
        optimizer: Any = self.optimizer  # some take a Hessian
        if self.subject.needs_closure:

            def closure() -> Tensor:
                self._differentiate(step)
                value = self.problem.loss([own.detach().double().numpy() for own in self.weights], step)
                return torch.tensor(float(value), dtype=self.subject.dtype)

            with stepping(step, self.how.changes):
                optimizer.step(closure)
            return
        self._differentiate(step)
        if self.subject.takes_hessian and not self.how.graph:
            diagonals = [self.problem.curvature(index, step) for index in range(len(self.weights))]
            hessian = [torch.tensor(own, dtype=self.subject.dtype) for own in diagonals]
            with stepping(step, self.how.changes):
                optimizer.step(hessian=hessian)
        else:
            with stepping(step, self.how.changes):
                self.take()

    def _differentiate(self, step: int) -> None:
        """Set the gradients anew: some optimizers change them in place."""
        if self.how.graph:
            for own in self.weights:
                own.grad = None
            with torch.enable_grad():
                self.problem.loss(self.weights, step).backward(create_graph=True)
        else:
            for index, own in enumerate(self.weights):
                own.grad = torch.tensor(
                    self.problem.gradient(index, own.detach().double().numpy(), step), dtype=self.subject.dtype
                )
        for index in self.how.skipping:
            self.weights[index].grad = None

    def _reload(self, step: int) -> None:
        """Go on in copies of the weights, with a new optimizer and a state that has been on a disk."""
        disk = io.BytesIO()
        with reloading(step):
            torch.save(copy.deepcopy(self.optimizer.state_dict()), disk)
        disk.seek(0)
        self.weights = [own.detach().clone().requires_grad_(own.requires_grad) for own in self.weights]
        lrs = self.own_lrs
        self._start()
        with reloading(step):
            self.optimizer.load_state_dict(torch.load(disk, weights_only=False))
        self.own_lrs = lrs

    def _flat(self) -> Array:
        return np.concatenate([own.detach().double().numpy().ravel() for own in self.weights])


def _own_step(optimizer: Optimizer) -> Callable[[], Any]:
    return optimizer.step


def _state_of(optimizer: Optimizer, weights: Sequence[Tensor]) -> Array:
    """Return the numbers in the state tensors of all parameters, in order of parameter and name."""
    parts = [np.zeros(0)]
    for own in weights:
        slots = optimizer.state.get(own) or {}
        for name in sorted(slots, key=str):
            if isinstance(slots[name], Tensor) and slots[name].is_floating_point():
                parts.append(slots[name].detach().double().cpu().numpy().ravel())
    return np.concatenate(parts)


def follow_rule(
    published: Published,
    settings: Mapping[str, Any],
    problem: Problem,
    steps: int,
    group_settings: tuple[Mapping[str, Any], ...] = (),
    lrs: Sequence[float] = (),
) -> Trajectory:
    """Follow the published rule on a problem, with the same meaning of the arguments as in `Follow`."""
    number = max(len(group_settings), 1)
    size = len(problem.starts) // number
    weights = [start.copy() for start in problem.starts]
    states: list[dict[str, Any]] = [{} for _ in weights]
    seen = [np.concatenate([own.ravel() for own in weights])]
    for step in range(1, steps + 1):
        for index, own in enumerate(weights):
            h = {**settings, **(group_settings[index // size] if group_settings else {})}
            h["lr"] = h["lr"] * (lrs[step - 1] if lrs else 1.0)
            h["hessian"] = problem.curvature(index, step)
            with np.errstate(all="ignore"):
                gradient = problem.gradient(index, own, step) * (-1.0 if h.get("maximize") else 1.0)
                weights[index] = published.rule(h, states[index], own, gradient, step)
        seen.append(np.concatenate([own.ravel() for own in weights]))
    return Trajectory(np.stack(seen), np.zeros(0))


def configured(target: Callable[..., Any], given: Mapping[str, Any]) -> Build:
    """Return what builds an optimizer from its class or function and configured arguments, some of them changed."""

    def build(groups: list[dict[str, Any]], changes: Mapping[str, Any]) -> Optimizer:
        optimizer = construct(target, groups, **{**given, **changes})
        if not isinstance(optimizer, Optimizer):
            raise BadInput(f"optimizer._target_: {target!r} does not make a torch.optim.Optimizer")
        return optimizer

    return build
