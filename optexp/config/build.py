"""From a config node with a `_target_` to the object it names: the only place where names become code.

A `_target_` may name torch, torchvision, pytorch_optimizer, bitsandbytes or optexp; packages of the user's own must be
named in `trust=[package]`, on the command line. Every key is checked against the target's signature before anything
is called, because an argument that is silently ignored is how the Exp1/Exp2 confusion began.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from optexp.config import values
from optexp.errors import BadInput, listed, nearest

TRUSTED = ("torch", "torchvision", "pytorch_optimizer", "bitsandbytes", "optexp")
EXTRAS = ("bitsandbytes",)
"""Packages among them that are installed on request only."""

# At its import bitsandbytes warns of a kernel for 4-bit weights, which no optimizer uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def trust(packages: Iterable[str]) -> None:
    """Let the user's own packages be named; the current folder joins the import path for them."""
    if packages and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def locate(key: str, name: Any, trusted: Iterable[str]) -> Callable[..., Any]:
    """Import the callable a `_target_` names. Raises BadInput naming `key._target_` and the nearest name there is."""
    allowed = (*TRUSTED, *trusted)
    if not isinstance(name, str) or "." not in name:
        raise BadInput(f"{key}._target_={name}: must be a dotted name such as torch.optim.SGD")
    if name.split(".")[0] not in allowed:
        package = name.split(".")[0]
        raise BadInput(
            f"{key}._target_={name}: '{package}' is not trusted; allowed are {listed(allowed)}; "
            f"if the code is yours, add trust=[{package}]"
        )
    module_name, attribute = name.rsplit(".", 1)
    module = _import(key, name, module_name)
    try:
        target = getattr(module, attribute)
    except AttributeError:
        public = [word for word in dir(module) if not word.startswith("_")]
        raise BadInput(
            f"{key}._target_={name}: {module_name} has no '{attribute}'{nearest(attribute, public)}"
        ) from None
    if not callable(target):
        raise BadInput(f"{key}._target_={name}: is not a class or a function")
    return typing.cast("Callable[..., Any]", target)


def _import(key: str, name: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        hint = f"; is '{missing}' installed?" if "." not in missing else ""
        if missing in EXTRAS:
            hint = f"; it is an optional extra: pip install 'optexp[{missing}]'"
        raise BadInput(f"{key}._target_={name}: no module named '{missing}'{hint}") from None
    except ImportError as error:
        raise BadInput(f"{key}._target_={name}: cannot be imported ({str(error).splitlines()[0]})") from None
    except SystemExit as stop:
        raise BadInput(f"{key}._target_={name}: cannot be imported (it called {_exit_call(stop)})") from stop


def arguments(node: dict[str, Any], leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """Return the keys of a node that are meant for its target."""
    return {name: value for name, value in node.items() if name != "_target_" and name not in leave_out}


def check_arguments(
    group: str, target: Callable[..., Any], given: dict[str, Any], supplied: Iterable[str] = (), origin: str = ""
) -> None:
    """Check names and types of the arguments a config gives to a target.

    `supplied` are parameters the program fills in itself. `origin` says where surplus keys come from
    (`experiment=exp2_sgd_B32`). Raises BadInput naming the key, the target and what it does take.
    """
    parameters, hints = _signature(target)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if str(getattr(target, "__module__", "")).split(".")[0] == "pytorch_optimizer":
        takes_any = False  # its optimizers accept **kwargs and drop what they do not know
    supplied = set(supplied)
    takes = [
        name
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) and name not in supplied
    ]
    named = getattr(target, "__name__", str(target))
    surplus = [] if takes_any else [name for name in given if name not in takes]
    if surplus:
        first = surplus[0]
        words = listed(f"'{name}'" for name in surplus)
        drop = " ".join(f"~{group}.{name}" for name in surplus)
        source = f" (set by {origin}; {drop} drops it)" if origin else ""
        raise BadInput(
            f"{group}.{first}={given[first]}: {named} takes no {words}{nearest(first, takes)}{source}; "
            f"it takes {listed(takes) or 'no arguments'}"
        )
    for name, value in given.items():
        if name in hints and not values.fits(value, hints[name]):
            raise BadInput(f"{group}.{name}={value}: allowed is {values.allowed(hints[name])}")
        if isinstance(value, dict) and "_target_" in value:
            raise BadInput(f"{group}.{name}: a nested _target_ is not supported; name a function that builds it")
    for name in takes:
        if parameters[name].default is inspect.Parameter.empty and name not in given:
            raise BadInput(f"{group}.{name} must be set: {named} requires it")


def _signature(target: Callable[..., Any]) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    """Return the parameters of a callable and their types, worked out once for all members of a sweep."""
    if isinstance(target, type | types.FunctionType):
        return _worked_out(target)
    return _worked_out.__wrapped__(target)  # an object that is called may change, and need not be hashable


@functools.cache
def _worked_out(target: Callable[..., Any]) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    return inspect.signature(target).parameters, _type_hints(target)


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a callable; empty when they cannot be evaluated."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def takes(target: Callable[..., Any], name: str) -> bool:
    """Return whether a callable has a parameter of this name."""
    return name in _signature(target)[0]


def call(group: str, target: Callable[..., Any], **given: Any) -> Any:
    """Call a target with plain values; what its constructor rejects is the user's mistake, said in one line."""
    named = getattr(target, "__name__", str(target))
    try:
        return target(**given)
    except BadInput:
        raise
    except SystemExit as stop:
        if type(stop) is not SystemExit:  # a signal that ends a sweep, and no call of the target's
            raise
        raise BadInput(f"{group}: {named} called {_exit_call(stop)} while it was being made") from stop
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        text = str(error).strip().splitlines()
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        reason = text[0] if text else type(error).__name__
        raise BadInput(f"{group}: {named}({shown}) rejects its arguments: {reason}") from error


def _exit_call(stop: SystemExit) -> str:
    """Return the call that has raised this, in one line."""
    return " ".join(f"sys.exit({'' if stop.code is None else repr(stop.code)})".splitlines())
