"""Histories made by formulas: rows as a run would log them, with causes that are known because they were written in."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from optexp.diagnosis.history import History

LN10 = math.log(10)  # the loss of guessing among ten classes


def falling(start: float, rate: float) -> Callable[[int], float]:
    """Return the loss start · exp(−rate · step)."""
    return lambda step: start * math.exp(-rate * step)


def history(
    steps: int = 200,
    loss: Callable[[int], float] | None = None,
    val: Callable[[int], float] | None = None,
    update: Callable[[int], float] | float = 3e-3,
    weight: Callable[[int], float] | float = 20.0,
    gradient: Callable[[int], float] | float = 1.0,
    lr: Callable[[int], float] | None = None,
    every: dict[str, float] | None = None,
    noise: float = 0.01,
    **facts: Any,
) -> History:
    """Return the history of a run that logs every tenth step and evaluates every fortieth; `noise` multiplies."""
    dice, loss = random.Random(0), loss or falling(LN10, 0.02)
    settings = {"lr": 0.01, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0} | facts.pop("settings", {})
    base = settings["lr"]

    def at(value: Callable[[int], float] | float, step: int) -> float:
        return value(step) if callable(value) else value

    rows: list[dict[str, float]] = []
    for step in [1, *range(10, steps + 1, 10)]:
        row = {
            "step": step,
            "train/loss": loss(step) * (1 + noise * dice.gauss(0, 1)),
            "optim/lr": base if lr is None else lr(step),
            "optim/update_ratio": at(update, step),
            "optim/weight_norm": at(weight, step),
            "optim/grad_norm": at(gradient, step),
            **(every or {}),
        }
        momentum, dampening = settings["momentum"], settings["dampening"]
        row["optim/effective_lr"] = row["optim/lr"] * (1 - dampening) / (1 - momentum)
        if step % 40 == 0:
            value = (val or loss)(step)
            row |= {"val/loss": value, "val/accuracy": max(0.1, 1 - value / LN10)}
        rows.append(row)
    known: dict[str, Any] = {
        "total_steps": steps,
        "optimizer": "SGD",
        "baseline": LN10,
        "objective": "classification",
        "inputs": {"mean": 0.0, "std": 1.0, "largest": 3.0},
        "trainable": 10_000,
        "parameters": 10_000,
        "batch_size": 32,
        "num_train": 1000,
        "overrides": ("model=mlp",),
        "config": {f"optimizer.{key}": value for key, value in settings.items()},
    }
    return History(rows=rows, settings=settings, **(known | facts))
