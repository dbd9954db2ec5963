"""How large a step is: the effective learning rate, and the measured size of an update relative to the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer, RMSprop

from optexp.instruments.norms import Scalar, global_norm


def effective_lr(optimizer: Optimizer, lr: float) -> float:
    """Return `lr · (1 − dampening) / (1 − momentum)`: the step per unit of a constant gradient, in the long run.

    That is the fixed point of torch's `buf = momentum · buf + (1 − dampening) · d`. torch ignores dampening where
    momentum is 0, and its first step is not dampened. Optimizers whose averages are normalized, as Adam's are, have no
    such amplification: the answer is then `lr` itself.
    """
    group = optimizer.param_groups[0]
    momentum = group.get("momentum", 0.0)
    if not isinstance(optimizer, SGD | RMSprop) or momentum == 0:
        return lr
    return lr * (1 - group.get("dampening", 0.0)) / (1 - momentum)


class UpdateRatio:
    """Measures ‖w_after − w_before‖ / ‖w_before‖ over all parameters for single steps, without synchronization."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = [parameter.detach() for parameter in parameters]
        self._before: list[Tensor] = []

    def before_step(self) -> None:
        self._before = [parameter.clone() for parameter in self._parameters]

    def after_step(self, on_host: bool = False) -> tuple[Scalar, Scalar]:
        """Return (update ratio, weight norm before the step), on the device or as floats; see `global_norm`."""
        weight_norm = global_norm(self._before, on_host)
        torch._foreach_sub_(self._before, self._parameters)
        update_norm = global_norm(self._before, on_host)
        self._before = []
        if isinstance(weight_norm, float) and weight_norm == 0:
            return math.inf, weight_norm
        return update_norm / weight_norm, weight_norm
