"""The loop that a good engineer writes by hand: no framework, no records, torch and twenty lines.

It does what optexp does by default, and only that: the same model and initial weights, weight decay on weight matrices
and kernels only, a cosine schedule, clipping where asked for. The whole training set lies on the device, normalized.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Problem:
    """What is to be trained: initial model, data on the device, and the settings of the update."""

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


class Loop:
    """A bare loop. `read_loss` calls .item() at every step; `tuned` adds fused updates and channels_last."""

    def __init__(self, problem: Problem, *, read_loss: bool = False, tuned: bool = False) -> None:
        self.problem = problem
        self.read_loss = read_loss
        self.model = copy.deepcopy(problem.model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.inputs = problem.inputs.contiguous()
        images = problem.inputs.ndim == 4
        if tuned and images:
            self.model.to(memory_format=torch.channels_last)
            self.inputs = self.inputs.to(memory_format=torch.channels_last)
        groups = [
            {"params": [p for p in self.model.parameters() if p.ndim > 1]},
            {"params": [p for p in self.model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = problem.optimizer(groups, **problem.arguments, **({"fused": True} if tuned else {}))

    def shuffled(self) -> Iterator[Tensor]:
        """Yield the rows of each batch, epoch after epoch, without the short batch at the end."""
        count, size = len(self.inputs), self.problem.batch_size
        while True:
            order = torch.randperm(count, device=self.inputs.device)
            for start in range(0, count - size + 1, size):
                yield order[start : start + size]

    def train(self, rows: Iterator[Tensor], start: int, stop: int) -> list[Any]:
        """Take steps [start, stop) and return their losses: numbers when they are read at once, else tensors."""
        problem, model, optimizer = self.problem, self.model, self.optimizer
        inputs, targets, base_lr = self.inputs, problem.targets, problem.arguments["lr"]
        parameters = list(model.parameters())
        losses: list[Any] = []
        model.train()
        for step, ids in zip(range(start, stop), rows, strict=False):
            lr = 0.5 * base_lr * (1 + math.cos(math.pi * step / problem.total_steps))
            for group in optimizer.param_groups:
                group["lr"] = lr
            x, y = inputs.index_select(0, ids), targets.index_select(0, ids)
            loss = F.cross_entropy(model(x), y)
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
        outputs = self.model(self.problem.val_inputs)
        targets = self.problem.val_targets
        return F.cross_entropy(outputs, targets).item(), (outputs.argmax(1) == targets).float().mean().item()

    def train_and_save(self, folder: Path) -> None:
        """Train to the end, evaluating after every epoch and saving the last and the best state with torch.save."""
        problem, rows, best = self.problem, self.shuffled(), math.inf
        per_epoch = len(self.inputs) / problem.batch_size
        done = 0
        for epoch in itertools.count(1):
            end = min(math.ceil(epoch * per_epoch), problem.total_steps)
            self.train(rows, done, end)
            done = end
            loss, _ = self.evaluate()
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": done}
            torch.save(state, folder / "last.pt")
            if loss < best:
                best = loss
                torch.save(state, folder / "best.pt")
            if done == problem.total_steps:
                return
