"""Training loops as people write them, for the tests of Monitor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

Batches = list[tuple[Tensor, Tensor]]
EXP2 = {"lr": 1e-4, "momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-2}


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)


def batches(count: int, dtype: torch.dtype = torch.float32) -> Batches:
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(16, 6, generator=generator).to(dtype) for _ in range(count)]
    return [(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()) for x in inputs]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def sgd(model: nn.Module, **settings: Any) -> Optimizer:
    return SGD(model.parameters(), **{**EXP2, "lr": 0.01, **settings})


def train(
    model: Callable[[Tensor], Tensor],
    optimizer: Optimizer,
    data: Iterable[tuple[Tensor, Tensor]],
    told: Callable[[Tensor], None] = lambda loss: None,
    clip: float | None = None,
    parameters: Iterable[Tensor] = (),
) -> None:
    """Train as usual; `told` is called with the loss behind each step."""
    parameters = list(parameters)
    for inputs, targets in data:
        loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        told(loss)


def hooks(model: nn.Module, optimizer: Optimizer) -> int:
    """Return how many hooks a model and an optimizer have."""
    of_optimizer = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]  # type: ignore[attr-defined]
    of_modules = [getattr(m, name) for m in model.modules() for name in ("_forward_pre_hooks", "_forward_hooks")]
    of_parameters = [p._post_accumulate_grad_hooks or {} for p in model.parameters()]
    return sum(map(len, [*of_optimizer, *of_modules, *of_parameters]))
