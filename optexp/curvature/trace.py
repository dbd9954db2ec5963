"""The trace of a symmetric operator from random vectors.

Sources: Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989; the part that is known is
taken out first, as in Meyer et al., "Hutch++: Optimal Stochastic Trace Estimation", SOSA 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean, stdev

import torch
from torch import Tensor

from optexp.curvature.lanczos import Product

AT_ONCE, MOST_BYTES = 8, 2**29
"""Vectors that share the graph of a batch: fewer where they would take more memory."""


def trace(product: Product, draw: Callable[[], Tensor], draws: int, known: Tensor | None = None) -> tuple[float, float]:
    """Return an unbiased estimate of the trace and its standard error, from at least two draws.

    `draw` returns random vectors [P] of independent signs. `known` are orthonormal vectors [k, P], whose part of the
    trace is computed exactly: with the eigenvectors of the largest eigenvalues most of the error is gone.
    """
    exact = 0.0
    estimates: list[float] = []
    if known is not None:
        exact = float((known * product(known)).sum())
    while len(estimates) < draws:
        one = draw()
        at_once = max(1, min(AT_ONCE, draws - len(estimates), MOST_BYTES // (one.numel() * one.element_size())))
        signs = torch.stack([one, *(draw() for _ in range(at_once - 1))])
        outside = signs if known is None else signs - (signs @ known.T) @ known
        estimates += (outside * product(outside)).sum(1).tolist()
    return exact + fmean(estimates), stdev(estimates) / math.sqrt(draws)
