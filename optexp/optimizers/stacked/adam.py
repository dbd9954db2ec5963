"""Adam and AdamW for R members at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optexp.optimizers.fused_kernels import FUSED_KERNELS
from optexp.optimizers.stacked.base import Settings, StackedOptimizer


class Adam(StackedOptimizer):
    """torch.optim.Adam (Kingma & Ba, 2015), after t gradients d (with `weight_decay * w` added):

    `m = b1 m + (1 - b1) d;  v = b2 v + (1 - b2) d²;  w = w - lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)`

    With `amsgrad`, the same in all members, the largest v so far stands in the root. Members with
    `decoupled_weight_decay` shrink their weights by the fraction `lr * weight_decay` first, and their d is the pure
    gradient: AdamW (Loshchilov & Hutter, 2019).
    """

    arguments = frozenset({"betas", "eps", "weight_decay", "amsgrad", "maximize", "decoupled_weight_decay"})
    shared = ("amsgrad",)
    kernel = FUSED_KERNELS[torch.optim.Adam]

    def _slot_names(self, settings: Settings) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if settings["amsgrad"] else ("exp_avg", "exp_avg_sq")

    def _hyperparameters(self, settings: list[Settings]) -> dict[str, list[float]]:
        return {
            "1-beta1": [1 - own["betas"][0] for own in settings],
            "beta2": [own["betas"][1] for own in settings],
            "1-beta2": [1 - own["betas"][1] for own in settings],
            "eps": [own["eps"] for own in settings],
            "weight_decay": [0.0 if own["decoupled_weight_decay"] else own["weight_decay"] for own in settings],
            "shrinking": [own["weight_decay"] if own["decoupled_weight_decay"] else 0.0 for own in settings],
        }

    def _update(self, group: int, names: Sequence[str], count: int) -> None:
        fixed, settings = self._fixed(group), self._of_group(group)

        def of_step() -> dict[str, list[float]]:
            steps = self.counts[names[0]] + 1
            return {
                "-step_size": [-own["lr"] / (1 - own["betas"][0] ** steps) for own in settings],
                "root_correction": [(1 - own["betas"][1] ** steps) ** 0.5 for own in settings],
                "kept": [
                    1 - own["lr"] * own["weight_decay"] if own["decoupled_weight_decay"] else 1.0 for own in settings
                ],
            }

        columns = self._columns(of_step, fixed)
        for name in names:
            parameter, slots = self.parameters[name], self.slots[name]
            column = columns.at(parameter.ndim)
            gradient, room = self._gradient(name, column, fixed), self._rooms(name)[1]
            if "shrinking" in fixed.nonzero:
                parameter.mul_(column["kept"])
            slots["exp_avg"].lerp_(gradient, column["1-beta1"])
            second = slots["exp_avg_sq"]
            second.mul_(column["beta2"]).addcmul_(torch.mul(gradient, column["1-beta2"], out=room), gradient)
            if "max_exp_avg_sq" in slots:
                second = torch.maximum(slots["max_exp_avg_sq"], second, out=slots["max_exp_avg_sq"])
            root = torch.sqrt(second, out=room).div_(column["root_correction"]).add_(column["eps"])
            parameter.addcmul_(torch.div(slots["exp_avg"], root, out=room), column["-step_size"])
