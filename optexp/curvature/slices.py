"""The loss along lines and over planes through weight space: around a checkpoint, or from one checkpoint to another.

Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018; for the way between two checkpoints,
Goodfellow et al., "Qualitatively Characterizing Neural Network Optimization Problems", ICLR 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from optexp.curvature.loss import MeanLoss

Place = Callable[[float, float], None]
"""Puts the model at the coordinates (x, y) of a plane; the checkpoint itself is at (0, 0)."""


def around(loss: MeanLoss, x_direction: Tensor, y_direction: Tensor | None = None) -> Place:
    """Return the plane through the present weights along directions [P]; buffers stay what they are."""
    origin = loss.weights()

    def place(x: float, y: float) -> None:
        weights = origin + x * x_direction
        loss.move(weights if y_direction is None or y == 0 else weights + y * y_direction)

    return place


def between(loss: MeanLoss, other: Mapping[str, Tensor], y_direction: Tensor | None = None) -> Place:
    """Return the plane from the present state of the model (x = 0) to the state `other` of the same model (x = 1).

    All floating-point tensors are interpolated, running statistics included, so that both ends are the two networks
    exactly; others (counters) stay.
    """
    model = loss.model
    first = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    second = {name: other[name].to(tensor) for name, tensor in first.items()}

    def place(x: float, y: float) -> None:
        state = {
            name: torch.lerp(tensor, second[name], x) if tensor.is_floating_point() else tensor
            for name, tensor in first.items()
        }
        model.load_state_dict(state)
        if y_direction is not None and y != 0:
            loss.move(loss.weights() + y * y_direction)

    return place


def line(losses: Sequence[MeanLoss], place: Place, positions: Sequence[float]) -> list[list[float]]:
    """Return for each of the losses (of one model) its values at x = `positions`, y = 0."""
    found: list[list[float]] = [[] for _ in losses]
    try:
        for x in positions:
            place(x, 0.0)
            for values, loss in zip(found, losses, strict=True):
                values.append(loss.value())
    finally:
        place(0.0, 0.0)
    return found


def plane(loss: MeanLoss, place: Place, xs: Sequence[float], ys: Sequence[float]) -> list[list[float]]:
    """Return the loss over the grid: one list for each y, in it one value for each x."""
    found = []
    try:
        for y in ys:
            row = []
            for x in xs:
                place(x, y)
                row.append(loss.value())
            found.append(row)
    finally:
        place(0.0, 0.0)
    return found


def barrier(positions: Sequence[float], values: Sequence[float]) -> float:
    """Return how far the loss between x = 0 and x = 1 rises above the straight line between its ends, at most; ≥ 0.

    Source: Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML 2020.
    """
    inside = [(x, value) for x, value in zip(positions, values, strict=True) if 0 <= x <= 1]
    (_, first), (_, last) = inside[0], inside[-1]
    return max(value - (first + x * (last - first)) for x, value in inside)


def spread(low: float, high: float, points: int) -> list[float]:
    """Return evenly spaced numbers from `low` to `high`; 0 and 1 are hit exactly where they are among them."""
    step = (high - low) / (points - 1)
    numbers = [low + index * step for index in range(points)]
    return [float(round(number)) if abs(number - round(number)) < 1e-9 * abs(step) else number for number in numbers]
