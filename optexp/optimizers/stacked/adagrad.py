"""Adagrad for R members at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optexp.optimizers.fused_kernels import FUSED_KERNELS
from optexp.optimizers.stacked.base import Settings, StackedOptimizer


class Adagrad(StackedOptimizer):
    """torch.optim.Adagrad (Duchi, Hazan & Singer, 2011), after t gradients d (with `weight_decay * w` added):

    `s = s + d²;  w = w - lr / (1 + (t - 1) * lr_decay) * d / (sqrt(s) + eps)`

    where s starts at `initial_accumulator_value`, and is there before the first step.
    """

    arguments = frozenset({"lr_decay", "weight_decay", "initial_accumulator_value", "eps", "maximize"})
    starts_with_state = True
    kernel = FUSED_KERNELS[torch.optim.Adagrad]

    def _slot_names(self, settings: Settings) -> tuple[str, ...]:
        return ("sum",)

    def _initial_value(self, slot: str, settings: Settings) -> float:
        return float(settings["initial_accumulator_value"])

    def _hyperparameters(self, settings: list[Settings]) -> dict[str, list[float]]:
        return {"eps": [own["eps"] for own in settings]}

    def _update(self, group: int, names: Sequence[str], count: int) -> None:
        fixed = self._fixed(group)

        def of_step() -> dict[str, list[float]]:
            count = self.counts[names[0]]
            return {"-decayed_lr": [-own["lr"] / (1 + count * own["lr_decay"]) for own in self._of_group(group)]}

        columns = self._columns(of_step, fixed)
        for name in names:
            parameter, total = self.parameters[name], self.slots[name]["sum"]
            column = columns.at(parameter.ndim)
            gradient, room = self._gradient(name, column, fixed), self._rooms(name)[1]
            root = torch.sqrt(total.addcmul_(gradient, gradient), out=room).add_(column["eps"])
            parameter.addcmul_(torch.div(gradient, root, out=room), column["-decayed_lr"])
