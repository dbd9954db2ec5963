"""Random numbers as pure functions of (seed, purpose, indices): nothing to save, nothing to restore.

Two kinds are needed. A *generator* is a fresh CPU `torch.Generator` for bulk draws made once (initial weights, the
order of an epoch, a split). *Counter-based* draws are made on the training device, inside the step, from a hash of
(key, counter): they give the same numbers on every device, for every grouping of runs, and after any resume.

The integer hash is the two-multiply xorshift `lowbias32` (C. Wellons, "Prospecting for Hash Functions", 2018);
keys come from BLAKE2b, so the streams of different purposes and adjacent seeds are unrelated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def key(seed: int, purpose: str, *indices: int) -> int:
    """Return a 63-bit key that is unique to (seed, purpose, indices)."""
    text = "/".join([str(seed), purpose, *map(str, indices)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """Return a CPU generator seeded with `key(seed, purpose, *indices)`."""
    return torch.Generator().manual_seed(key(seed, purpose, *indices))


def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


_FIRST_MULTIPLIER = _signed32(0x7FEB352D)
_SECOND_MULTIPLIER = _signed32(0x846CA68B)


def _mixed(x: Tensor) -> Tensor:
    """One round of lowbias32 on an int32 tensor (multiplication wraps; shifts are made logical by the masks)."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _FIRST_MULTIPLIER
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _SECOND_MULTIPLIER
    return x ^ ((x >> 16) & 0xFFFF)


def uniform(stream: int | Tensor, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Return float32 numbers in [0, 1) of the given shape: element i depends on (stream, i) only.

    `stream` is a `key(...)`; or `halves(...)` of several keys, int32 [..., 2], and the result is [..., *shape] on the
    device of `stream`. Both 32-bit halves of a key enter the hash, one before and one after a mixing round.
    """
    numel = math.prod(shape)
    if isinstance(stream, Tensor):
        low, high = stream[..., :1], stream[..., 1:]
        counter = torch.arange(numel, dtype=torch.int32, device=stream.device)
        bits = _mixed(_mixed(counter ^ low) + high)
        shape = (*stream.shape[:-1], *shape)
    else:
        counter = torch.arange(numel, dtype=torch.int32, device=device)
        bits = _mixed(_mixed(counter ^ _signed32(stream)) + _signed32(stream >> 32))
    return ((bits >> 8) & 0xFFFFFF).to(torch.float32).mul_(2.0**-24).view(shape)


def halves(streams: Sequence[int]) -> Tensor:
    """Return the two 32-bit halves of each key as int32 [len(streams), 2], for `uniform`."""
    return torch.tensor([[_signed32(stream), _signed32(stream >> 32)] for stream in streams], dtype=torch.int32)
