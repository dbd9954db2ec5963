"""What a CUDA graph does, on a CPU: record operations with the memory they use, refuse to wait, and repeat them.

The oracle of the tests of captured steps on machines without a GPU. As a CUDA graph, it repeats operations and not the
Python code between them: a number that the host computed while recording is the same in every replay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

SYNCHRONIZING = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique")
FROM_HOST = ("lift_fresh", "lift_fresh_copy")


class RecordedGraph(TorchDispatchMode):
    """A graph as `engine.graphs.CapturedSteps` wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []
        self.changed: list[tuple[Tensor, Tensor]] = []
        self.replays = 0

    def capture(self, take: Callable[[], Any]) -> Any:
        before: dict[int, tuple[Tensor, Tensor]] = {}
        self._before = before
        try:
            with self:
                result = take()
        finally:
            for tensor, value in before.values():  # what is recorded is not executed
                tensor.copy_(value)
        return result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.split(".")[0]
        if name in SYNCHRONIZING:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        if name in FROM_HOST:
            raise RuntimeError(f"a number of the host would be baked into the graph: {name}")
        for position, argument in enumerate(func._schema.arguments):  # remember what is written in place
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written or "batch_norm" in name:  # whose schema does not tell that it writes running statistics
                given = args[position] if position < len(args) else kwargs.get(argument.name)
                for tensor in tree_leaves(given):
                    if isinstance(tensor, Tensor):
                        self._before.setdefault(tensor.data_ptr(), (tensor.detach(), tensor.detach().clone()))
        out = func(*args, **kwargs)
        kept = tree_map(lambda value: value.detach() if isinstance(value, Tensor) else value, (args, kwargs, out))
        self.operations.append((func, kept[0], kept[1], tree_leaves(kept[2])))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, expected in self.operations:
            found = tree_leaves(func(*args, **kwargs))
            for old, new in zip(expected, found, strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
