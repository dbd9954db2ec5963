"""Sharpness as what a small change of the weights can do to the loss.

Sources: Foret et al., "Sharpness-Aware Minimization", ICLR 2021 (SAM); Kwon et al., "ASAM: Adaptive Sharpness-Aware
Minimization", ICML 2021; Andriushchenko et al., "A Modern Look at the Relationship between Sharpness and
Generalization", ICML 2023 (arXiv 2302.07011), who find that none of them predicts generalization well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean, stdev

import torch
from torch import Tensor

from optexp.curvature.filters import filter_normalized
from optexp.curvature.loss import MeanLoss

Ascent = Callable[[Tensor], Tensor]
"""From a gradient [P] to the change of the weights [P] that a linear loss would rise most for, of all allowed ones."""


def ball(rho: float) -> Ascent:
    """Allow changes of a norm of at most `rho`: SAM."""
    return lambda gradient: _scaled(gradient, rho)


def adaptive_ball(rho: float, weights: Tensor) -> Ascent:
    """Allow changes whose norm is at most `rho` when each is divided by its weight: ASAM, element by element."""

    def ascent(gradient: Tensor) -> Tensor:
        return weights.abs() * _scaled(weights.abs() * gradient, rho)

    return ascent


def rises(loss: MeanLoss, ascent: Ascent, steps: int, start: Tensor | None = None) -> list[float]:
    """Return how much the loss rises at the allowed change after each of `steps` ascent steps from where it is.

    The first step follows the gradient at the weights themselves, as SAM does, or begins at the change `start`; each
    further one follows the gradient at the change of before, which on a quadratic is power iteration.
    """
    weights, base = loss.weights(), loss.value()
    change = ascent(loss.gradient() if start is None else start)
    found = []
    for step in range(steps):
        with loss.at(weights + change):
            found.append(loss.value() - base)
            if step + 1 < steps:
                change = ascent(loss.gradient())
    return found


def random_rise(loss: MeanLoss, draw: Callable[[], Tensor], ratio: float, draws: int) -> tuple[float, float]:
    """Return how much the loss rises on average when each filter is moved by `ratio` of its norm, and the standard
    error: the mean over `draws` (≥ 2) random filter-normalized directions, each taken in both senses.
    """
    weights, base = loss.weights(), loss.value()
    found = []
    for _ in range(draws):
        direction = filter_normalized(draw(), weights, loss.shapes)
        both = []
        for sense in (ratio, -ratio):
            with loss.at(weights + sense * direction):
                both.append(loss.value() - base)
        found.append(fmean(both))
    return fmean(found), stdev(found) / math.sqrt(draws)


def _scaled(vector: Tensor, length: float) -> Tensor:
    norm = vector.norm()
    return torch.where(norm > 0, vector * (length / norm), vector)
