"""A decoder-only transformer for sequences of tokens, as GPT-2.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019: layer normalization before each
branch and after the last block, learned positions, GELU, and residual projections whose initial scale falls with depth.

GPT-2's initial standard deviation of 0.02 is meant for its width of 768. Here it grows as 1 / √width for narrower
models (0.07 at width 64), so that activations and logits start at the same size at any width; with 0.02 throughout, the
default model trains markedly worse.
"""

from __future__ import annotations

from torch import Tensor

from optexp import nn
from optexp.errors import BadInput

GPT2_STD, GPT2_WIDTH = 0.02, 768


class Attention(nn.Module):
    """Causal multi-head self-attention: [B, T, width] to the same shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(nn.causal_self_attention(self.qkv(x), self.heads))


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, at each position: [B, T, width] to the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.project = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.gelu(self.expand(x)))


class Block(nn.Module):
    """Attention and feed-forward, each a branch beside the residual stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.dropout1 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout1(self.attention(self.norm1(x)))
        return x + self.dropout2(self.feed_forward(self.norm2(x)))


class Transformer(nn.Module):
    """A language model: tokens [B, T] (int64, T at most `context_length`) to next-token logits [B, T, num_outputs].

    `num_outputs` is the size of the vocabulary. `dropout` acts on the embedding and on both branches of each block;
    attention weights are not dropped. `tied` uses the token embedding as the output projection too. Raises BadInput
    when the width is not a multiple of the number of heads and for values out of range.
    """

    reads = ("tokens",)

    def __init__(
        self,
        num_outputs: int,
        context_length: int,
        layers: int = 2,
        width: int = 64,
        heads: int = 4,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        for key, value in (("layers", layers), ("width", width), ("heads", heads)):
            if value < 1:
                raise BadInput(f"model.{key}={value}: must be at least 1")
        if width % heads:
            raise BadInput(f"model.width={width}: must be a multiple of model.heads={heads}")
        if not 0 <= dropout < 1:
            raise BadInput(f"model.dropout={dropout}: must lie in [0, 1)")
        self.embedding = nn.Embedding(num_outputs, width)
        self.positions = nn.LearnedPositions(context_length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = None if tied else nn.Linear(width, num_outputs, bias=False)
        self._initialize(layers, std=GPT2_STD * (GPT2_WIDTH / width) ** 0.5)

    def _initialize(self, layers: int, std: float) -> None:
        nn.normal_(self.positions.weight, std=std)
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.normal_(module.weight, std=std)
            elif isinstance(module, nn.Linear):
                # The outputs of 2 · layers branches add up in the residual stream.
                nn.normal_(module.weight, std=std / (2 * layers) ** 0.5 if name.endswith("project") else std)
                if module.bias is not None:
                    nn.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(self.positions(self.embedding(tokens)))
        x = self.norm(self.blocks(x))
        return self.embedding.unembed(x) if self.head is None else self.head(x)
