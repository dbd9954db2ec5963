"""Random numbers as functions of (seed, purpose, indices)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from optexp import streams

MASK = 0xFFFFFFFF


def lowbias32(x: int) -> int:
    """The hash in plain unsigned arithmetic, as published."""
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


def test_uniform_is_the_published_hash_of_key_and_counter() -> None:
    key = streams.key(3, "dropout", 1, 17)
    low, high = key & MASK, key >> 32
    expected = [(lowbias32((lowbias32(i ^ low) + high) & MASK) >> 8) * 2.0**-24 for i in range(50)]
    assert streams.uniform(key, (5, 10)).flatten().tolist() == expected


def test_uniform_depends_on_nothing_but_key_and_position() -> None:
    key = streams.key(0, "augment", 5)
    torch.manual_seed(1)
    first = streams.uniform(key, (100,))
    torch.manual_seed(2)
    assert torch.equal(first, streams.uniform(key, (100,)))
    assert torch.equal(first[:10], streams.uniform(key, (10,)))
    assert not torch.equal(first, streams.uniform(streams.key(0, "augment", 6), (100,)))


def test_uniform_is_uniform_and_neighbouring_streams_are_uncorrelated() -> None:
    draws = torch.stack([streams.uniform(streams.key(seed, "test"), (20_000,)) for seed in range(8)]).double().numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-4
    correlations = np.corrcoef(draws)[np.triu_indices(8, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)  # five standard errors
    lagged = np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]
    assert abs(lagged) < 5 / np.sqrt(draws.size)


def test_keys_do_not_collide_over_seeds_purposes_and_indices() -> None:
    keys = {
        streams.key(seed, purpose, index)
        for seed in range(50)
        for purpose in ("init", "order", "dropout", "augment")
        for index in range(200)
    }
    assert len(keys) == 50 * 4 * 200
    assert streams.key(1, "order", 23) != streams.key(12, "order", 3)
    assert all(0 <= key < 2**63 for key in keys)


def test_a_generator_is_fresh_each_time() -> None:
    first = torch.randperm(100, generator=streams.generator(4, "order", 2))
    assert torch.equal(first, torch.randperm(100, generator=streams.generator(4, "order", 2)))
    assert not torch.equal(first, torch.randperm(100, generator=streams.generator(4, "order", 3)))
