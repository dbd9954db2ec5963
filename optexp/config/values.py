"""Check a plain value against a type annotation and say in words what is allowed.

One checker serves every key a user can set: the engine's dataclass, and the signatures of models, data sets,
optimizers and schedules. Ranges are written as `Annotated[float, Above(0)]`.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union


@dataclass(frozen=True)
class AtLeast:
    limit: float

    def holds(self, value: float) -> bool:
        return value >= self.limit

    def __str__(self) -> str:
        return f"≥ {self.limit:g}"


@dataclass(frozen=True)
class Above:
    limit: float

    def holds(self, value: float) -> bool:
        return value > self.limit

    def __str__(self) -> str:
        return f"> {self.limit:g}"


@dataclass(frozen=True)
class Below:
    limit: float

    def holds(self, value: float) -> bool:
        return value < self.limit

    def __str__(self) -> str:
        return f"< {self.limit:g}"


@dataclass(frozen=True)
class Between:
    """low ≤ value ≤ high, or low ≤ value < high when `open_above`."""

    low: float
    high: float
    open_above: bool = False

    def holds(self, value: float) -> bool:
        return self.low <= value and (value < self.high if self.open_above else value <= self.high)

    def __str__(self) -> str:
        return f"in [{self.low:g}, {self.high:g}{')' if self.open_above else ']'}"


_NAMES = {int: "an integer", float: "a finite number", bool: "true or false", str: "a string", type(None): "null"}


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a plain value (from YAML) is allowed by an annotation; what is not understood is allowed."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return fits(value, arguments[0]) and all(
            marker.holds(value) for marker in arguments[1:] if hasattr(marker, "holds") and _is_number(value)
        )
    if origin in (Union, types.UnionType):
        return any(fits(value, choice) for choice in arguments)
    if origin is Literal:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in arguments)
    if origin in (list, Sequence) and arguments:
        return _is_sequence(value) and all(fits(item, arguments[0]) for item in value)
    if origin is tuple and arguments:
        if arguments[-1] is Ellipsis:
            return _is_sequence(value) and all(fits(item, arguments[0]) for item in value)
        return (
            _is_sequence(value)
            and len(value) == len(arguments)
            and all(fits(item, choice) for item, choice in zip(value, arguments, strict=True))
        )
    if origin is not None:
        return not isinstance(value, bool | int | float | str) and value is not None
    if annotation is float:
        return _is_number(value) and math.isfinite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation in (None, type(None)):
        return value is None
    try:
        return isinstance(value, annotation)  # e.g. torch.Tensor: nothing in a YAML file is one
    except TypeError:  # Any, a protocol, a type variable: not understood
        return True


def allowed(annotation: Any) -> str:
    """Describe what an annotation allows, for an error message: `a finite number > 0 or null`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        ranges = " and ".join(str(marker) for marker in arguments[1:] if hasattr(marker, "holds"))
        return f"{allowed(arguments[0])} {ranges}".rstrip()
    if origin in (Union, types.UnionType):
        plain = [choice for choice in arguments if _from_yaml(choice)]
        return " or ".join(dict.fromkeys(allowed(choice) for choice in plain))
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(_shown(choice) for choice in arguments)
    if origin in (list, Sequence) and arguments:
        return f"a list, each {allowed(arguments[0])}"
    if origin is tuple and arguments:
        if arguments[-1] is Ellipsis:
            return f"a list, each {allowed(arguments[0])}"
        return "a list of " + " and ".join(allowed(item) for item in arguments)
    return _NAMES.get(
        type(None) if annotation is None else annotation, str(getattr(annotation, "__name__", annotation))
    )


def _from_yaml(annotation: Any) -> bool:
    """Whether a YAML value can have this type (torch.Tensor and the like cannot, and need no mention)."""
    return not isinstance(annotation, type) or annotation in (*_NAMES, list, tuple, dict)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)
