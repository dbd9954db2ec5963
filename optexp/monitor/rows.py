"""From what was measured to the rows of a run, and back from rows to what they tell of settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from optexp.diagnosis.history import ScheduleFacts
from optexp.instruments.norms import Scalar
from optexp.monitor.watch import Observation
from optexp.transfers import ToHost

Row = dict[str, float]

CLIPPED = 0.9999
"""A coefficient below this is no rounding."""


class Measurement:
    """The row of an observed step, maybe on its way to the host."""

    def __init__(
        self, observed: Observation, step: int, losses: Sequence[Scalar], seconds: float, left_out: Tensor | None = None
    ) -> None:
        """`step` is that of the observation and of the last of `losses`: all since the row before, as numbers or as
        tensors of several. `left_out` is how many steps so far were none.
        """
        count = sum(loss.numel() if isinstance(loss, Tensor) else 1 for loss in losses)
        self.first = step - count + 1  # the step of the first loss
        self._observed = observed
        self._step = step
        self._seconds = seconds
        self._losses = losses
        self._tensors = {**observed.tensors} if left_out is None else {**observed.tensors, "left_out": left_out.view(1)}
        moving = [*self._tensors.values(), *(loss for loss in losses if isinstance(loss, Tensor))]
        on_host = all(tensor.is_cpu for tensor in moving)
        self._arriving = None if on_host else ToHost(moving)

    def arrived(self) -> bool:
        """Return whether `read` would not wait for the device."""
        return self._arriving is None or self._arriving.arrived()

    def read(self) -> tuple[Row, list[float]]:
        """Return the row and the losses; waits for the device where they are still on their way."""
        tensors, losses = self._tensors, self._losses
        if self._arriving is not None:
            arrived = iter(self._arriving.tensors())
            tensors = {name: next(arrived) for name in tensors}
            losses = [next(arrived) if isinstance(loss, Tensor) else loss for loss in losses]
        each: list[float] = []
        for loss in losses:
            each += loss.tolist() if isinstance(loss, Tensor) else [loss]
        numbers: dict[str, Any] = {name: value[0].tolist() for name, value in tensors.items()}
        row: Row = {
            "step": self._step - round(numbers.pop("left_out", 0.0)),
            "time": self._seconds,
            "train/loss": sum(each) / len(each),
        }
        if "norms" in numbers:
            coefficient = numbers.get("coefficient", 1.0)
            norm = math.hypot(*numbers["norms"][: self._observed.parameters])
            row["optim/grad_norm"] = norm / coefficient if coefficient > 0 else norm
            if "coefficient" in numbers:
                row["optim/clipped"] = float(coefficient < CLIPPED)
        return row | self._observed.fixed | self._observed.reading(numbers, 0), each


def clip_norm(rows: Sequence[Mapping[str, float]]) -> float | None:
    """Return the norm to which gradients were clipped, to four digits; None where there is no such norm.

    Whatever was clipped must have come out with the same norm: clipping by value, say, does something else.
    """
    clipped = [row["optim/grad_norm"] * row["optim/clip_coefficient"] for row in rows if row.get("optim/clipped")]
    norms = sorted(norm for norm in clipped if norm > 0 and math.isfinite(norm))
    if not norms or norms[-1] > 1.001 * norms[0]:
        return None
    return float(f"{norms[-1]:.4g}")


def base_lr(rows: Sequence[Mapping[str, float]], group: Mapping[str, Any]) -> float:
    """Return the learning rate before schedule and warm-up.

    That is what a scheduler of torch has noted in the parameter group, else the highest that was seen.
    """
    noted = group.get("max_lr", group.get("initial_lr"))
    if noted is not None:
        return float(noted)
    return max((row["optim/lr"] for row in rows if "optim/lr" in row), default=float(group["lr"]))


def warmup(rows: Sequence[Mapping[str, float]]) -> ScheduleFacts | None:
    """Return how long the learning rate was raised in the beginning; None where it began near its highest value."""
    rates = [(int(row["step"]), row["optim/lr"]) for row in rows if "optim/lr" in row]
    if not rates:
        return None
    top = max(rate for _, rate in rates)
    steps = next(step for step, rate in rates if rate >= 0.99 * top)
    rising = [rate for step, rate in rates if step <= steps]
    return ScheduleFacts("", steps) if rising[0] < 0.5 * top and rising == sorted(rising) else None
