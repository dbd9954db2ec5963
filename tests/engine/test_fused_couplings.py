"""The comparison of fused with single runs can fail: each coupling planted between members is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fusing import alone, assert_same_runs, together
from torch import Tensor
from torch.nn import functional as F

from optexp.datasets.batches import Batch, Clock, TrainBatches
from optexp.engine import fused
from optexp.engine.fused import FusedRuns
from optexp.engine.objective import StackedObjective
from optexp.nn.dropout import StackedStepState
from optexp.nn.stacked import StackedBatchNorm2d, StackedConv2d
from optexp.optimizers.stacked import StackedOptimizer

LENGTH = ("engine.max_steps=8", "engine.log_every=2", "engine.eval_every=4")
MLP = (*LENGTH, "model=mlp", "model.hidden=[9]", "dataset.batch_size=8", "optimizer=sgd")
RESNET = (*LENGTH, "model=resnet", "model.width=2", "dataset.batch_size=8", "optimizer=sgd")
TRANSFORMER = (
    *(*LENGTH, "model=transformer", "model.layers=1", "model.width=8", "model.heads=2", "optimizer=sgd"),
    *("dataset=text", "dataset.path={book}", "dataset.context_length=7", "dataset.batch_size=4"),
)
MEMBERS = [
    ("seed=1", "engine.clip_norm=0.3", "engine.label_smoothing=0.1", "optimizer.lr=0.01"),
    ("seed=2", "engine.clip_norm=0.2", "engine.label_smoothing=0.2", "optimizer.lr=0.03", "optimizer.momentum=0.5"),
    ("seed=3", "engine.clip_norm=0.3", "engine.label_smoothing=0.4", "optimizer.weight_decay=0.1"),
]
DROPPING = [(*words, f"model.dropout={p}") for words, p in zip(MEMBERS, (0.1, 0.1, 0.3), strict=True)]


def clip_all_by_one_norm(patch: pytest.MonkeyPatch) -> None:
    clip = FusedRuns._clip

    def coupled(program: FusedRuns, gradients: list[Tensor], norms: Tensor) -> None:
        clip(program, gradients, norms.norm().expand_as(norms))

    patch.setattr(FusedRuns, "_clip", coupled)


def clip_all_to_one_limit(patch: pytest.MonkeyPatch) -> None:
    clip = FusedRuns._clip

    def coupled(program: FusedRuns, gradients: list[Tensor], norms: Tensor) -> None:
        limits = program.limits
        program.limits = None if limits is None else limits[:1]
        clip(program, gradients, norms)
        program.limits = limits

    patch.setattr(FusedRuns, "_clip", coupled)


def share_dropout_masks(patch: pytest.MonkeyPatch) -> None:
    draw = StackedStepState.streams

    def coupled(state: StackedStepState, purpose: str, layer: int) -> Tensor:
        return draw(StackedStepState(state.seeds[:1] * len(state.seeds), state.device, state.step), purpose, layer)

    patch.setattr(StackedStepState, "streams", coupled)


def share_the_masks_of_all_steps(patch: pytest.MonkeyPatch) -> None:
    draw = StackedStepState.streams
    patch.setattr(
        StackedStepState, "streams", lambda state, *which: draw(StackedStepState(state.seeds, state.device), *which)
    )


def normalize_over_members(patch: pytest.MonkeyPatch) -> None:
    def coupled(layer: StackedBatchNorm2d, x: Tensor) -> Tensor:
        mean, weight, bias = layer.running_mean, layer.weight, layer.bias
        assert weight is not None
        assert bias is not None
        out = F.batch_norm(x.flatten(0, 1), mean[0], layer.running_var[0], training=layer.training)
        return out.view(x.shape) * weight[:, None, :, None, None] + bias[:, None, :, None, None]

    patch.setattr(StackedBatchNorm2d, "forward", coupled)


def count_no_batches(patch: pytest.MonkeyPatch) -> None:
    forward = StackedBatchNorm2d.forward

    def forgetful(layer: StackedBatchNorm2d, x: Tensor) -> Tensor:
        out = forward(layer, x)
        layer.num_batches_tracked.zero_()
        return out

    patch.setattr(StackedBatchNorm2d, "forward", forgetful)


def leak_channels(patch: pytest.MonkeyPatch) -> None:
    """A millionth of the next member's output joins each convolution's."""
    forward = StackedConv2d.forward

    def coupled(layer: StackedConv2d, x: Tensor) -> Tensor:
        out = forward(layer, x)
        return out + 1e-6 * out.roll(1, 0)

    patch.setattr(StackedConv2d, "forward", coupled)


def smooth_as_the_first(patch: pytest.MonkeyPatch) -> None:
    losses = StackedObjective.losses

    def coupled(objective: StackedObjective, outputs: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        first = StackedObjective(objective.kind, objective.label_smoothing[:1] * len(objective.label_smoothing))
        return losses(first, outputs, targets, count)

    patch.setattr(StackedObjective, "losses", coupled)


def average_over_members(patch: pytest.MonkeyPatch) -> None:
    """The gradients are those of the mean loss of all members; what is recorded stays right."""
    losses = StackedObjective.losses

    def coupled(objective: StackedObjective, outputs: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        own = losses(objective, outputs, targets, count)
        return own.detach() + (own - own.detach()) / len(own)

    patch.setattr(StackedObjective, "losses", coupled)


def take_the_batches_of_the_first(patch: pytest.MonkeyPatch) -> None:
    take = TrainBatches.stacked

    def coupled(members: Sequence[TrainBatches], clock: Clock) -> Batch:
        return take([members[0]] * len(members), clock)

    patch.setattr(TrainBatches, "stacked", staticmethod(coupled))


def change_arguments(patch: pytest.MonkeyPatch, key: str) -> None:
    """Train all members with one argument of the first member's optimizer."""
    build = StackedOptimizer.__init__

    def coupled(rule: Any, parameters: Any, groups: Any, settings: Any) -> None:
        build(
            rule,
            parameters,
            groups,
            [[{**g, key: f[key]} for g, f in zip(own, settings[0], strict=True)] for own in settings],
        )

    patch.setattr(StackedOptimizer, "__init__", coupled)


def train_at_one_rate(patch: pytest.MonkeyPatch) -> None:
    step = FusedRuns.step
    patch.setattr(FusedRuns, "step", lambda program, at, rates, look: step(program, at, [rates[0]] * len(rates), look))


def measure_all_together(patch: pytest.MonkeyPatch) -> None:
    norms = fused.member_norms
    patch.setattr(fused, "member_norms", lambda tensors: norms(tensors).norm().expand(len(tensors[0])))


def evaluate_the_first(patch: pytest.MonkeyPatch) -> None:
    evaluate = FusedRuns.evaluate
    patch.setattr(FusedRuns, "evaluate", lambda program, batches: evaluate(program, batches)[:1] * program.members)


PLANTED: dict[Callable[..., None], tuple[Sequence[str], Sequence[Sequence[str]]]] = {
    clip_all_by_one_norm: (MLP, MEMBERS),
    clip_all_to_one_limit: (MLP, MEMBERS),
    share_dropout_masks: (TRANSFORMER, DROPPING),
    share_the_masks_of_all_steps: (TRANSFORMER, DROPPING),
    normalize_over_members: (RESNET, MEMBERS),
    count_no_batches: (RESNET, MEMBERS),
    leak_channels: (RESNET, MEMBERS),
    smooth_as_the_first: (MLP, MEMBERS),
    average_over_members: (MLP, MEMBERS),
    take_the_batches_of_the_first: (MLP, MEMBERS),
    train_at_one_rate: (MLP, MEMBERS),
    measure_all_together: (MLP, MEMBERS),
    evaluate_the_first: (MLP, MEMBERS),
}


def compare(words: Sequence[str], variants: Sequence[Sequence[str]], book: Path, plant: Callable[[], None]) -> None:
    common = [*(word.format(book=book) for word in words), "engine.precision=fp64"]
    singles = alone(common, variants)
    plant()
    assert_same_runs(together(common, variants), singles, rows=1e-9, weights=1e-9)


@pytest.mark.parametrize(
    ("words", "variants"),
    [(MLP, MEMBERS), (RESNET, MEMBERS), (TRANSFORMER, DROPPING)],
    ids=["mlp", "resnet", "transformer"],
)
def test_without_a_coupling_the_comparison_holds(
    words: Sequence[str], variants: Sequence[Sequence[str]], book: Path
) -> None:
    compare(words, variants, book, lambda: None)


@pytest.mark.parametrize("coupling", PLANTED, ids=lambda coupling: coupling.__name__)
def test_a_planted_coupling_is_found(
    coupling: Callable[..., None], book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=r"member [012]"):
        compare(*PLANTED[coupling], book, lambda: coupling(monkeypatch))


@pytest.mark.parametrize("key", ["momentum", "weight_decay"])
def test_an_argument_of_the_first_member_for_all_is_found(
    key: str, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=r"member [12]"):
        compare(MLP, MEMBERS, book, lambda: change_arguments(monkeypatch, key))


def leak_what_is_not_finite(patch: pytest.MonkeyPatch) -> None:
    """Nothing is added to any member's gradient, as long as all are finite."""
    clip = FusedRuns._clip

    def coupled(program: FusedRuns, gradients: list[Tensor], norms: Tensor) -> None:
        clip(program, gradients, norms + 0 * norms.sum())

    patch.setattr(FusedRuns, "_clip", coupled)


def drop_the_wrong_member(patch: pytest.MonkeyPatch) -> None:
    keep = FusedRuns.keep
    patch.setattr(FusedRuns, "keep", lambda program, members: keep(program, range(len(members))))


def round_by_the_number_of_members(patch: pytest.MonkeyPatch) -> None:
    losses = StackedObjective.losses

    def coupled(objective: StackedObjective, outputs: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        return losses(objective, outputs, targets, count) * (1 + torch.finfo(outputs.dtype).eps * len(outputs))

    patch.setattr(StackedObjective, "losses", coupled)


@pytest.mark.parametrize(
    "coupling", [None, leak_what_is_not_finite, drop_the_wrong_member, round_by_the_number_of_members]
)
def test_a_divergence_that_others_notice_is_found(
    coupling: Callable[..., None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison of tests/engine/test_fused_members.py: bitwise, in single precision."""
    calm = together(MLP, MEMBERS)
    if coupling is not None:
        coupling(monkeypatch)
    found = together(MLP, [MEMBERS[0], (*MEMBERS[1], "optimizer.lr=1e25", "schedule=constant"), MEMBERS[2]])
    others = [found[0], found[2]], [calm[0], calm[2]]
    if coupling is None:
        assert found[1].ending.status == "diverged"
        assert_same_runs(*others, 0, 0)
    else:
        with pytest.raises(AssertionError, match=r"member [01]"):
            assert_same_runs(*others, 0, 0)
