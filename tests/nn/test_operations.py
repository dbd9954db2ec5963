"""The operations of optexp.nn against their definitions in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optexp import nn


def attention_by_definition(qkv: Tensor, heads: int) -> Tensor:
    """Softmax attention with explicit loops over samples, heads and positions: [B, T, 3 · width] to [B, T, width]."""
    batch, length, triple = qkv.shape
    width = triple // 3
    size = width // heads
    out = torch.zeros(batch, length, width, dtype=qkv.dtype)
    for b in range(batch):
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            q, k, v = (qkv[b, :, part * width : (part + 1) * width][:, columns] for part in range(3))
            for t in range(length):
                weights = torch.softmax(k[: t + 1] @ q[t] / math.sqrt(size), dim=0)
                out[b, t, columns] = weights @ v[: t + 1]
    return out


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_follows_its_definition(heads: int) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(3, 7, 24, dtype=torch.float64)
    torch.testing.assert_close(nn.causal_self_attention(qkv, heads), attention_by_definition(qkv, heads))


def test_attention_takes_any_number_of_leading_axes() -> None:
    torch.manual_seed(0)
    qkv = torch.randn(2, 3, 5, 12, dtype=torch.float64)
    together = nn.causal_self_attention(qkv, 2)
    torch.testing.assert_close(together, torch.stack([nn.causal_self_attention(member, 2) for member in qkv]))
    torch.testing.assert_close(nn.causal_self_attention(qkv[0, 0], 2), together[0, 0])


def test_global_average_pool() -> None:
    x = torch.arange(24.0).view(1, 2, 3, 4)
    assert nn.GlobalAvgPool2d()(x).tolist() == [[5.5, 17.5]]


def test_unembed_is_the_transpose_of_the_embedding() -> None:
    embedding = nn.Embedding(11, 4)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(embedding.unembed(x), x @ embedding.weight.T)


def test_positions_are_added_from_the_first_on() -> None:
    positions = nn.LearnedPositions(6, 4)
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(positions(x) - x, positions.weight[:5].expand(2, 5, 4))
    assert torch.equal(positions(torch.zeros(1, 2, 4))[0], positions.weight[:2])
