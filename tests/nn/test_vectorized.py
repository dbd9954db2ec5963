"""Vectorizing a whole model and stacking its layers are two ways to the same numbers, and those of single models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stacks import MEMBERS, assert_same, computed, members, one_by_one
from torch import Tensor
from torch.nn import functional as F

from optexp import nn
from optexp.errors import Unstackable
from optexp.models.linear import Linear
from optexp.models.mlp import MLP
from optexp.models.resnet import ResNet
from optexp.models.torchvision import TorchvisionClassifier
from optexp.models.transformer import Transformer
from optexp.nn.stacked import attach_stacked_state, select_members, stack
from optexp.nn.vectorized import Vectorized

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # of attention under vmap

Make = Callable[[], torch.nn.Module]

SHIPPED: dict[str, list[Make]] = {
    "linear": [lambda: Linear((3, 8, 8), 10)],
    "mlp": [lambda: MLP((3, 8, 8), 10, [9, 7]), lambda: MLP((3, 8, 8), 10, [])],
    "resnet": [
        lambda: ResNet((3, 8, 8), 10, 8, 2),
        lambda: ResNet((3, 8, 8), 10, 14, 3, zero_init=False).to(memory_format=torch.channels_last),
        lambda: ResNet((3, 8, 8), 10, 18, 2),
    ],
    "transformer": [lambda: Transformer(11, 7, 2, 8, 2, 0.3), lambda: Transformer(11, 7, 1, 12, 3, tied=False)],
    "gpt2_small": [lambda: Transformer(11, 7, 3, 24, 12)],
}
MODELS = [
    pytest.param(make, id=f"{name}{index}") for name, kinds in SHIPPED.items() for index, make in enumerate(kinds)
]


def test_every_shipped_model_is_compared_here() -> None:
    folder = Path(__file__).parents[2] / "conf" / "model"
    assert {path.stem for path in folder.glob("*.yaml")} == SHIPPED.keys() | {"torchvision"}


def batch(model: torch.nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    if isinstance(model, Transformer):
        return torch.randint(11, (MEMBERS, 4, 7), generator=generator)
    return torch.randn(MEMBERS, 4, 3, 8, 8, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("make", MODELS)
def test_outputs_gradients_and_buffers_are_those_of_stacked_layers_and_of_single_models(
    make: Make, training: bool
) -> None:
    models = members(make)
    x, seeds = batch(models[0]), [3, 8, 3]
    found = []
    for whole in (Vectorized(models), stack(models)):
        whole.train(training)
        attach_stacked_state(whole, seeds, torch.device("cpu")).step = 6
        found.append(computed(whole, x))
    assert_same(found[0], found[1])
    for model, seed in zip(models, seeds, strict=True):
        state = nn.attach_step_state(model.train(training))
        state.seed, state.step = seed, 6
    assert_same(found[0], one_by_one(models, x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "mobilenet_v3_small"])
def test_classifiers_of_torchvision_are_vectorized(name: str) -> None:
    models = members(lambda: TorchvisionClassifier((3, 64, 64), 10, name), 2)
    with pytest.raises(Unstackable):
        stack(models)
    x = torch.randn(2, 3, 3, 64, 64, dtype=torch.float64)
    whole = Vectorized(models)
    attach_stacked_state(whole, [1, 2], torch.device("cpu"))
    for model, seed in zip(models, (1, 2), strict=True):
        nn.attach_step_state(model).seed = seed
    assert_same(computed(whole, x), one_by_one(models, x), tolerance=1e-9)


class Foreign(torch.nn.Module):
    """What a user may write: layers without a stack, axes spelled out, one parameter in two layers, one in none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding_mode="reflect", padding=1)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.first = torch.nn.Linear(4, 4)
        self.second = torch.nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.batch_norm = torch.nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.25)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        x = x.mean((2, 3)).view(x.size(0), -1)
        return self.batch_norm(self.second(self.drop(self.first(x)))) * self.scale


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_model_that_stacks_do_not_know(training: bool) -> None:
    models = [model.train(training) for model in members(Foreign)]
    x = batch(models[0])
    whole = Vectorized(models).train(training)
    assert list(whole.state_dict()) == list(models[0].state_dict())
    attach_stacked_state(whole, [1, 2, 3], torch.device("cpu"))
    for model, seed in zip(models, (1, 2, 3), strict=True):
        nn.attach_step_state(model).seed = seed
    assert_same(computed(whole, x), one_by_one(models, x))
    buffers = dict(whole.named_buffers())
    assert buffers["batch_norm.num_batches_tracked"].tolist() == [int(training)] * MEMBERS


def test_members_are_selected_with_the_parameters_that_layers_share() -> None:
    models = members(Foreign, 4)
    whole, x = Vectorized(models), torch.randn(4, 5, 3, 8, 8, dtype=torch.float64)
    rows = [1, 3, 2]
    select_members(whole, rows)
    assert whole.first.weight is whole.second.weight
    attach_stacked_state(whole, [6, 7, 8], torch.device("cpu"))
    for model, seed in zip((models[row] for row in rows), (6, 7, 8), strict=True):
        nn.attach_step_state(model).seed = seed
    assert_same(computed(whole, x[rows]), one_by_one([models[row] for row in rows], x[rows]))


def test_the_single_models_are_left_alone() -> None:
    models = members(Foreign)
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    whole = Vectorized(models)
    attach_stacked_state(whole, [1, 2, 3], torch.device("cpu"))
    computed(whole, batch(models[0]))
    for parameter in whole.parameters():
        parameter.data.zero_()
    for model, state in zip(models, before, strict=True):
        assert_same(model.state_dict(), state, tolerance=0)


def test_probabilities_of_dropout_must_be_the_same() -> None:
    with pytest.raises(Unstackable, match="its dropout differs between members"):
        Vectorized([nn.Sequential(nn.Dropout(p), nn.Linear(2, 2)) for p in (0.1, 0.2)])


class Drawing(torch.nn.Module):
    """Draws from torch's global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.linear(x))


class Deciding(torch.nn.Module):
    """Decides by a number of its input what to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if x.sum() > 0 else x


@pytest.mark.parametrize(("kind", "reason"), [(Drawing, "random"), (Deciding, "data-dependent")])
def test_what_cannot_be_done_for_many_at_once_is_an_error_and_no_other_result(
    kind: type[torch.nn.Module], reason: str
) -> None:
    whole = Vectorized([kind(), kind()])
    with pytest.raises(RuntimeError, match=reason):
        whole(torch.randn(2, 4, 3))
