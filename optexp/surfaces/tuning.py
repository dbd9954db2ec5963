"""The same effort for every optimizer: one grid of learning rates, and noise that judges but did not choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optexp.surfaces.contestants import Contestant
from optexp.surfaces.functions import Surface
from optexp.surfaces.trajectories import Descent, descend, noise


@dataclass(frozen=True)
class Effort:
    """What every optimizer gets: learning rates to choose from, steps, and realizations of the noise.

    `threshold` is the share of its first loss that a path must reach.
    """

    rates: Sequence[float]
    steps: int
    realizations: int
    threshold: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """How an optimizer did on a surface at the learning rate chosen for it.

    Paths are [T + 1, B, 2], losses [T + 1, B] with B = realizations · starts, the starts fastest. `tuning` has the mean
    final loss of each learning rate, infinite where a path was lost.
    """

    optimizer: str
    surface: str
    lr: float
    effective_lr: float
    on_edge: str | None
    tuning: dict[float, float]
    points: Tensor
    losses: Tensor
    evaluations: int
    threshold: float

    @property
    def final(self) -> list[float]:
        """The last loss of each path."""
        return [float(loss) for loss in self.losses[-1]]

    @property
    def diverged(self) -> list[bool]:
        """Which paths were lost: a loss that is not finite, or that ends above where it began."""
        lost = ~self.losses.isfinite().all(0) | (self.losses[-1] > self.losses[0])
        return [bool(path) for path in lost]

    @property
    def arrivals(self) -> list[int | None]:
        """The first step after which each path has a loss of `threshold` times its first or less; None for never."""
        there = self.losses <= self.threshold * self.losses[0]
        return [int(path.int().argmax()) if path.any() else None for path in there.T]

    def summary(self) -> dict[str, Any]:
        """Return the main numbers; those that do not exist (of lost paths) are infinite or None."""
        final = torch.tensor(self.final, dtype=torch.float64)
        arrivals = [step for step in self.arrivals if step is not None]
        lost = sum(self.diverged)
        whole = bool(final.isfinite().all())
        return {
            "surface": self.surface,
            "optimizer": self.optimizer,
            "lr": self.lr,
            "effective_lr": self.effective_lr,
            "on_edge": self.on_edge,
            "final_loss": float(final.mean()) if whole else math.inf,
            "final_loss_sd": float(final.std()) if whole and len(final) > 1 else None,
            "arrived": len(arrivals),
            "paths": len(final),
            "steps_to_threshold": sum(arrivals) / len(arrivals) if arrivals else None,
            "diverged": lost,
            "gradients_per_step": self.evaluations,
        }


def grid(low: float, high: float, number: int) -> list[float]:
    """Return `number` learning rates from `low` to `high`, evenly spaced by their logarithm, in three digits."""
    if number == 1:
        return [low]
    ratio = (high / low) ** (1 / (number - 1))
    return [float(f"{low * ratio**index:.3g}") for index in range(number)]


def compare(surface: Surface, contestant: Contestant, effort: Effort) -> Outcome:
    """Choose the learning rate with the smallest mean final loss over all paths and return how it does.

    Where the gradients are noisy, what is returned are paths on other noise than what decided.
    """
    paths = effort.realizations if surface.noise else 1
    starts = torch.tensor(surface.starts, dtype=torch.float64).repeat(paths, 1)

    def walk(rates: Sequence[float], purpose: str) -> Descent:
        added = noise(surface, effort.seed, purpose, effort.steps, len(starts))
        return descend(surface, contestant.make, rates, starts, effort.steps, added, effort.seed)

    tried = walk(effort.rates, "tuning")
    final = tried.losses[:, -1].mean(-1)
    final = torch.where(tried.losses.isfinite().all(1).all(-1), final, math.inf)
    best = int(final.argmin())  # the smallest of equals; the smallest learning rate where every one was lost
    judged, row = (tried, best) if not surface.noise else (walk([effort.rates[best]], "judging"), 0)
    edges = {0: "low", len(effort.rates) - 1: "high"} if len(effort.rates) > 1 else {}
    return Outcome(
        optimizer=contestant.name,
        surface=surface.name,
        lr=effort.rates[best],
        effective_lr=judged.effective_lrs[row],
        on_edge=edges.get(best),
        tuning=dict(zip(effort.rates, final.tolist(), strict=True)),
        points=judged.points[row],
        losses=judged.losses[row],
        evaluations=judged.evaluations,
        threshold=effort.threshold,
    )
