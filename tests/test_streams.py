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


KEYS = [streams.key(seed, "dropout", index) for seed in range(40) for index in range(5)] + [
    0,
    1,
    2**63 - 1,
    2**31,
    2**32,
]


def test_halves_are_the_low_and_the_high_32_bits() -> None:
    halves = streams.halves(KEYS)
    assert halves.shape == (len(KEYS), 2)
    assert halves.dtype == torch.int32
    for stream, (low, high) in zip(KEYS, halves.tolist(), strict=True):
        assert (low & MASK) + ((high & MASK) << 32) == stream


def test_numbers_of_many_streams_are_bitwise_those_of_each() -> None:
    """The leading axes are those of the keys: any number of them, none too."""
    expected = torch.stack([streams.uniform(stream, (3, 7)) for stream in KEYS])
    assert torch.equal(streams.uniform(streams.halves(KEYS), (3, 7)), expected)
    pairs = streams.halves(KEYS[:6]).view(3, 2, 2)
    assert torch.equal(streams.uniform(pairs, (3, 7)), expected[:6].view(3, 2, 3, 7))
    assert torch.equal(streams.uniform(pairs[0, 1], (3, 7)), expected[1])
    assert streams.uniform(pairs, ()).shape == (3, 2)


def test_numbers_of_many_streams_can_be_drawn_inside_of_vmap() -> None:
    drawn = torch.vmap(lambda stream: streams.uniform(stream, (3, 7)))(streams.halves(KEYS))
    assert torch.equal(drawn, torch.stack([streams.uniform(stream, (3, 7)) for stream in KEYS]))


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
