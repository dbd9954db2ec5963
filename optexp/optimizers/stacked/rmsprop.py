"""RMSprop for R members at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optexp.optimizers.stacked.base import Settings, StackedOptimizer


class RMSprop(StackedOptimizer):
    """torch.optim.RMSprop (Tieleman & Hinton, 2012; centered: Graves, 2013), with `d = grad + weight_decay * w`:

    `v = alpha v + (1 - alpha) d²;  buf = momentum * buf + d / (sqrt(v) + eps);  w = w - lr * buf`

    With `centered`, the same in all members, the running mean of d, squared, is subtracted from v under the root.
    """

    arguments = frozenset({"alpha", "eps", "weight_decay", "momentum", "centered", "maximize"})
    shared = ("centered",)

    def _slot_names(self, settings: Settings) -> tuple[str, ...]:
        momentum = ("momentum_buffer",) if settings["momentum"] > 0 else ()
        return ("square_avg", *momentum, *(("grad_avg",) if settings["centered"] else ()))

    def _hyperparameters(self, settings: list[Settings]) -> dict[str, list[float]]:
        return {
            "alpha": [own["alpha"] for own in settings],
            "1-alpha": [1 - own["alpha"] for own in settings],
            "eps": [own["eps"] for own in settings],
            "momentum": [own["momentum"] for own in settings],
        }

    def _update(self, group: int, names: Sequence[str], count: int) -> None:
        fixed = self._fixed(group)
        columns = self._columns(lambda: {"-lr": [-own["lr"] for own in self._of_group(group)]}, fixed)
        for name in names:
            parameter, slots = self.parameters[name], self.slots[name]
            column = columns.at(parameter.ndim)
            gradient, room = self._gradient(name, column, fixed), self._rooms(name)[1]
            scaled = torch.mul(gradient, column["1-alpha"], out=room)
            slots["square_avg"].mul_(column["alpha"]).addcmul_(scaled, gradient)
            if "grad_avg" in slots:
                mean = slots["grad_avg"].lerp_(gradient, column["1-alpha"])
                root = torch.addcmul(slots["square_avg"], mean, mean, value=-1, out=room).sqrt_()
            else:
                root = torch.sqrt(slots["square_avg"], out=room)
            root.add_(column["eps"])
            if "momentum" in fixed.nonzero:
                direction = slots["momentum_buffer"].mul_(column["momentum"]).addcdiv_(gradient, root)
            else:
                direction = torch.div(gradient, root, out=room)
            parameter.addcmul_(direction, column["-lr"])
