"""What is minimized: a loss normalized by the true number of predictions, and the number of correct ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from optexp.datasets.base import Objective as Kind

IGNORED = -100
"""Targets with this value are not predictions: padding. They count neither in the loss nor in its normalization."""


class Objective:
    """Cross-entropy over classes or tokens (nats), or the mean squared error of a regression."""

    def __init__(self, kind: Kind, label_smoothing: float = 0.0) -> None:
        self.kind = kind
        self.label_smoothing = label_smoothing
        self.has_accuracy = kind != "regression"

    def count(self, targets: Tensor) -> Tensor | int:
        """Return how many predictions a batch asks for: samples, tokens that are not padding, or numbers."""
        if self.kind == "regression":
            return targets.numel()
        return (targets != IGNORED).sum()

    def loss(self, outputs: Tensor, targets: Tensor, count: Tensor | int | None = None) -> Tensor:
        """Return the loss of a batch; or of a part of it, when `count` is that of the whole batch.

        The losses of the parts then add up to the loss of the whole, however uneven the parts are.
        """
        reduction = "mean" if count is None else "sum"
        if self.kind == "regression":
            loss = F.mse_loss(outputs, targets, reduction=reduction)
        else:
            loss = F.cross_entropy(
                outputs.flatten(0, -2),
                targets.flatten(),
                ignore_index=IGNORED,
                reduction=reduction,
                label_smoothing=self.label_smoothing,
            )
        return loss if count is None else loss / count

    @torch.no_grad()
    def accuracy(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number of correct predictions and the number of predictions asked for."""
        return (outputs.argmax(-1) == targets).sum(), (targets != IGNORED).sum()

    @torch.no_grad()
    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss summed over a batch, without label smoothing."""
        if self.kind == "regression":
            return F.mse_loss(outputs.float(), targets, reduction="sum")
        logits = outputs.flatten(0, -2).float()
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
