"""Points on a straight line with noise: the smallest regression there is, with a known answer."""

from __future__ import annotations

import torch

from optexp import streams
from optexp.datasets.base import Dataset, Split, split_indices
from optexp.datasets.details import check_fractions, described
from optexp.errors import BadInput


def line(
    num_points: int = 100,
    noise: float = 0.1,
    split_seed: int = 0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
) -> Dataset:
    """Return points (x, y = 2x + 1 + noise * ε) with x uniform in [-1, 1] and ε normal.

    The baseline is the mean squared error of the true line on the validation split: no model can be expected to do
    better. Raises BadInput when a split would be empty or `noise` is negative.
    """
    check_fractions(val_fraction, test_fraction)
    if not 0 <= noise < float("inf"):
        raise BadInput(f"dataset.noise={noise}: must be 0 or more (standard deviation of y around the line)")
    parts = split_indices(num_points, val_fraction, test_fraction, split_seed)
    generator = streams.generator(split_seed, "line")
    x = torch.rand(num_points, 1, generator=generator) * 2 - 1
    y = 2 * x + 1 + noise * torch.randn(num_points, 1, generator=generator)
    train, val, test = (Split(x[part], y[part]) for part in parts)
    error = y[parts[1]] - (2 * x[parts[1]] + 1)
    return Dataset(
        name="line",
        kind="vectors",
        objective="regression",
        input_shape=(1,),
        num_outputs=1,
        train=train,
        val=val,
        test=test,
        baselines={"mean squared error of the true line": float(error.square().mean())},
        details=described("y = 2x + 1 + noise", train, val, test, split_seed=split_seed),
    )
