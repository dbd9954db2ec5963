"""Arguments that were asked for and do not reach the optimizer.

Training scripts pass what the user asked for through helpers, and a helper that takes `**kwargs` may drop an argument
without a word: with `sgd_dampening=0.9` and Adam a run trains as if nothing had been asked, and the user believes that
dampening 0.9 trains. What an optimizer holds tells what arrived: the arguments of its class and its parameter groups.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from optexp.errors import BadInput
from optexp.optimizers.muon import Muon

GENERIC = ("optimizer", "optim", "opt")
"""Prefixes of names (`opt_lr`) and sections (`optimizer.lr`) that mean any optimizer."""

SPELLINGS = {
    "learning_rate": ("lr", None),
    "epsilon": ("eps", None),
    "beta1": ("betas", 0),
    "beta2": ("betas", 1),
    "wd": ("weight_decay", None),
}
"""Other names in use, with the argument they mean and the place in it."""

ORDINARY = frozenset({"alpha", "rho", "d", "t0", "lambd", "lr_decay", "max_iter", "max_eval", "history_size"})
"""Arguments whose names training scripts give to other things; without a prefix they count if the class takes them."""

AUTOMATIC = frozenset({"foreach", "fused"})
"""Arguments that say how a step is computed; None leaves that to torch, which is no other step than without."""

Kind = Literal["dropped", "not applied"]


@dataclass(frozen=True)
class Finding:
    """One argument that was asked for in vain.

    `kind` is `dropped` when the optimizer's class has no such argument, and `not applied` when it has one and no
    parameter group holds the value. `key` is the name as asked for, `argument` the optimizer's, `held` the values of
    its parameter groups. As text it is one line.
    """

    kind: Kind
    key: str
    argument: str
    requested: Any
    held: tuple[Any, ...]
    text: str

    def __str__(self) -> str:
        return self.text


class Findings(list[Finding]):
    """What `check` has found; as text one line each."""

    def __str__(self) -> str:
        return "\n".join(map(str, self)) if self else "every argument asked for has reached the optimizer"


@dataclass(frozen=True)
class _Request:
    """A key that means an argument of some optimizer. `rank` is 0 with the optimizer's own name in front, 2 with
    another's, and 1 with neither.
    """

    key: str
    argument: str
    place: int | None
    value: Any
    rank: int


def check(optimizer: Optimizer, requested: Any) -> Findings:
    """Return the arguments that were asked for and that the optimizer does not have; empty when all have arrived.

    `requested` is what the user asked for: a mapping, an `argparse.Namespace`, a dataclass object or any other object
    with attributes, with whatever else they hold. A key counts when it is an argument of an optimizer of torch or of
    optexp, as it is (`weight_decay`, `--weight-decay`), with a prefix (`sgd_dampening`, `optimizer_lr`, `opt.lr`) or in
    a section of that name (`{"optimizer": {"lr": 0.1}}`). None asks for nothing; nor does a false or zero value
    of an argument that the class does not have. A value is applied when one parameter group holds it, so that groups
    may differ on purpose; learning rates are compared with what a scheduler has noted as initial.

    Raises BadInput for something that is no optimizer, and for requests that have no names.
    """
    optimizer = _innermost(optimizer)
    found = Findings()
    taken = _taken(optimizer)
    requests = [r for r in _requests(optimizer, taken, requested) if r.value is not None]
    for request in requests:
        if request.argument not in taken:
            if _plain(request.value):
                found.append(_dropped(optimizer, request))
        elif request.rank == min(other.rank for other in requests if other.argument == request.argument):
            rivals = [o for o in requests if (o.argument, o.place, o.rank) == _meaning(request)]
            if not any(_is_applied(optimizer, rival) for rival in rivals):
                found.append(_not_applied(optimizer, request))
    return found


def _meaning(request: _Request) -> tuple[str, int | None, int]:
    return request.argument, request.place, request.rank


def _innermost(optimizer: Any) -> Optimizer:
    """Return the optimizer inside wrappers, such as those of accelerate, which keep it as `optimizer`."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    if not isinstance(optimizer, Optimizer):
        raise BadInput(
            f"optimizer: is {_a_kind(optimizer)}; allowed is an object of a class derived from torch.optim.Optimizer"
        )
    return optimizer


def _arguments(kind: type) -> set[str]:
    """Return the arguments of a class; where its constructor takes `**kwargs`, those of its base classes too."""
    names: set[str] = set()
    for cls in kind.__mro__:
        if cls is Optimizer:
            break
        if "__init__" in vars(cls):
            parameters = list(inspect.signature(vars(cls)["__init__"]).parameters.values())[1:]
            names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names - {"params"}


def _taken(optimizer: Optimizer) -> set[str]:
    """Return the arguments that an optimizer has: its class's, and of what came as `**kwargs` those that are read."""
    methods = [method for cls in type(optimizer).__mro__ if cls is not Optimizer for method in vars(cls).values()]
    code = [inspect.unwrap(method).__code__ for method in methods if inspect.isfunction(method)]
    return _arguments(type(optimizer)) | (optimizer.defaults.keys() & set(chain.from_iterable(map(_strings, code))))


def _strings(code: types.CodeType) -> Iterator[str]:
    """Yield the texts that a function holds, such as the keys by which it reads a parameter group."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _strings(constant)
        elif isinstance(constant, str):
            yield constant


@cache
def _known() -> dict[str, list[str]]:
    """Return the arguments of all known optimizers, with the names of the classes that take them."""
    shipped = [kind for kind in vars(torch.optim).values() if isinstance(kind, type) and issubclass(kind, Optimizer)]
    takers: dict[str, list[str]] = {}
    for kind in [*(kind for kind in shipped if kind not in (Optimizer, torch.optim.Muon)), Muon]:
        for name in sorted(_arguments(kind)):
            takers.setdefault(name, []).append(kind.__name__)
    return takers


def _requests(optimizer: Optimizer, taken: set[str], requested: Any) -> Iterator[_Request]:
    """Yield what the keys ask of an optimizer; keys that ask nothing of any are left out."""
    own = type(optimizer).__name__.lower()
    kinds = {name.lower() for names in _known().values() for name in names} | {own}
    for path, value in _flat(requested):
        *sections, name = [part.lstrip("-").replace("-", "_").lower() for part in path.split(".")]
        words = [word for section in sections for word in section.split("_") if word in kinds or word in GENERIC]
        if sections and not words:  # such as the eps of a section `model`
            continue
        readings = [(SPELLINGS.get(name, (name, None)), words)]  # the name with ever more prefixes taken away
        while (first := name.partition("_")[0]) in (*kinds, *GENERIC) and first != name:
            name, words = name[len(first) + 1 :], [*words, first]
            readings.append((SPELLINGS.get(name, (name, None)), words))
        # Muon has an `adamw_betas`: for AdamW that is its betas.
        fitting = [reading for reading in readings if reading[0][0] in taken]
        known = [reading for reading in reversed(readings) if reading[0][0] in _known()]
        if not fitting and not known:
            continue
        (argument, place), words = [*fitting, *known][0]
        if argument in ORDINARY and not words and argument not in taken:
            continue
        named = [word for word in words if word in kinds]
        rank = 1 if not named else 0 if any(own.startswith(word) for word in named) else 2
        yield _Request(path, argument, place, value, rank)


def _flat(requested: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of nested mappings, namespaces and dataclass objects. Raises BadInput."""
    items = _items(requested)
    if items is None:
        what = _a_kind(requested)
        raise BadInput(f"requested: is {what}; allowed are a mapping, an argparse.Namespace and a dataclass object")
    for key, value in items.items():
        if isinstance(value, Mapping | argparse.Namespace | types.SimpleNamespace) or _is_dataclass(value):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _a_kind(value: Any) -> str:
    """Return the name of a value's class with its article: `an int`, `a list`."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


def _items(holder: Any) -> dict[str, Any] | None:
    if isinstance(holder, Mapping):
        return {str(key): value for key, value in holder.items()}
    if _is_dataclass(holder):
        return {field.name: getattr(holder, field.name) for field in dataclasses.fields(holder)}
    return None if isinstance(holder, type) or not hasattr(holder, "__dict__") else dict(vars(holder))


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _plain(value: Any) -> Any:
    """Return a value as numbers, truth values, text or lists of them: of text what it says, of arrays the content."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, str):
        words = {"true": True, "false": False, "none": None, "null": None}
        try:
            return words[value.lower()] if value.lower() in words else _plain(ast.literal_eval(value))
        except (ValueError, SyntaxError):
            return value
    return [_plain(item) for item in value] if isinstance(value, Sequence) else value


def _is_same(requested: Any, held: Any) -> bool:
    if isinstance(requested, list) and isinstance(held, list):
        return len(requested) == len(held) and all(map(_is_same, requested, held))
    try:
        return math.isclose(requested, held, rel_tol=1e-6)  # as far apart as float32 makes it
    except TypeError:
        return bool(requested == held)


def _held(optimizer: Optimizer, argument: str) -> list[Any]:
    """Return the values of an argument: one per parameter group, else the optimizer's own; none where it keeps none."""
    held = [group[argument] for group in optimizer.param_groups if argument in group]
    if not held and argument in optimizer.defaults:
        held = [optimizer.defaults[argument]]
    return held or ([getattr(optimizer, argument)] if hasattr(optimizer, argument) else [])


def _is_applied(optimizer: Optimizer, request: _Request) -> bool:
    """Return whether a parameter group holds the value, or held it before a scheduler changed it."""
    held = [_plain(value) for value in _held(optimizer, request.argument)]
    if not held:  # nothing is known
        return True
    groups = optimizer.param_groups
    if request.argument == "lr":
        earlier = [group[key] for group in groups for key in ("initial_lr", "max_lr") if key in group]
        held += [_plain(value) for value in [*earlier, optimizer.defaults.get("lr")]]
    elif any("max_momentum" in group for group in groups):  # OneCycleLR, CyclicLR: the constructor's value has gone
        held.append(_plain(optimizer.defaults.get(request.argument)))
    if request.place is not None:
        held = [value[request.place] for value in held if isinstance(value, list) and len(value) > request.place]
    if request.argument in AUTOMATIC:
        held = [value or False for value in held]
    return any(_is_same(_plain(request.value), value) for value in held)


def _dropped(optimizer: Optimizer, request: _Request) -> Finding:
    kind, argument = type(optimizer).__name__, request.argument
    takers = sorted(_known().get(argument, []))
    which = ", ".join(takers[:3]) + " and others" * (len(takers) > 3)
    text = f"{request.key}={request.value}: dropped, for {kind} has no argument {argument} ({which} has)"
    text = text if len(takers) == 1 else text.replace(" has)", " have)")
    if any(argument in group for group in optimizer.param_groups):
        text += "; it stands in a parameter group, where nothing reads it"
    return Finding("dropped", request.key, argument, request.value, (), text)


def _not_applied(optimizer: Optimizer, request: _Request) -> Finding:
    held = _held(optimizer, request.argument)
    shown = " and ".join(dict.fromkeys(_shown(value) for value in held))
    kind = type(optimizer).__name__
    text = f"{request.key}={request.value}: not applied, for this {kind} has {request.argument} {shown}"
    return Finding("not applied", request.key, request.argument, request.value, tuple(held), text)


def _shown(value: Any) -> str:
    plain = _plain(value)
    return f"{plain:g}" if isinstance(plain, float) else str(plain)
