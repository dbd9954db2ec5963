"""The loops that people write by hand: no framework, no records, torch and twenty lines.

They do what optexp does by default, and only that: the same model and initial weights, weight decay on weight matrices
and kernels only, a cosine schedule, clipping where asked for. `Loop` keeps the whole training set on the device,
normalized, and is as fast as plain torch gets; `LoaderLoop` takes its batches from torch's DataLoader, as most do.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Problem:
    """What is to be trained: initial model, data on the device, and the settings of the update.

    images: `inputs` float32 [N, C, H, W], `targets` int64 [N]. tokens: both int64 [N, T], where row i is the window
    that begins at token i (overlapping views of one stream); an epoch visits every `stride`-th of them.
    """

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    val_inputs: Tensor
    val_targets: Tensor
    optimizer: Callable[..., Optimizer]
    arguments: dict[str, Any]  # of the optimizer; where it has `fused` or `foreach`, torch's default
    batch_size: int
    clip_norm: float | None
    total_steps: int  # length of the cosine schedule
    stride: int = 1


def windows(stream: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return all windows of a stream of tokens [T] and the same windows one token later: views [T - length, length]."""
    return stream[:-1].unfold(0, length, 1), stream[1:].unfold(0, length, 1)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss over samples ([B, K] and [B]) or tokens ([B, T, K] and [B, T])."""
    if targets.ndim == 1:
        return F.cross_entropy(outputs, targets)
    return F.cross_entropy(outputs.view(-1, outputs.shape[-1]), targets.reshape(-1))


def fresh(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters own their memory, in torch's usual layout."""
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.data = parameter.detach().clone(memory_format=torch.contiguous_format)
        parameter.grad = None
    return copied


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the usual two groups: weight decay acts on matrices and kernels, and not on biases and normalization."""
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]


def cosine(step: int, total_steps: int) -> float:
    """Return the factor of the learning rate at a step (from 0)."""
    return 0.5 * (1 + math.cos(math.pi * step / total_steps))


def data_loader(problem: Problem, rows: Iterable[Tensor] | None = None) -> DataLoader[Any]:
    """Return torch's loader over the training set in memory, in random order or with the given rows as batches."""
    inputs, targets, stride = problem.inputs.cpu(), problem.targets.cpu(), problem.stride
    if rows is not None:
        return DataLoader(TensorDataset(inputs, targets), batch_sampler=[ids.tolist() for ids in rows])
    data = TensorDataset(inputs[::stride], targets[::stride])
    return DataLoader(data, batch_size=problem.batch_size, shuffle=True, drop_last=True)


class Loop:
    """A bare loop. `read_loss` calls .item() at every step; `tuned` adds fused updates and channels_last."""

    def __init__(self, problem: Problem, *, read_loss: bool = False, tuned: bool = False) -> None:
        self.problem = problem
        self.read_loss = read_loss
        self.model = fresh(problem.model)
        self.inputs, self.targets = problem.inputs, problem.targets
        if problem.inputs.ndim == 4:
            layout = torch.channels_last if tuned else torch.contiguous_format
            self.model.to(memory_format=layout)  # type: ignore[call-overload]
            self.inputs = problem.inputs.contiguous(memory_format=layout)
        groups = parameter_groups(self.model)
        self.optimizer = problem.optimizer(groups, **problem.arguments, **({"fused": True} if tuned else {}))

    def shuffled(self) -> Iterator[Tensor]:
        """Yield the rows of each batch, epoch after epoch, without the short batch at the end."""
        stride, size, device = self.problem.stride, self.problem.batch_size, self.inputs.device
        count = len(self.inputs) // stride
        while True:
            order = torch.randperm(count, device=device) * stride + torch.randint(stride, (), device=device)
            for start in range(0, count - size + 1, size):
                yield order[start : start + size]

    def batches(self, rows: Iterable[Tensor] | None = None) -> Batches:
        """Yield inputs and targets of the given rows, or epoch after epoch in random order."""
        for ids in self.shuffled() if rows is None else rows:
            yield self.inputs.index_select(0, ids), self.targets.index_select(0, ids)

    def train(self, batches: Batches, start: int, stop: int) -> list[Any]:
        """Take steps [start, stop) and return their losses: numbers when they are read at once, else tensors."""
        problem, model, optimizer = self.problem, self.model, self.optimizer
        base_lr = problem.arguments["lr"]
        parameters = list(model.parameters())
        losses: list[Any] = []
        model.train()
        for step, (inputs, targets) in zip(range(start, stop), batches, strict=False):
            lr = base_lr * cosine(step, problem.total_steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss = cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            if problem.clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, problem.clip_norm)
            optimizer.step()
            losses.append(loss.item() if self.read_loss else loss.detach())
        return losses

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Return loss and accuracy on the validation split."""
        self.model.eval()
        outputs, targets = self.model(self.problem.val_inputs), self.problem.val_targets
        return cross_entropy(outputs, targets).item(), (outputs.argmax(-1) == targets).float().mean().item()

    def train_and_save(self, folder: Path) -> None:
        """Train to the end, evaluating after every epoch and saving the last and the best state with torch.save."""
        problem, batches, best = self.problem, self.batches(), math.inf
        per_epoch = len(self.inputs) / problem.stride / problem.batch_size
        done = 0
        for epoch in itertools.count(1):
            end = min(math.ceil(epoch * per_epoch), problem.total_steps)
            self.train(batches, done, end)
            done = end
            loss, _ = self.evaluate()
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": done}
            torch.save(state, folder / "last.pt")
            if loss < best:
                best = loss
                torch.save(state, folder / "best.pt")
            if done == problem.total_steps:
                return


class LoaderLoop(Loop):
    """The same with batches from torch's DataLoader (shuffle=True, num_workers=0)."""

    def batches(self, rows: Iterable[Tensor] | None = None) -> Batches:
        device, loader = self.inputs.device, data_loader(self.problem, rows)
        while True:
            for inputs, targets in loader:
                yield inputs.to(device), targets.to(device)
