"""Building an optimizer without the import of torch's compiler.

torch marks functions that `torch.compile` must leave alone, `Optimizer.add_param_group` for one, by a wrapper
(`torch._disable_dynamo`) that imports the compiler at the first call, compiled or not. The import takes about a
second: for a small run, more than the training.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

_COMPILER = "torch._dynamo"
_DISABLED = "__dynamo_disable"  # where torch's wrapper keeps the function that it calls, once the compiler is there


@contextmanager
def without_compiler(*functions: Callable[..., Any]) -> Iterator[None]:
    """Let functions that torch has marked be called, until the end of the block, without importing its compiler.

    Each is the same function: outside of compiled code, which there is none of before the import, the mark does
    nothing else. A function that is not marked in the way known here is called as it is, import and all.
    """
    inner = [] if _COMPILER in sys.modules else [body for body in map(_marked, functions) if body is not None]
    ours = [body for body in inner if not hasattr(body, _DISABLED)]
    for body in ours:
        setattr(body, _DISABLED, body)
    try:
        yield
    finally:
        for body in ours:  # code that is compiled later must find the mark
            delattr(body, _DISABLED)


def construct(target: Callable[..., Any], groups: list[dict[str, Any]], **arguments: Any) -> Any:
    """Call an optimizer's constructor; raises what it raises."""
    with without_compiler(Optimizer.add_param_group):
        return target(groups, **arguments)


def _marked(function: Callable[..., Any]) -> Any:
    """Return the function inside torch's wrapper, None when it is in no such wrapper."""
    wrap = getattr(torch, "_disable_dynamo", None)
    if wrap is None or getattr(function, "__code__", None) is not getattr(wrap(_marked), "__code__", _marked):
        return None
    return getattr(function, "__wrapped__", None)
