"""Models and data sets with a fault built in, for the benchmark of the diagnosis: `_target_: planted_faults.mlp`.

They are optexp's own with changed initial weights, frozen parameters, or changed samples, so that everything else about
a planted run is as in a healthy one. Whatever can be planted by a setting is planted by a setting (see the lists beside
this file) and not here.
"""

from __future__ import annotations

import dataclasses
import re

import torch
from torch import nn

from optexp import streams
from optexp.datasets import digits as digits_set
from optexp.datasets import language
from optexp.datasets.base import Dataset, Split
from optexp.datasets.details import described
from optexp.datasets.language import bigram_cross_entropy
from optexp.models.mlp import MLP
from optexp.models.resnet import ResNet
from optexp.models.transformer import Attention, FeedForward, Transformer
from optexp.nn import Embedding, GlobalAvgPool2d, LearnedPositions
from optexp.schedules import BoundSchedule, Constant


def mlp(
    input_shape: tuple[int, ...],
    num_outputs: int,
    hidden: list[int],
    gain: float = 1.0,
    activation: str = "ReLU",
    dead: float = 0.0,
    trainable: str = "",
) -> nn.Module:
    """Return optexp's MLP, changed.

    `gain` multiplies all initial weights; `activation` is a class of torch.nn; the fraction `dead` of the units of each
    hidden layer gets a bias of -20; parameters whose name does not match `trainable` are frozen.
    """
    model = MLP(input_shape, num_outputs, hidden)
    for name, layer in list(model.layers.named_children()):
        if isinstance(layer, nn.ReLU):
            setattr(model.layers, name, getattr(nn, activation)())
    layers = [layer for layer in model.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer in layers[:-1]:
            layer.bias[: round(dead * len(layer.bias))] = -20.0
        for layer in layers:
            layer.weight.mul_(gain)
    return _frozen(model, trainable)


def resnet(
    input_shape: tuple[int, int, int],
    num_outputs: int,
    depth: int = 8,
    width: int = 8,
    zero_init: bool = True,
    dead: float = 0.0,
    normalized: bool = True,
    gain: float = 1.0,
    trainable: str = "",
) -> nn.Module:
    """Return optexp's ResNet, changed: the fraction `dead` of all channels gets a normalization bias of -20.

    With `normalized` false the normalization is left out, and `gain` multiplies the initial weights of convolutions.
    """
    model = ResNet(input_shape, num_outputs, depth, width, zero_init and normalized)  # type: ignore[arg-type]
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                with torch.no_grad():
                    child.bias[: round(dead * len(child.bias))] = -20.0
                if not normalized:
                    setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d):
                with torch.no_grad():
                    child.weight.mul_(gain)
    return _frozen(model, trainable)


def plain_convolutions(
    input_shape: tuple[int, int, int],
    num_outputs: int,
    depth: int = 12,
    width: int = 16,
    gain: float = 1.0,
    activation: str = "ReLU",
) -> nn.Module:
    """Return `depth` 3 × 3 convolutions one behind the other, without shortcuts and normalization.

    `gain` multiplies He's initial weights, with which signals keep their size behind ReLU.
    """
    layers: list[nn.Module] = []
    channels = input_shape[0]
    for _ in range(depth):
        convolution = nn.Conv2d(channels, width, 3, padding=1)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        with torch.no_grad():
            convolution.weight.mul_(gain)
        layers += [convolution, getattr(nn, activation)()]
        channels = width
    return nn.Sequential(*layers, GlobalAvgPool2d(), nn.Linear(width, num_outputs))


def transformer(
    num_outputs: int,
    context_length: int,
    layers: int = 2,
    width: int = 32,
    heads: int = 2,
    dropout: float = 0.0,
    tied: bool = True,
    gain: float = 1.0,
    embedding_gain: float = 1.0,
    normalized: bool = True,
    dead: float = 0.0,
    trainable: str = "",
) -> nn.Module:
    """Return optexp's Transformer, changed.

    `gain` multiplies the initial weights of the blocks, `embedding_gain` those of the (tied) embedding; with
    `normalized` false the layer normalizations are left out; the fraction `dead` of the hidden units of each
    feed-forward layer gets a bias of -20; parameters whose name does not match `trainable` are frozen.
    """
    model = Transformer(num_outputs, context_length, layers, width, heads, dropout, tied)
    with torch.no_grad():
        model.embedding.weight.mul_(embedding_gain)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear):
                module.weight.mul_(gain)
                if name.endswith("expand"):
                    module.bias[: round(dead * len(module.bias))] = -20.0
            if not normalized:
                for child_name, child in list(module.named_children()):
                    if isinstance(child, nn.LayerNorm):
                        setattr(module, child_name, nn.Identity())
    return _frozen(model, trainable)


def plain_transformer(
    num_outputs: int, context_length: int, layers: int = 4, width: int = 32, heads: int = 2, gain: float = 1.0
) -> nn.Module:
    """Return attention and feed-forward layers one behind the other, without shortcuts and normalization.

    Matrices begin with standard deviation gain / √inputs: 1 about keeps the size of a signal in a linear layer. Biases
    begin as torch's: with a small gain they keep signals alive, while gradients fade on their way back.
    """
    blocks = [layer for _ in range(layers) for layer in (Attention(width, heads), FeedForward(width))]
    model = nn.Sequential(
        Embedding(num_outputs, width), LearnedPositions(context_length, width), *blocks, nn.Linear(width, num_outputs)
    )
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=gain / module.in_features**0.5)
    return model


def _frozen(model: nn.Module, trainable: str) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(re.search(trainable, name) is not None)
    return model


for _of_images in (mlp, resnet, plain_convolutions):
    _of_images.reads = ("images",)  # type: ignore[attr-defined]
for _of_tokens in (transformer, plain_transformer):
    _of_tokens.reads = ("tokens",)  # type: ignore[attr-defined]


def digits(
    split_seed: int = 0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    scale: float = 1.0,
    offset: float = 0.0,
    shuffled: bool = False,
    num_train: int | None = None,
    wrong: float = 0.0,
) -> Dataset:
    """Return optexp's digits, changed.

    Inputs become scale · (input + offset). `shuffled` deals the labels of each split out anew, so that they say nothing
    about the images; `num_train` keeps so many training samples; the fraction `wrong` of the training labels is drawn
    at random.
    """
    dataset = digits_set.digits(split_seed, val_fraction, test_fraction)
    splits: dict[str, Split] = {}
    for part in ("train", "val", "test"):
        split: Split = getattr(dataset, part)
        assert split.targets is not None
        targets = split.targets.clone()
        generator = streams.generator(0, f"planted {part}")
        if shuffled:
            targets = targets[torch.randperm(len(targets), generator=generator)]
        if part == "train" and wrong:
            chosen = torch.randperm(len(targets), generator=generator)[: round(wrong * len(targets))]
            targets[chosen] = torch.randint(dataset.num_outputs, (len(chosen),), generator=generator)
        size = num_train if part == "train" else None
        splits[part] = Split(((split.inputs + offset) * scale)[:size].contiguous(), targets[:size].contiguous())
    return _planted(dataset, splits)


def pydocs(
    context_length: int = 32,
    split_seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    shuffled: bool = False,
    num_train: int | None = None,
) -> Dataset:
    """Return optexp's pydocs, changed.

    `shuffled` puts the characters of each split into a random order, so that none says anything about the next;
    `num_train` keeps so many training characters.
    """
    dataset = language.pydocs(context_length, split_seed, val_fraction, test_fraction)
    splits: dict[str, Split] = {}
    for part in ("train", "val", "test"):
        tokens = getattr(dataset, part).inputs
        if shuffled:
            tokens = tokens[torch.randperm(len(tokens), generator=streams.generator(0, f"planted {part}"))]
        splits[part] = Split(tokens[: num_train if part == "train" else None].contiguous())
    known = bigram_cross_entropy(splits["train"].inputs, splits["val"].inputs, dataset.num_outputs)
    return dataclasses.replace(_planted(dataset, splits), baselines={"bigram cross-entropy": known})


def _planted(dataset: Dataset, splits: dict[str, Split]) -> Dataset:
    """Return the data set with other splits, described as every data set is."""
    kept = {key: value for key, value in dataset.details.items() if key not in ("source", "sizes", "fingerprints")}
    details = described(str(dataset.details["source"]), splits["train"], splits["val"], splits["test"], **kept)
    return dataclasses.replace(dataset, details=details, **splits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unfinished(Constant):
    """A constant rate behind a warm-up that may be longer than the run, as if planned for many more steps."""

    def bind(self, total_steps: int, steps_per_epoch: float) -> BoundSchedule:
        return super().bind(max(total_steps, self.warmup_steps or 0), steps_per_epoch)
