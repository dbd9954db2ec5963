"""Stacked layers compute what the single layers compute, each member from its own tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from stacks import MEMBERS, assert_same, computed, members, one_by_one
from torch import Tensor

from optexp import nn
from optexp.errors import Unstackable
from optexp.models.mlp import MLP
from optexp.models.resnet import ResNet
from optexp.models.transformer import Transformer
from optexp.nn.stacked import attach_stacked_state, select_members, stack, stacked_tensor

IMAGES, VECTORS = (4, 6, 7, 5), (4, 6)  # batch, channels (numbers), height, width

LAYERS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), VECTORS),
    "linear on sequences": (lambda: nn.Linear(5, 3), (4, 7, 5)),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), VECTORS),
    "convolution": (lambda: nn.Conv2d(6, 4, 3), IMAGES),
    "strided convolution": (lambda: nn.Conv2d(6, 4, (3, 1), (2, 1), padding=(1, 0), bias=False), IMAGES),
    "dilated convolution": (lambda: nn.Conv2d(6, 4, 2, padding="same", dilation=2), IMAGES),
    "grouped convolution": (lambda: nn.Conv2d(6, 9, 3, groups=3), IMAGES),
    "batch normalization": (lambda: nn.BatchNorm2d(6, eps=1e-2, momentum=0.3), IMAGES),
    "batch normalization without gain": (lambda: nn.BatchNorm2d(6, affine=False), IMAGES),
    "layer normalization": (lambda: nn.LayerNorm(5, eps=1e-2), (4, 7, 5)),
    "layer normalization of images": (lambda: nn.LayerNorm((7, 5)), IMAGES),
    "layer normalization without bias": (lambda: nn.LayerNorm(5, bias=False), (4, 7, 5)),
    "layer normalization without gain": (lambda: nn.LayerNorm(5, elementwise_affine=False), (4, 7, 5)),
    "positions": (lambda: nn.LearnedPositions(9, 5), (4, 7, 5)),
    "flatten": (nn.Flatten, IMAGES),
    "pooling": (nn.GlobalAvgPool2d, IMAGES),
    "relu": (nn.ReLU, IMAGES),
    "gelu": (nn.GELU, VECTORS),
    "silu": (torch.nn.SiLU, VECTORS),
    "tanh": (torch.nn.Tanh, VECTORS),
    "sigmoid": (torch.nn.Sigmoid, VECTORS),
    "identity": (nn.Identity, IMAGES),
    "sequence of layers": (lambda: nn.Sequential(nn.Conv2d(6, 3, 3), nn.Flatten(), nn.Linear(45, 2)), IMAGES),
}


def numbers(*shape: int) -> Tensor:
    return torch.randn(MEMBERS, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_single_layers(name: str, training: bool) -> None:
    make, shape = LAYERS[name]
    models, x = members(make), numbers(*shape)
    stacked = stack(models).train(training)
    for model in models:
        model.train(training)
    assert_same(computed(stacked, x), one_by_one(models, x))


@pytest.mark.parametrize("make", [lambda: nn.Embedding(11, 5), lambda: torch.nn.Embedding(11, 5)])
def test_an_embedding_looks_up_in_the_vocabulary_of_each_member(make: Callable[[], torch.nn.Module]) -> None:
    models, tokens = members(make), torch.randint(11, (MEMBERS, 4, 7), generator=torch.Generator().manual_seed(2))
    assert_same(computed(stack(models), tokens), one_by_one(models, tokens))


def test_an_embedding_is_an_output_projection_too() -> None:
    models, x = members(lambda: nn.Embedding(11, 5)), numbers(4, 7, 5)
    expected = torch.stack([model.unembed(row) for model, row in zip(models, x, strict=True)])  # type: ignore[operator]
    torch.testing.assert_close(stack(models).unembed(x), expected, rtol=1e-12, atol=1e-12)


def test_a_stack_has_the_names_of_the_single_model_and_copies_its_numbers() -> None:
    models = members(lambda: ResNet((3, 8, 8), 10, width=2))
    stacked = stack(models)
    singles = [model.state_dict() for model in models]
    assert list(stacked.state_dict()) == list(singles[0])
    for name, value in stacked.state_dict().items():
        assert torch.equal(value, torch.stack([single[name] for single in singles])), name
        value.zero_()
    assert all(model.state_dict()["head.weight"].abs().sum() > 0 for model in models)


def test_what_is_frozen_stays_frozen() -> None:
    models = members(lambda: MLP((6,), 3, [4]))
    for model in models:
        dict(model.named_parameters())["layers.1.weight"].requires_grad = False
    trainable = {name for name, parameter in stack(models).named_parameters() if parameter.requires_grad}
    assert trainable == {"layers.1.bias", "layers.3.weight", "layers.3.bias"}


def test_each_member_keeps_the_memory_layout_of_its_tensors() -> None:
    kernels = [torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last) for _ in range(MEMBERS)]
    stacked = stacked_tensor(kernels)
    assert torch.equal(stacked, torch.stack(kernels))
    assert all(row.is_contiguous(memory_format=torch.channels_last) for row in stacked)
    assert stacked_tensor([torch.randn(2, 3)] * 2).is_contiguous()


class Own(torch.nn.Linear):
    """A layer of somebody's own: its forward may do anything."""


class Holder(torch.nn.Module):
    """A module of somebody's own: its forward may mix the axes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)


REFUSED: dict[str, tuple[Callable[[], torch.nn.Module], str]] = {
    "subclass": (lambda: Own(2, 2), "Own is not written for it"),
    "container": (Holder, "Holder is not written for it"),
    "inside": (lambda: nn.Sequential(nn.Linear(2, 2), torch.nn.BatchNorm1d(2)), "BatchNorm1d is not written for it"),
    "dropout of torch": (lambda: torch.nn.Dropout(0.1), "Dropout is not written for it"),
    "padding": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "Conv2d with padding mode circular"),
    "cumulative mean": (lambda: nn.BatchNorm2d(2, momentum=None), "BatchNorm2d with other than default statistics"),
    "no statistics": (lambda: nn.BatchNorm2d(2, track_running_stats=False), "BatchNorm2d with other than default"),
    "padding token": (lambda: nn.Embedding(4, 2, padding_idx=0), "Embedding with padding"),
    "largest norm": (lambda: torch.nn.Embedding(4, 2, max_norm=1.0), "Embedding with padding, a norm"),
    "sparse": (lambda: nn.Embedding(4, 2, sparse=True), "or sparse or scaled gradients"),
    "axes": (lambda: nn.Flatten(2), "Flatten with other axes than all but the first"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_with_a_reason(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(Unstackable, match=reason):
        stack([make(), make()])


def test_models_of_two_kinds_and_loose_parameters_are_refused() -> None:
    with pytest.raises(Unstackable, match="Linear beside another layer"):
        stack([nn.Linear(2, 2), nn.Identity()])
    model = MLP((2,), 2)
    model.register_parameter("scale", torch.nn.Parameter(torch.ones(())))
    with pytest.raises(Unstackable, match="MLP has parameters outside of layers"):
        stack([model, model])


def test_selected_members_are_those_members_in_that_order() -> None:
    models = members(lambda: ResNet((3, 8, 8), 10, width=2).to(memory_format=torch.channels_last), 4)
    stacked, x = stack(models), torch.randn(4, 5, 3, 8, 8, dtype=torch.float64)
    computed(stacked, x)
    rows = [2, 0, 3]
    expected = {name: value[rows] for name, value in stacked.state_dict().items()}
    select_members(stacked, rows)
    assert all(parameter.grad is None for parameter in stacked.parameters())
    assert_same(stacked.state_dict(), expected, tolerance=0)
    kernel = dict(stacked.named_parameters())["stem.0.weight"][1]
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    for place, row in enumerate(rows):
        models[row].load_state_dict({name: value[place] for name, value in expected.items()})
    assert_same(computed(stacked, x[rows]), one_by_one([models[row] for row in rows], x[rows]))


SEEDS = [5, 6, 5]
PROBABILITIES = [0.1, 0.0, 0.6]


def dropping(kind: type[torch.nn.Module], p: float) -> torch.nn.Module:
    return nn.Sequential(kind(p), nn.ReLU(), kind(p))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.Dropout, nn.StochasticDepth])
def test_dropout_is_bitwise_that_of_each_single_run(kind: type[torch.nn.Module], dtype: torch.dtype) -> None:
    """Each member with its own probability and seed; members of one seed and probability would get equal masks."""
    models = [dropping(kind, p) for p in PROBABILITIES]
    stacked, x = stack(models), numbers(40, 5).to(dtype)
    together = attach_stacked_state(stacked, SEEDS, torch.device("cpu"))
    singles = [nn.attach_step_state(model) for model in models]
    for step, micro in ((0, 0), (7, 0), (7, 2)):
        together.step, together.micro = step, micro
        for single, seed in zip(singles, SEEDS, strict=True):
            single.seed, single.step, single.micro = seed, step, micro
        out = stacked(x)
        assert out.dtype == dtype
        for row, model in enumerate(models):
            assert torch.equal(out[row], model(x[row])), (step, micro, row)
        assert not torch.equal(out, x)
    assert torch.equal(stacked.eval()(x), x.relu())


def test_members_that_are_left_keep_their_dropout() -> None:
    models = [dropping(nn.Dropout, p) for p in PROBABILITIES]
    stacked, x = stack(models), numbers(40, 5)
    state = attach_stacked_state(stacked, SEEDS, torch.device("cpu"))
    before = stacked(x)
    rows = [2, 1]
    select_members(stacked, rows)
    state.seeds = [SEEDS[row] for row in rows]
    assert torch.equal(stacked(x[rows]), before[rows])
    select_members(stacked, [1, 1])
    assert torch.equal(stacked(x[[1, 1]]), x[[1, 1]].relu()), "nothing is dropped when no probability is left"


def test_probabilities_go_to_the_device_of_the_run() -> None:
    stacked = stack([nn.Dropout(0.1), nn.Dropout(0.2)])
    attach_stacked_state(stacked, [0, 1], torch.device("meta"))
    assert {name: buffer.device.type for name, buffer in stacked.named_buffers()} == {"p": "meta", "scale": "meta"}
    assert stacked.state_dict() == {}, "a checkpoint is that of a single run, which has no such tensors"


@pytest.mark.parametrize("tied", [True, False])
def test_a_member_does_not_depend_on_the_others(tied: bool) -> None:
    """The derivative of one member's outputs with respect to all inputs and weights of the others is zero."""
    models = members(lambda: Transformer(11, 5, 1, 8, 2, tied=tied))
    stacked, tokens = stack(models), torch.randint(11, (MEMBERS, 4, 5))
    stacked(tokens)[1].sin().sum().backward()
    for name, parameter in stacked.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad[[0, 2]].abs().max() == 0, name
        assert parameter.grad[1].abs().max() > 0, name
