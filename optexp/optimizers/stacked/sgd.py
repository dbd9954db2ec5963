"""Stochastic gradient descent with momentum, dampening and Nesterov momentum, for R members at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optexp.optimizers.fused_kernels import FUSED_KERNELS
from optexp.optimizers.stacked.base import Settings, StackedOptimizer


class SGD(StackedOptimizer):
    """torch.optim.SGD: `d = grad + weight_decay * w; buf = momentum * buf + (1 - dampening) * d; w = w - lr * buf`.

    The first buffer is d itself, undampened. Nesterov members step along `d + momentum * buf`, members without momentum
    along d; beside members with momentum they have a buffer too, which nothing reads. All arguments differ freely.
    """

    arguments = frozenset({"momentum", "dampening", "weight_decay", "nesterov", "maximize"})
    counts_steps = False
    kernel = FUSED_KERNELS[torch.optim.SGD]

    def _slot_names(self, settings: Settings) -> tuple[str, ...]:
        return ("momentum_buffer",) if settings["momentum"] != 0 else ()

    def _hyperparameters(self, settings: list[Settings]) -> dict[str, list[float]]:
        return {
            "momentum": [own["momentum"] for own in settings],
            "undamped": [1 - own["dampening"] for own in settings],
            # The direction is of_gradient * d + of_buffer * buf; only for Nesterov members are both there.
            "of_gradient": [float(own["nesterov"] or own["momentum"] == 0) for own in settings],
            "of_buffer": [own["momentum"] if own["nesterov"] else float(own["momentum"] != 0) for own in settings],
        }

    def _update(self, group: int, names: Sequence[str], count: int) -> None:
        fixed = self._fixed(group)
        columns = self._columns(lambda: {"-lr": [-own["lr"] for own in self._of_group(group)]}, fixed)
        for name in names:
            parameter = self.parameters[name]
            column = columns.at(parameter.ndim)
            direction = self._gradient(name, column, fixed)
            if "momentum" in fixed.nonzero:
                buffer = self.slots[name]["momentum_buffer"]
                if count == 0:
                    buffer.copy_(direction)
                else:
                    buffer.mul_(column["momentum"]).addcmul_(direction, column["undamped"])
                if "of_gradient" in fixed.nonzero:
                    mixed = torch.mul(buffer, column["of_buffer"], out=self._rooms(name)[1])
                    direction = mixed.addcmul_(direction, column["of_gradient"])
                else:
                    direction = buffer
            parameter.addcmul_(direction, column["-lr"])
