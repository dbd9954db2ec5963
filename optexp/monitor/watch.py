"""Looking at single steps of somebody else's optimizer, through its own hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from optexp.instruments.look import Look
from optexp.instruments.observer import Numbers, Observer, Row
from optexp.instruments.step_size import effective_lr
from optexp.monitor.clipping import ClippingWatch
from optexp.monitor.user_code import UserRule

Replaced = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Observation:
    """One step that was looked at: tensors of what was measured, [1, ...] each, and what makes a row of their numbers.

    `norms` begins with those of the gradients of this many `parameters`; `fixed` is known already.
    """

    tensors: Mapping[str, Tensor]
    reading: Callable[[Numbers, int], Row]
    parameters: int
    fixed: Row

    @classmethod
    def of_nothing(cls) -> Observation:
        """Return the observation of a step that was not looked at."""
        return cls({}, lambda numbers, member: {}, 0, {})


class Watch:
    """Looks at the steps that it is told to, and changes nothing; there are no hooks at any other step."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, scaler: GradScaler | None, batch_size: int | None
    ) -> None:
        """`model` is the innermost one, `optimizer` one with hooks; `batch_size` is that of a step, in samples."""
        self.taken = 0  # steps since `start`
        self._model = model
        self._optimizer = optimizer
        self._scaler = scaler
        self._batch_size = batch_size
        self._look = Look.NOTHING
        self._handles: list[RemovableHandle] = []
        self._running: FrameType | None = None  # the call of `step` that is going on
        self._observation: Observation | None = None
        self._new_observer()

    def _new_observer(self) -> None:
        self._rule = UserRule(self._optimizer, self._model)
        self._observer = Observer(self._rule, self._batch_size)
        self._clipping = ClippingWatch(self._rule.parameters)

    def start(self, look: Look) -> None:
        """Look at the next step."""
        self.taken, self._look, self._observation = 0, look, None
        self._handles = [
            self._optimizer.register_step_pre_hook(self._before),
            self._optimizer.register_step_post_hook(self._after),
        ]
        self._clipping.start()

    def stop(self) -> Observation | None:
        """Look no further; return what was measured, None when nothing but memory was asked."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._clipping.stop()
        return self._observation

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Replaced | None:
        if self._running is not None and _is_running(self._running):
            return None  # a class whose `step` calls that of its base class: torch runs the hooks for both
        self._running = sys._getframe(1)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._note()
            return None
        noting = _NotingClosure(closure, self._note)
        return (args, {**kwargs, "closure": noting}) if "closure" in kwargs else ((args[0], noting, *args[2:]), kwargs)

    def _note(self) -> None:
        """Note weights and gradients right before the update."""
        if not self._rule.describes(self._optimizer):  # a group was added
            self._clipping.stop()
            self._new_observer()
        scale = getattr(self._optimizer, "grad_scale", None)
        coefficient = self._clipping.coefficient(self._scaler, scaled=scale is not None)
        self._rule.grad_scale = scale
        self._observer.before(self._look, coefficient)

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if sys._getframe(1) is not self._running:
            return
        self._running = None
        self.taken += 1
        if self.taken > 1:
            return
        tensors = self._observer.after(self._look)
        if self._look.sizes:
            lr = float(optimizer.param_groups[0]["lr"])
            fixed = {"optim/lr": lr, "optim/effective_lr": effective_lr(optimizer, lr)}
            count = len(self._rule.sizes)
            self._observation = Observation(tensors, self._observer.reading(), count, fixed)


class AppliedSteps:
    """Counts the steps that are taken under a GradScaler, which leaves out those with infinite gradients.

    torch's fused optimizers leave them out on the device, where they are counted, too.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.calls = 0
        self.left_out: Tensor | None = None  # of these calls, on the device
        self._handle = optimizer.register_step_post_hook(self._after)

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls += 1
        found = getattr(optimizer, "found_inf", None)
        if found is not None:
            self.left_out = found.clone() if self.left_out is None else self.left_out + found

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()


class _NotingClosure:
    """A closure that evaluates the loss for an optimizer, and calls `note` after the first time.

    That is where gradients are those of the weights before the update; L-BFGS evaluates at others later.
    """

    def __init__(self, closure: Callable[[], Any], note: Callable[[], None]) -> None:
        self._closure = closure
        self._note: Callable[[], None] | None = note

    def __call__(self) -> Any:
        loss = self._closure()
        if self._note is not None:
            self._note()
            self._note = None
        return loss


def _is_running(frame: FrameType) -> bool:
    """Return whether a call is among the callers: one that has raised is not."""
    caller: FrameType | None = sys._getframe(1)
    while caller is not None and caller is not frame:
        caller = caller.f_back
    return caller is not None
