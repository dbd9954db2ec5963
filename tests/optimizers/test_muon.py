"""Muon beside AdamW, against torch's own two optimizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from optexp.errors import BadInput
from optexp.optimizers.build import build_optimizer
from optexp.optimizers.groups import hidden_matrices
from optexp.optimizers.muon import Muon
from optexp.optimizers.notes import optimizer_notes

ARGUMENTS: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.2, "adamw_lr_ratio": 0.5}


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3))


def train(net: nn.Module, step: Any, shape: tuple[int, ...] = (8, 6)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        net.zero_grad()
        net(torch.randn(shape, generator=generator)).square().mean().backward()
        step()
    return [parameter.detach() for parameter in net.parameters()]


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_it_is_torchs_muon_and_torchs_adamw(adjust: str) -> None:
    ours, theirs = model(), model()
    optimizer = build_optimizer(Muon, {**ARGUMENTS, "adjust_lr_fn": adjust}, ours, decay_norm_and_bias=False)
    matrices = [theirs[0].weight, theirs[2].weight]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.2, adjust_lr_fn=adjust)
    exempt = [theirs[0].bias, theirs[1].weight, theirs[1].bias, theirs[4].bias]
    groups = [{"params": [theirs[4].weight]}, {"params": exempt, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.005, weight_decay=0.2, betas=(0.9, 0.95))
    expected = train(theirs, lambda: (muon.step(), adamw.step()))
    for found, value in zip(train(ours, optimizer.step), expected, strict=True):
        assert torch.equal(found, value)
    assert optimizer_notes(optimizer)[-1] == "Muon on 2 hidden matrices, AdamW on 5 other tensors"


def test_kernels_are_matrices_in_either_layout() -> None:
    """The columns of a channels_last kernel stand in another order: the iteration, in bfloat16, rounds differently."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    flat = nn.Parameter(plain[2].weight.detach().flatten(1).clone())
    results = []
    for net in (plain, last):
        optimizer = build_optimizer(Muon, ARGUMENTS, net, decay_norm_and_bias=False)
        assert [group["use_muon"] for group in optimizer.param_groups] == [True, False, False]
        generator = torch.Generator().manual_seed(0)
        net(torch.randn(8, 2, 6, 6, generator=generator)).square().mean().backward()
        if net is plain:
            flat.grad = net[2].weight.grad.flatten(1).clone()
        optimizer.step()
        results.append(net[2].weight.detach().clone())
    torch.optim.Muon([flat], lr=0.01, weight_decay=0.2, adjust_lr_fn="match_rms_adamw").step()
    assert torch.equal(results[0].flatten(1), flat.detach())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=3e-4)


def test_hidden_matrices_are_neither_embeddings_nor_the_output_layer() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(11, 4)
            self.attention = nn.MultiheadAttention(4, 2)
            self.mlp = nn.Linear(4, 4)
            self.head = nn.Linear(4, 11, bias=False)

    net = Tied()
    names = {parameter: name for name, parameter in net.named_parameters()}
    hidden = {"attention.in_proj_weight", "attention.out_proj.weight", "mlp.weight"}
    assert {names[parameter] for parameter in hidden_matrices(net, 11)} == hidden
    net.head.weight = net.tokens.weight
    assert {names[parameter] for parameter in hidden_matrices(net, 11)} == hidden
    net.mlp.weight.requires_grad_(False)
    assert {names[parameter] for parameter in hidden_matrices(net, 11)} == hidden - {"mlp.weight"}


def test_without_a_model_matrices_are_known_by_their_axes() -> None:
    net = model()
    optimizer = Muon(net.parameters())
    assert [(group["use_muon"], len(group["params"])) for group in optimizer.param_groups] == [(True, 3), (False, 4)]


def test_a_model_without_hidden_matrices_is_refused() -> None:
    with pytest.raises(BadInput, match="optimizer: Muon is a rule for hidden weight matrices, and this model has none"):
        build_optimizer(Muon, ARGUMENTS, nn.Linear(3, 2), True)


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"lr": -1.0}, {"adamw_betas": (0.9, 1.0)}, {"ns_steps": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Muon(model().parameters(), **wrong)
