"""Stop a training before a non-finite loss or gradient reaches its weights.

Where the optimizer's update takes a `found_inf` flag (torch's fused ones) and the device runs asynchronously, the
check stays on the device: the flag, once raised, masks this and all later updates, and the host learns of it when it
next reads the metrics. Otherwise the host looks before each update: free on a CPU, one synchronization elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from optexp.instruments.norms import Scalar


@dataclass(frozen=True)
class Divergence:
    """The first step whose loss or gradient was not finite; `step` counts from 1 and was not applied."""

    step: int
    quantity: str
    value: float

    def __str__(self) -> str:
        return f"{self.quantity} is {self.value} at step {self.step}; the update was not applied"


def first_nonfinite(first_step: int, losses: list[float], norms: list[float]) -> Divergence | None:
    """Find the first non-finite loss or gradient norm among consecutive steps."""
    for offset, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        if not math.isfinite(loss):
            return Divergence(first_step + offset, "train/loss", loss)
        if not math.isfinite(norm):
            return Divergence(first_step + offset, "gradient norm", norm)
    return None


class Guard:
    """Decides before each update whether it may be applied."""

    def __init__(self, optimizer: Optimizer, device: torch.device, on_device: bool | None = None) -> None:
        fused = all(group.get("fused") for group in optimizer.param_groups)
        self.on_device = (fused and device.type == "cuda") if on_device is None else on_device
        self.optimizer = optimizer
        if self.on_device:
            self.raised = torch.zeros((), device=device)
            optimizer.found_inf = self.raised  # type: ignore[attr-defined]
            optimizer.grad_scale = None  # type: ignore[attr-defined]

    def allows(self, loss: Scalar, norm: Scalar) -> bool:
        """Return False when the host knows that the update must not be applied.

        On the device the answer is always True: the raised flag makes the optimizer's kernel skip the update.
        """
        total = loss + norm
        if not isinstance(total, Tensor):
            return math.isfinite(total)
        finite = torch.isfinite(total)
        if self.on_device:
            torch.maximum(self.raised, (~finite).to(self.raised.dtype), out=self.raised)
            return True
        return bool(finite)
