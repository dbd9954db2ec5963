"""Whole steps as CUDA graphs: forward, backward, clipping and update in one launch.

A small model's step is hundreds of kernels of a few microseconds each, and starting them from Python takes ten times as
long as running them. A graph repeats them all by a single call. What that demands of a step: it waits for nothing, its
tensors stay where they are, and the numbers that the host computes anew each time go through `optexp.transfers`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from optexp.instruments.look import Look
from optexp.transfers import HostNumbers

log = logging.getLogger(__name__)

SMALL_STEP = 1e12
"""FLOPs of a training step below which starting its kernels may take longer than running them (2 ms at 500 TFLOP/s)."""

_WARM_UP = 3  # steps taken before the first capture: libraries choose their kernels and make their workspaces in them

Observations = dict[str, Any]


class Graph(Protocol):
    """Records what a function does on the device, and repeats it."""

    def capture(self, take: Callable[[], Any]) -> Any:
        """Call the function, recording and not executing what it does; return what it returned."""

    def replay(self) -> None:
        """Execute what was recorded, in the same memory."""


class CudaGraph:
    """torch's graphs. All of a training share one pool of memory, because no two of them run at the same time."""

    def __init__(self, pool: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._pool = pool

    def capture(self, take: Callable[[], Any]) -> Any:
        with torch.cuda.graph(self._graph, pool=self._pool):
            return take()

    def replay(self) -> None:
        self._graph.replay()


class CapturedSteps:
    """Takes steps, at first as they are written and then as graphs: one for observed steps and one for the others.

    `take(look)` does all that a step does on the device; `seed` sets torch's generators before it, where it draws
    from them; `state` names all tensors that a step changes. Each graph is checked when it is made: it must do to the
    state what the step itself does. Where it does not, or the step cannot be captured, the log says so once and steps
    are taken as they are written.
    """

    def __init__(
        self,
        take: Callable[[Look], Observations],
        state: Callable[[], Sequence[Tensor]],
        device: torch.device,
        new_graph: Callable[[], Graph] | None = None,
        seed: Callable[[], None] = lambda: None,
    ) -> None:
        self._seed = seed
        self._take = take
        self._state = state
        self._device = device
        if new_graph is None:
            pool = torch.cuda.graph_pool_handle()
            new_graph = lambda: CudaGraph(pool)  # noqa: E731 - a default
        self._new_graph = new_graph
        self._captured: dict[Look, tuple[Graph, HostNumbers, Observations]] = {}
        self._taken: Counter[Look] = Counter()
        self.refused: str | None = None  # why steps are taken as they are written

    def forget(self) -> None:
        """Begin anew: the tensors have moved."""
        self._captured.clear()
        self._taken.clear()

    def __call__(self, look: Look) -> Observations:
        """Take a step; return its observations, which the next observed step may overwrite."""
        if look in self._captured:
            graph, numbers, observations = self._captured[look]
            numbers.compute()
            numbers.send()
            self._seed()
            graph.replay()
            return observations
        warm = self._taken.total() >= _WARM_UP and self._taken[look]
        self._taken[look] += 1
        # Probes are few, and keep tensors from one step for the next, which the graphs' common memory would not.
        if warm and self.refused is None and not look.compares:
            return self._capture(look)
        self._seed()
        return self._on_a_side_stream(look) if self._device.type == "cuda" else self._take(look)

    def _on_a_side_stream(self, look: Look) -> Observations:
        """Take a step where nothing is left behind on the main stream, as capturing demands of the steps before."""
        if self.refused is not None:
            return self._take(look)
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            observations = self._take(look)
        main.wait_stream(side)
        return observations

    def _capture(self, look: Look) -> Observations:
        """Take a step as it is written, then the same one as a graph, and compare."""
        state, numbers = list(self._state()), HostNumbers(self._device)
        before = [tensor.clone() for tensor in state]
        self._seed()
        with numbers.placed():
            written = {tag: value.clone() for tag, value in self._take(look).items()}
        after = [tensor.clone() for tensor in state]
        try:
            _copy(before, state)
            graph = self._new_graph()
            with numbers.placed(again=True):
                observations: Observations = graph.capture(lambda: self._take(look))
            self._seed()
            graph.replay()
            if not (difference := _difference(before, after, state)) <= 0.05:
                raise RuntimeError(f"a replayed step differs by {difference:.1%} from the step that was captured")
        except RuntimeError as error:
            self.refused = str(error).strip().splitlines()[0]
            log.warning("steps are not captured as CUDA graphs: %s", self.refused)
            self._captured.clear()
            _copy(after, state)
            return written
        self._captured[look] = (graph, numbers, observations)
        return observations


@torch.no_grad()
def _copy(values: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    for value, tensor in zip(values, tensors, strict=True):
        tensor.copy_(value)


@torch.no_grad()
def _difference(before: Sequence[Tensor], after: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Return by how much `found` is not `after`: of each tensor the distance relative to its change, 1 at most, as a
    mean over all elements. Equal steps are not equal bit by bit on a GPU, least of all where the gradient is all noise.
    """
    parts, total = [], 0
    for old, new, other in zip(before, after, found, strict=True):
        change, rounding = _size(new - old), 1e-6 * _size(new)
        same = (other == new) | (other.isnan() & new.isnan())  # a member that has diverged counts, too
        error = torch.where(same, 0.0, (other - new).double()).norm()
        parts.append(new.numel() * (error / (change + rounding + 1e-30)).clamp(max=1.0))
        total += new.numel()
    return float(torch.stack(parts).sum()) / total


def _size(values: Tensor) -> Tensor:
    """Return the norm of the finite values."""
    return values.double().nan_to_num(0.0, 0.0, 0.0).norm()
