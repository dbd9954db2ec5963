"""What an optimizer raises while it is followed: a refusal of what it was asked for, or a crash."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_SPOKEN = (ValueError, RuntimeError, NotImplementedError, AssertionError)
"""What a documented refusal is raised as; a KeyError that holds an argument's name is a bug all the same."""


class Refused(Exception):
    """The optimizer does not take these changed arguments: its constructor raises, or its first step says so."""


class Crashed(Exception):
    """The optimizer raises where it should work. `step` is the step, 0 before the first one."""

    def __init__(self, told: str, step: int) -> None:
        super().__init__(told)
        self.step = step


def line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def constructing(changes: Iterable[str], groups: int = 1) -> Iterator[None]:
    """Tell a constructor's refusal from a crash.

    Whatever it raises for changed arguments is a refusal. For several parameter groups, which every optimizer of torch
    takes, the refusal must be told: a ValueError or its like that speaks of groups, as L-BFGS's does.
    """
    try:
        yield
    except Exception as error:
        if groups > 1:
            if isinstance(error, _SPOKEN) and "group" in line(error):
                raise Refused(line(error)) from error
            raise Crashed(f"the constructor, given {groups} parameter groups, {_raises(error)}", 0) from error
        if tuple(changes):
            raise Refused(line(error)) from error
        raise Crashed(f"the constructor {_raises(error)}", 0) from error


@contextmanager
def stepping(step: int, changes: Iterable[str] = ()) -> Iterator[None]:
    """Tell a step's refusal from a crash: at the first step, an error that names one of the changed arguments."""
    try:
        yield
    except Exception as error:
        named = any(re.search(rf"\b{re.escape(name)}\b", str(error)) for name in changes)
        if step == 1 and named and isinstance(error, _SPOKEN):
            raise Refused(line(error)) from error
        raise Crashed(f"step {step} {_raises(error)}", step) from error


@contextmanager
def reloading(step: int) -> Iterator[None]:
    """Tell a crash of saving or loading state after a step."""
    try:
        yield
    except Exception as error:
        raise Crashed(f"its state, saved and loaded after step {step}, {_raises(error)}", step) from error


def _raises(error: BaseException) -> str:
    said = line(error)
    name = type(error).__name__
    return f"raises {name}" if said == name else f"raises {name}: {said}"
