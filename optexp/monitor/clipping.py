"""What the training code does to the gradients between the backward pass and the update, seen from outside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.autograd import Variable
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from optexp.errors import BadInput
from optexp.instruments.norms import Scalar, global_norm

Signature = list[tuple[int, int]]
"""Of each gradient, which memory it is and how often that has been written to."""


class ClippingWatch:
    """Finds the factor by which gradients are clipped: their norm at the update over that after the backward pass.

    The norm before clipping is taken at the end of each backward pass, the last one counts; that is after the
    reduction of DistributedDataParallel. It needs hooks on the parameters, which are there for steps to be looked at
    only, and no more once nothing was found to touch the gradients: the number of writes tells whether it stays so.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._on_host = all(parameter.device.type == "cpu" for parameter in parameters)
        self._nodes: list[Node] = []  # what accumulates the gradient of each parameter
        self._handles: list[RemovableHandle] = []
        self._task = -1  # the backward pass that is going on
        self._norm: Scalar | None = None
        self._signature: Signature | None = None  # after the last backward pass
        self._asked = False  # whether a GradScaler is among the callers
        self._writes: list[int] | None = None  # how often gradients are written to in a step that leaves them alone

    def start(self) -> None:
        """Watch the backward passes of the step to come."""
        self._norm = self._signature = None
        if self._writes is None and not self._handles:
            # Not hooks of the parameters: torch goes on to ask those that are removed, for each parameter and step.
            self._nodes = [get_gradient_edge(parameter).node for parameter in self._parameters]
            self._handles = [node.register_hook(self._accumulated) for node in self._nodes]

    def stop(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._nodes = [], []

    def coefficient(self, scaler: GradScaler | None, scaled: bool) -> Scalar | None:
        """Return the factor, to be asked for right before the update; None when the gradients were not touched.

        `scaled` means that `scaler` has left it to the optimizer to divide the gradients by the loss scale.
        Raises BadInput for a loss scale that nobody told of.
        """
        now = self._sign()
        if self._writes is not None:
            if self._writes != [writes for _, writes in now]:
                self._writes = None  # it begins; the next look will see how much
            return None
        if self._norm is None:  # no backward pass since `start`
            return None
        if now == self._signature:
            self._writes = [writes for _, writes in now]
            return None
        if scaler is None and not self._asked and _called_by_scaler():
            raise BadInput("scaler: is not given, but a GradScaler takes these steps; give it as scaler=")
        self._asked = True
        norm = global_norm(self._gradients(), self._on_host)
        if scaler is not None and scaler.is_enabled() and not scaled:
            one = torch.ones((), device=self._parameters[0].device)
            norm = norm * scaler.scale(one)
        if isinstance(norm, float) and isinstance(self._norm, float):
            return norm / self._norm if self._norm else None
        return norm / self._norm

    def _accumulated(self, *_: object) -> None:
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            # A callback that another one adds comes after all those that are waiting: after DDP's reduction.
            queue = Variable._execution_engine.queue_callback
            queue(lambda: queue(self._backward_ended))

    @torch.no_grad()
    def _backward_ended(self) -> None:
        self._norm, self._signature = global_norm(self._gradients(), self._on_host), self._sign()

    def _gradients(self) -> list[Tensor]:
        found = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        return [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in found]

    def _sign(self) -> Signature:
        grads: list[Any] = [parameter.grad for parameter in self._parameters]
        return [(0, 0) if grad is None else (id(grad), grad._version) for grad in grads]


def _called_by_scaler() -> bool:
    """Return whether a GradScaler is among the callers."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == GradScaler.__module__:
            return True
        frame = frame.f_back
    return False
