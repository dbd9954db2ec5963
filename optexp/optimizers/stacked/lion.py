"""Lion for R members at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from optexp.optimizers.stacked.base import Settings, StackedOptimizer


class Lion(StackedOptimizer):
    """pytorch_optimizer.Lion (Chen et al., 2023):

    `w = (1 - lr * weight_decay) * w;  w = w - lr * sign(b1 m + (1 - b1) d);  m = b2 m + (1 - b2) d`

    Members with `fixed_decay` shrink by the fraction `weight_decay` alone; without `weight_decouple` the penalty
    `weight_decay * w` is part of the gradient d instead. Gradient centralization, AdaNorm and cautious updates are not
    known here. The original keeps `maximize` outside its param_groups; here it is a setting, false where absent.
    """

    arguments = frozenset({"betas", "weight_decay", "weight_decouple", "fixed_decay", "maximize", "step"})
    counts_steps = False

    def _slot_names(self, settings: Settings) -> tuple[str, ...]:
        return ("exp_avg",)

    def _hyperparameters(self, settings: list[Settings]) -> dict[str, list[float]]:
        return {
            "1-beta1": [1 - own["betas"][0] for own in settings],
            "1-beta2": [1 - own["betas"][1] for own in settings],
            "weight_decay": [0.0 if own["weight_decouple"] else own["weight_decay"] for own in settings],
            "shrinking": [own["weight_decay"] if own["weight_decouple"] else 0.0 for own in settings],
        }

    def advance(self) -> None:
        """Count the step that was made, as the original does: in the groups and not in the state."""
        super().advance()
        for member in self.settings:
            for settings in member:
                settings["step"] = settings.get("step", 0) + 1

    def _update(self, group: int, names: Sequence[str], count: int) -> None:
        fixed, settings = self._fixed(group), self._of_group(group)
        columns = self._columns(
            lambda: {"-lr": [-own["lr"] for own in settings], "kept": [1 - _shrinkage(own) for own in settings]}, fixed
        )
        for name in names:
            parameter, momentum = self.parameters[name], self.slots[name]["exp_avg"]
            column = columns.at(parameter.ndim)
            gradient, room = self._gradient(name, column, fixed), self._rooms(name)[1]
            if "shrinking" in fixed.nonzero:
                parameter.mul_(column["kept"])
            direction = torch.lerp(momentum, gradient, column["1-beta1"], out=room).sign_()
            momentum.lerp_(gradient, column["1-beta2"])
            parameter.addcmul_(direction, column["-lr"])

    def member_state(self, member: int) -> dict[str, Any]:
        """Return the state as the original has it: without `maximize`, which is no part of its param_groups."""
        state = super().member_state(member)
        for settings in state["groups"]:
            settings.pop("maximize", None)
        return state


def _shrinkage(settings: Settings) -> float:
    """Return the fraction of the weights that decoupled weight decay takes away at this step."""
    if not settings["weight_decouple"]:
        return 0.0
    return float(settings["weight_decay"] * (1.0 if settings["fixed_decay"] else settings["lr"]))
