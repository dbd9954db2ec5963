"""Losses are normalized by the true number of predictions, however a batch is cut into parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from optexp.engine.objective import IGNORED, Objective


def padded_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Six sequences of very different true lengths."""
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 10, 7, dtype=torch.float64), torch.randint(7, (6, 10))
    for row, length in enumerate([10, 1, 3, 10, 2, 7]):
        targets[row, length:] = IGNORED
    return logits, targets


def test_parts_of_uneven_token_counts_add_up_to_the_whole() -> None:
    logits, targets = padded_tokens()
    objective = Objective("language")
    whole = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    count = objective.count(targets)
    assert int(count) == 33
    for parts in (1, 2, 3, 4, 6):
        losses = [
            objective.loss(some, wanted, count)
            for some, wanted in zip(logits.tensor_split(parts), targets.tensor_split(parts), strict=True)
        ]
        torch.testing.assert_close(torch.stack(losses).sum(), whole)
    torch.testing.assert_close(objective.loss(logits, targets), whole)
    mean_of_means = torch.stack(
        [objective.loss(s, w) for s, w in zip(logits.tensor_split(3), targets.tensor_split(3), strict=True)]
    ).mean()
    assert abs(mean_of_means - whole) > 0.01  # the mistake that this normalization avoids


def test_regression_is_the_mean_squared_error_over_all_numbers() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(5, 3), torch.randn(5, 3)
    objective = Objective("regression")
    assert objective.count(targets) == 15
    torch.testing.assert_close(objective.loss(outputs, targets), ((outputs - targets) ** 2).mean())
    torch.testing.assert_close(objective.total(outputs, targets) / 15, ((outputs - targets) ** 2).mean())
    assert not objective.has_accuracy


def test_label_smoothing_acts_on_the_training_loss_only() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(8, 4), torch.randint(4, (8,))
    objective = Objective("classification", label_smoothing=0.1)
    log_probabilities = logits.log_softmax(1)
    smoothed = 0.9 * -log_probabilities[range(8), targets] + 0.1 * -log_probabilities.mean(1)
    torch.testing.assert_close(objective.loss(logits, targets), smoothed.mean())
    torch.testing.assert_close(objective.total(logits, targets) / 8, F.cross_entropy(logits, targets))
    correct, count = objective.accuracy(logits, targets)
    assert int(count) == 8
    assert int(correct) == int((logits.argmax(1) == targets).sum())


def test_padding_counts_neither_as_right_nor_as_wrong() -> None:
    logits, targets = padded_tokens()
    correct, count = Objective("language").accuracy(logits, targets)
    assert int(count) == 33
    assert int(correct) == sum(
        int(logits[i, j].argmax() == targets[i, j]) for i in range(6) for j in range(10) if targets[i, j] != IGNORED
    )
