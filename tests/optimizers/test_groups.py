"""Which parameters weight decay acts on."""

from __future__ import annotations

import torch
from torch import nn

from optexp.models.resnet import ResNet
from optexp.models.transformer import Transformer
from optexp.optimizers.groups import decayed_names, parameter_groups


def test_resnet_decays_kernels_and_the_last_matrix_only() -> None:
    model = ResNet((1, 8, 8), 10)
    by_shape = {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}
    assert decayed_names(model) == by_shape
    assert len(by_shape) == 10


def test_transformer_exempts_biases_and_layer_norms() -> None:
    names = decayed_names(Transformer(50, 16))
    assert names
    assert not any("norm" in name or name.endswith("bias") for name in names)


def test_a_matrix_in_a_normalization_layer_is_exempt() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm((4, 3)))
    assert decayed_names(model) == {"0.weight"}


def test_groups_partition_the_trainable_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    decayed, exempt = parameter_groups(model, decay_norm_and_bias=False, takes_weight_decay=True)
    assert [parameter.shape for parameter in decayed["params"]] == [torch.Size([4, 3])]
    assert exempt["weight_decay"] == 0.0
    assert len(exempt["params"]) == 4
    assert "weight_decay" not in decayed


def test_one_group_when_all_decay_or_none_can() -> None:
    model = nn.Linear(3, 4)
    assert len(parameter_groups(model, decay_norm_and_bias=True, takes_weight_decay=True)) == 1
    assert len(parameter_groups(model, decay_norm_and_bias=False, takes_weight_decay=False)) == 1
    bare = nn.ParameterList([torch.zeros(2, 2)])
    assert len(parameter_groups(bare, decay_norm_and_bias=False, takes_weight_decay=True)) == 1
