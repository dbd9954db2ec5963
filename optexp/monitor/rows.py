"""From what was measured to the rows of a run, and back from rows to what they tell of settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from optexp.diagnosis.history import ScheduleFacts
from optexp.instruments.norms import Scalar
from optexp.monitor.watch import Observation
from optexp.records.reading import GROUP_SETTINGS
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
    noted = _noted_lr(group)
    if noted is not None:
        return noted
    return max((row["optim/lr"] for row in rows if "optim/lr" in row), default=float(group["lr"]))


def _noted_lr(group: Mapping[str, Any]) -> float | None:
    noted = group.get("max_lr", group.get("initial_lr"))
    return None if noted is None else float(noted)


def group_facts(rows: Sequence[Mapping[str, float]], groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return size and weight decay of every parameter group, and its own settings of the step where groups differ.

    `rows` have the learning rate of the first group; one that no scheduler has noted is taken to have changed with it.
    """
    own = {
        name: [float(group[name]) for group in groups]
        for name in GROUP_SETTINGS
        if all(_is_number(group.get(name)) for group in groups)
    }
    differing = [name for name, values in own.items() if not _alike(values)]
    base, last = base_lr(rows, groups[0]), own["lr"]
    scale = base / last[0] if last[0] > 0 else 1.0
    own["lr"] = [
        last_lr * scale if (lr := _noted_lr(group)) is None else lr for group, last_lr in zip(groups, last, strict=True)
    ]
    if "lr" not in differing and not _alike(own["lr"]):
        differing.append("lr")
    return [
        {
            "tensors": len(group["params"]),
            "numbers": sum(parameter.numel() for parameter in group["params"]),
            "weight_decay": float(group["weight_decay"]) if _is_number(group.get("weight_decay")) else None,
            **{name: own[name][index] for name in differing},
        }
        for index, group in enumerate(groups)
    ]


def _is_number(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, int | float)


def _alike(values: Sequence[float]) -> bool:
    return all(math.isclose(value, values[0], rel_tol=1e-9) for value in values)


def warmup(rows: Sequence[Mapping[str, float]]) -> ScheduleFacts | None:
    """Return how long the learning rate was raised in the beginning; None where it began near its highest value."""
    rates = [(int(row["step"]), row["optim/lr"]) for row in rows if "optim/lr" in row]
    if not rates:
        return None
    top = max(rate for _, rate in rates)
    steps = next(step for step, rate in rates if rate >= 0.99 * top)
    rising = [rate for step, rate in rates if step <= steps]
    return ScheduleFacts("", steps) if rising[0] < 0.5 * top and rising == sorted(rising) else None
