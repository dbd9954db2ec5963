"""What is minimized: a loss normalized by the true number of predictions, and the number of correct ones."""

from __future__ import annotations

from collections.abc import Sequence

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
            return F.mse_loss(_exact(outputs), targets, reduction="sum")
        logits = _exact(outputs).flatten(0, -2)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")


class StackedObjective:
    """The same for R members at once: outputs [R, B, ...], targets [R, B, ...], and results [R]."""

    def __init__(self, kind: Kind, label_smoothing: Sequence[float]) -> None:
        self.kind = kind
        self.label_smoothing = list(label_smoothing)
        self._smoothing = torch.empty(0)  # the same where the outputs are
        self.has_accuracy = kind != "regression"

    def select(self, members: Sequence[int]) -> None:
        """Keep these members, in this order."""
        self.label_smoothing = [self.label_smoothing[member] for member in members]
        self._smoothing = torch.empty(0)

    def count(self, targets: Tensor) -> Tensor:
        """Return how many predictions each member's batch asks for."""
        if self.kind == "regression":
            return torch.full((len(targets),), targets[0].numel(), device=targets.device)
        return (targets != IGNORED).flatten(1).sum(1)

    def losses(self, outputs: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        """Return each member's loss: the sum over its predictions divided by its `count`."""
        if self.kind == "regression":
            return F.mse_loss(outputs, targets, reduction="none").flatten(1).sum(1) / count
        if not any(self.label_smoothing):
            return _cross_entropy(outputs, targets) / count
        logp, members = F.log_softmax(_exact(outputs), -1), len(targets)
        likelihood = F.nll_loss(logp.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none")
        uniform = torch.where(targets == IGNORED, 0.0, -logp.mean(-1))
        if self._smoothing.numel() == 0:
            self._smoothing = logp.new_tensor(self.label_smoothing)
        smoothing = self._smoothing
        sharp, smooth = likelihood.view(members, -1).sum(1), uniform.flatten(1).sum(1)
        return ((1 - smoothing) * sharp + smoothing * smooth) / count

    @torch.no_grad()
    def accuracy(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number of correct predictions and the number of predictions asked for."""
        return (outputs.argmax(-1) == targets).flatten(1).sum(1), self.count(targets)

    @torch.no_grad()
    def totals(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return each member's loss summed over its batch, without label smoothing."""
        if self.kind == "regression":
            return F.mse_loss(_exact(outputs), targets, reduction="none").flatten(1).sum(1)
        return _cross_entropy(_exact(outputs), targets)


def _exact(outputs: Tensor) -> Tensor:
    """Return half-precision outputs in single precision, and others as they are."""
    return outputs.float() if outputs.itemsize < 4 else outputs


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of each member's cross-entropies."""
    losses = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view(len(targets), -1).sum(1)
