"""The backward pass with fewer checks in Python than `Tensor.backward` makes."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor


class Backward:
    """Adds the gradients of a loss to those of the parameters, as `loss.backward()` does.

    On a small model the checks that torch makes in Python take a tenth of the time of a step.
    """

    def __init__(self, direct: bool = True) -> None:
        """`direct` allows to leave out the checks, where this version of torch lets its engine be called so."""
        self._direct = direct and _engine_is_as_known()
        self._one = torch.empty(0)  # the gradient of the loss with respect to itself

    def __call__(self, loss: Tensor) -> None:
        if not self._direct or type(loss) is not Tensor:
            loss.backward()
            return
        if self._one.shape != loss.shape or self._one.dtype != loss.dtype or self._one.device != loss.device:
            self._one = torch.ones_like(loss)
        _run_engine(loss, self._one)


def _run_engine(loss: Tensor, gradient: Tensor) -> None:
    """Do what `loss.backward(gradient)` does after checking its arguments."""
    engine: Any = torch.autograd.Variable._execution_engine
    engine.run_backward((loss,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)


@cache
def _engine_is_as_known() -> bool:
    """Return whether this version of torch lets its engine be called so; it is not part of the public interface."""
    leaf = torch.ones((), requires_grad=True)
    try:
        with torch.enable_grad():
            _run_engine(leaf * 3, torch.tensor(2.0))
    except (AttributeError, TypeError, RuntimeError):
        return False
    return leaf.grad is not None and leaf.grad.item() == 6
