"""The learning rates of a run by our schedules and by torch.optim.lr_scheduler."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler

from optexp.schedules import Schedule

BASE_LR = 0.3
TOTAL = 60
STEPS_PER_EPOCH = 7.5  # a batch may straddle two epochs: epochs of 8, 7, 8, 7, ... steps

Torch = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def torch_values(make: Torch, steps: int, warmup: int = 0) -> list[float]:
    """Return the learning rates that torch's scheduler gives `steps` steps, behind LinearLR when there is a warm-up."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE_LR)
    scheduler = make(optimizer)
    if warmup:
        ramp = lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, max(1, warmup - 1))
        scheduler = lr_scheduler.SequentialLR(optimizer, [ramp, scheduler], [warmup])
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own use of a deprecated argument in SequentialLR
        for _ in range(steps):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return values


def our_values(schedule: Schedule, steps: int, total: int = TOTAL) -> list[float]:
    bound = schedule.bind(total, STEPS_PER_EPOCH)
    return [bound.lr(step, BASE_LR) for step in range(steps)]


def close(values: list[float]) -> object:
    return pytest.approx(values, rel=1e-9, abs=1e-12)  # torch's recurrences round at each step
