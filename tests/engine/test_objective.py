"""Losses are normalized by the true number of predictions, however a batch is cut into parts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from optexp.engine.objective import IGNORED, Objective, StackedObjective


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


SMOOTHING = {"none": [0.0, 0.0, 0.0], "some": [0.1, 0.0, 0.7], "all": [0.2, 0.2, 0.2]}


def of_three(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [3, 6, 10, 7] and targets; each member has padding in other places."""
    logits, targets = padded_tokens()
    return torch.stack([logits, logits.flip(0) * 2, logits.roll(1, 0) - 1]).to(dtype), torch.stack(
        [targets, targets.flip(0), targets.roll(3, 0)]
    )


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_stacked_losses_and_gradients_are_those_of_each_member(smoothing: str, dtype: torch.dtype) -> None:
    """With bfloat16 outputs too, as autocast makes them: there the members' losses are computed in single precision."""
    logits, targets = of_three(dtype)
    logits.requires_grad = True
    together = StackedObjective("language", SMOOTHING[smoothing])
    with torch.autocast("cpu", enabled=dtype == torch.bfloat16):
        count = together.count(targets)
        losses = together.losses(logits, targets, count)
        losses.sum().backward()
        assert logits.grad is not None
        tolerance = 1e-12 if dtype == torch.float64 else 1e-6
        for row, own in enumerate(SMOOTHING[smoothing]):
            objective, single = Objective("language", own), logits[row].detach().requires_grad_()
            assert int(count[row]) == int(objective.count(targets[row]))
            loss = objective.loss(single, targets[row])
            loss.backward()
            torch.testing.assert_close(losses[row], loss, rtol=tolerance, atol=0)
            rounding = 1e-12 if dtype == torch.float64 else 2**-8
            torch.testing.assert_close(logits.grad[row], single.grad, rtol=rounding, atol=1e-12)
            torch.testing.assert_close(
                together.totals(logits, targets)[row], objective.total(single, targets[row]), rtol=tolerance, atol=0
            )
            for found, wanted in zip(
                together.accuracy(logits, targets), objective.accuracy(single, targets[row]), strict=True
            ):
                assert int(found[row]) == int(wanted)


def test_stacked_losses_of_classes_and_of_parts() -> None:
    torch.manual_seed(1)
    logits, targets = torch.randn(3, 9, 4, dtype=torch.float64), torch.randint(4, (3, 9))
    together = StackedObjective("classification", SMOOTHING["some"])
    count = together.count(targets)
    assert count.tolist() == [9, 9, 9]
    for parts in (1, 2, 4):
        pairs = zip(logits.tensor_split(parts, 1), targets.tensor_split(parts, 1), strict=True)
        losses = torch.stack([together.losses(some, wanted, count) for some, wanted in pairs]).sum(0)
        for row, own in enumerate(SMOOTHING["some"]):
            expected = F.cross_entropy(logits[row], targets[row], label_smoothing=own)
            torch.testing.assert_close(losses[row], expected, rtol=1e-12, atol=0)


def test_stacked_regression() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(3, 5, 2, dtype=torch.float64), torch.randn(3, 5, 2, dtype=torch.float64)
    together = StackedObjective("regression", [0.0] * 3)
    count = together.count(targets)
    assert count.tolist() == [10, 10, 10]
    assert not together.has_accuracy
    expected = torch.stack([F.mse_loss(one, wanted) for one, wanted in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(together.losses(outputs, targets, count), expected)
    torch.testing.assert_close(together.totals(outputs, targets), expected * 10)


def test_selected_members_keep_their_smoothing() -> None:
    logits, targets = of_three(torch.float64)
    together = StackedObjective("language", [0.1, 0.2, 0.3])
    losses = together.losses(logits, targets, together.count(targets))
    together.select([2, 0])
    rows = [2, 0]
    kept = together.losses(logits[rows], targets[rows], together.count(targets[rows]))
    assert torch.equal(kept, losses[rows])
