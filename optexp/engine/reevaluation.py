"""The step of an optimizer that evaluates loss and gradients itself, once or many times (L-BFGS)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp.instruments.norms import Scalar

Evaluation = Callable[[], tuple[Scalar, Scalar]]


class NotFinite(Exception):
    """An evaluation within a step has given a loss or a gradient that is not finite."""

    def __init__(self, loss: float, norm: float) -> None:
        super().__init__(f"loss {loss}, gradient norm {norm}")
        self.loss = loss
        self.norm = norm


class Reevaluation:
    """Takes steps with a closure. All evaluations of a step are of the same batch, masks and random draws.

    The gradients that the step began with serve as the first evaluation, if the optimizer makes it where the weights
    are. Further ones leave no trace but the optimizer's: buffers such as the statistics of batch normalization keep the
    values of the first.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module, parameters: Sequence[Tensor]) -> None:
        self._optimizer = optimizer
        self._model = model
        self._parameters = list(parameters)

    @torch.no_grad()
    def update(self, loss: Scalar, evaluate: Evaluation) -> None:
        """Take the step that begins with `loss` and the gradients that the parameters have.

        `evaluate` computes them anew and returns loss and gradient norm. Raises NotFinite when one of the two is not
        finite, with the weights as they were before the step.
        """
        before = [parameter.detach().clone() for parameter in self._parameters]
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        evaluations = 0

        def closure() -> Scalar:
            nonlocal evaluations
            evaluations += 1
            at_start = evaluations == 1 and all(map(torch.equal, self._parameters, before))
            found = loss if at_start else again()
            for parameter in self._parameters:  # L-BFGS flattens gradients by `view`
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.contiguous()
            return found

        def again() -> Scalar:
            with torch.enable_grad():
                found, norm = evaluate()
            if not math.isfinite(float(found)) or not math.isfinite(float(norm)):
                raise NotFinite(float(found), float(norm))
            return found

        try:
            self._optimizer.step(closure)  # type: ignore[arg-type]
        except NotFinite:
            torch._foreach_copy_(self._parameters, before)
            raise
        finally:
            for buffer, value in zip(self._model.buffers(), buffers, strict=True):
                buffer.copy_(value)
