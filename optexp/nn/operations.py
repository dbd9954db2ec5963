"""Operations that must know which axes of a tensor are what."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GlobalAvgPool2d(nn.Module):
    """Mean over all positions of an image: [B, C, H, W] to [B, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1))


class Embedding(nn.Embedding):
    """torch.nn.Embedding that can also serve as the output projection of a language model ("tied" weights).

    Source: Press & Wolf, "Using the Output Embedding to Improve Language Models", EACL 2017.
    """

    def unembed(self, x: Tensor) -> Tensor:
        """Return the score of every entry: [B, T, width] to [B, T, num_embeddings]."""
        return F.linear(x, self.weight)


class LearnedPositions(nn.Module):
    """Add a learned vector for each position: [B, T, width] to the same shape, T at most `context_length`."""

    def __init__(self, context_length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(context_length, width))
        nn.init.normal_(self.weight)  # as torch.nn.Embedding

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[-2]]


def causal_self_attention(qkv: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention in which no position sees a later one.

    `qkv` [..., T, 3 · width] holds queries, keys and values side by side, each split into `heads` heads of equal size;
    the result is [..., T, width]. Any number of leading axes.
    """
    *leading, length, triple = qkv.shape
    q, k, v = qkv.reshape(-1, length, 3, heads, triple // (3 * heads)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(1, 2).reshape(*leading, length, triple // 3)
