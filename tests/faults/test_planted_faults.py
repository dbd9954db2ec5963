"""The planted models, data sets and the schedule: each has its fault, measured with torch, and nothing else."""

from __future__ import annotations

import planted_faults
import pytest
import torch
from torch import nn

from optexp.datasets.digits import digits
from optexp.datasets.language import pydocs
from optexp.models.mlp import MLP

SHAPE = (1, 8, 8)


def gradients(model: nn.Module, inputs: torch.Tensor) -> dict[str, float]:
    """Return the norm of each parameter's gradient of a loss, in forward order."""
    outputs = model(inputs)
    targets = torch.arange(outputs[..., 0].numel()) % outputs.shape[-1]
    nn.functional.cross_entropy(outputs.flatten(0, -2), targets).backward()
    named = model.named_parameters()
    return {name: float(value.grad.norm()) for name, value in named if value.grad is not None and value.ndim > 1}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def images() -> torch.Tensor:
    return digits().train.inputs[:64]


def test_without_a_fault_the_planted_mlp_is_optexps() -> None:
    planted = planted_faults.mlp(SHAPE, 10, [16, 16])
    torch.manual_seed(0)
    for ours, theirs in zip(planted.parameters(), MLP(SHAPE, 10, [16, 16]).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_frozen_parameters_are_those_whose_name_does_not_match() -> None:
    model = planted_faults.mlp(SHAPE, 10, [16, 16], trainable="bias")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"layers.1.bias", "layers.3.bias", "layers.5.bias"}


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_dead_units_of_the_mlp_never_get_a_gradient(fraction: float) -> None:
    model = planted_faults.mlp(SHAPE, 10, [16, 16], dead=fraction)
    gradients(model, images())
    for index in (1, 3):
        weight = model.get_parameter(f"layers.{index}.weight")
        assert weight.grad is not None
        dead = int(16 * fraction)
        assert torch.equal(weight.grad[:dead], torch.zeros_like(weight.grad[:dead]))


def test_dead_units_of_the_resnet_and_of_the_transformer() -> None:
    model = planted_faults.resnet(SHAPE, 10, dead=1.0)
    outputs = model(images())
    assert torch.equal(outputs, outputs[:1].expand_as(outputs)), "nothing of an image arrives at the head"
    tokens = pydocs(32).train.inputs[: 4 * 32].view(4, 32)
    found = gradients(planted_faults.transformer(103, 32, dead=1.0), tokens)
    assert found["blocks.0.feed_forward.expand.weight"] == 0
    assert found["blocks.0.attention.qkv.weight"] > 0


def profile(model: nn.Module, inputs: torch.Tensor) -> float:
    """Return the gradient of the first layer that is not the embedding, over that of the last one."""
    found = [norm for name, norm in gradients(model, inputs).items() if not name.startswith(("0.", "1."))]
    return found[0] / found[-1]


def largest(model: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        return float(model(inputs).abs().max())


def test_gradients_vanish_and_explode_towards_the_input() -> None:
    flat = images()
    assert profile(planted_faults.mlp(SHAPE, 10, [64] * 6, activation="Sigmoid"), flat) < 1e-4
    assert profile(planted_faults.mlp(SHAPE, 10, [64] * 6, gain=0.3), flat) < 1e-3
    # The gain of the first layers stands in all gradients; what grows without measure are the signals themselves.
    assert largest(planted_faults.mlp(SHAPE, 10, [64] * 6, gain=8), flat) > 1e3
    assert profile(planted_faults.plain_convolutions(SHAPE, 10, depth=12, gain=0.4), flat) < 1e-2
    assert largest(planted_faults.plain_convolutions(SHAPE, 10, depth=12, gain=3), flat) > 1e3
    tokens = pydocs(32).train.inputs[: 4 * 32].view(4, 32)
    assert profile(planted_faults.plain_transformer(103, 32, gain=0.3), tokens) < 1e-3
    assert largest(planted_faults.plain_transformer(103, 32, gain=3), tokens) > 1e3


def test_shuffled_labels_keep_their_numbers_and_lose_their_meaning() -> None:
    true, planted = digits(), planted_faults.digits(shuffled=True)
    assert true.train.targets is not None
    assert planted.train.targets is not None
    assert torch.equal(true.train.targets.bincount(), planted.train.targets.bincount())
    agreement = float((true.train.targets == planted.train.targets).float().mean())
    assert agreement == pytest.approx(0.1, abs=0.05)
    assert torch.equal(true.train.inputs, planted.train.inputs)


def test_inputs_of_another_scale() -> None:
    planted = planted_faults.digits(scale=1e3, offset=2.0)
    torch.testing.assert_close(planted.val.inputs, (digits().val.inputs + 2) * 1e3)
    assert planted.details["sizes"] == digits().details["sizes"]
    assert planted.details["fingerprints"] != digits().details["fingerprints"]


def test_few_samples_with_wrong_labels() -> None:
    planted = planted_faults.digits(num_train=200, wrong=0.5)
    assert planted.details["sizes"] == {"train": 200, "val": 270, "test": 270}
    true = digits().train.targets
    assert true is not None
    wrong = float((planted.train.targets != true[:200]).float().mean())
    assert wrong == pytest.approx(0.45, abs=0.1)  # a tenth of those drawn anew are right by chance


def test_shuffled_characters_cannot_be_predicted_from_the_one_before() -> None:
    true, planted = pydocs(32), planted_faults.pydocs(32, shuffled=True, num_train=200_000)
    assert torch.equal(true.val.inputs.bincount(), planted.val.inputs.bincount())
    assert len(planted.train.inputs) == 200_000
    frequencies = (true.train.inputs.bincount(minlength=true.num_outputs) + 1).double()
    entropy = -float((frequencies / frequencies.sum()).log()[true.val.inputs].mean())
    assert true.baselines["bigram cross-entropy"] < entropy - 0.5
    assert planted.baselines["bigram cross-entropy"] == pytest.approx(entropy, abs=0.1)


def test_warm_up_of_a_longer_run() -> None:
    bound = planted_faults.Unfinished(warmup_steps=1000).bind(total_steps=100, steps_per_epoch=10.0)
    assert [bound.lr(step, 1.0) for step in (0, 99)] == pytest.approx([0.001, 0.1])
