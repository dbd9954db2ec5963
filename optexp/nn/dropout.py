"""Dropout whose masks are functions of (seed, step, layer) instead of the state of a random generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from optexp import streams
from optexp.transfers import capturing, to_device


class Draws(Protocol):
    """Where a dropout layer gets its numbers from."""

    def uniform(self, purpose: str, layer: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return this step's numbers in [0, 1) of one layer."""


@dataclass
class StepState:
    """Where training is: read by the layers that draw random numbers, updated by whoever takes the steps.

    `step` is the optimizer step (from 0), `micro` the part of its batch when gradients are accumulated (from 0).
    """

    seed: int = 0
    step: int = 0
    micro: int = 0

    def uniform(self, purpose: str, layer: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return this step's numbers in [0, 1) of one layer."""
        micro = self.micro

        def key() -> int:
            return streams.key(self.seed, purpose, layer, self.step, micro)

        if not capturing():
            return streams.uniform(key(), shape, device)
        return streams.uniform(to_device(lambda: streams.halves([key()]), device), shape)[0]


@dataclass
class StackedStepState:
    """The same for R runs at once, whose seeds differ."""

    seeds: Sequence[int]
    device: torch.device
    step: int = 0
    micro: int = 0

    def streams(self, purpose: str, layer: int) -> Tensor:
        """Return the halves of each member's key, int32 [R, 2]; see `optexp.streams.uniform`."""
        micro = self.micro

        def halves() -> Tensor:
            keys = {seed: streams.key(seed, purpose, layer, self.step, micro) for seed in set(self.seeds)}
            return streams.halves([keys[seed] for seed in self.seeds])

        return to_device(halves, self.device)

    def uniform(self, purpose: str, layer: int, shape: tuple[int, ...]) -> Tensor:
        """Return this step's numbers in [0, 1) of one layer, [R, *shape]: for each member those of its single run."""
        return streams.uniform(self.streams(purpose, layer), shape)


class _Drop(nn.Module):
    """What both layers share: zero what is not kept and scale the rest, in training only."""

    purpose: str

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p={p}: must lie in [0, 1)")
        self.p = p
        self.state: Draws | None = None
        self.layer_index = 0

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of the mask, which is broadcast to that of `x`."""
        raise NotImplementedError

    def kept(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return which entries to keep: by the state when there is one, else by torch's own generator."""
        if self.state is None:
            return torch.rand(shape, device=device) >= self.p
        return self.state.uniform(self.purpose, self.layer_index, shape, device) >= self.p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return torch.where(self.kept(self.mask_shape(x), x.device), x * (1 / (1 - self.p)), 0.0)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Drop):
    """In training, set each element to zero with probability `p` and scale the others by 1 / (1 - p).

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """

    purpose = "dropout"

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)


class StochasticDepth(_Drop):
    """In training, set whole samples (the first axis) to zero with probability `p` and scale the others by 1 / (1 - p).

    Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016 (torchvision's mode "row").
    """

    purpose = "stochastic_depth"

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[0],) + (1,) * (x.ndim - 1)


def attach_step_state(model: nn.Module) -> StepState:
    """Number the dropout layers of `model` in module order and give them one shared state, which is returned.

    Until the caller sets its fields for every step (and micro-batch), the masks are those of seed 0, step 0.
    """
    state = StepState()
    layers = (module for module in model.modules() if isinstance(module, _Drop))
    for index, layer in enumerate(layers):
        layer.layer_index = index
        layer.state = state
    return state


def draw_outside_compilation(model: nn.Module) -> None:
    """Keep the draws of dropout masks out of a model that is about to be compiled.

    The key of a mask is a hash of the step, which torch.compile would take for a constant and compile anew each time.
    """
    for layer in model.modules():
        if isinstance(layer, _Drop):
            layer.kept = torch.compiler.disable(layer.kept)  # type: ignore[method-assign]
