"""What a data set is to the rest of the program: three disjoint splits in memory and a description of their shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from optexp import streams
from optexp.errors import BadInput

Kind = Literal["images", "vectors", "tokens"]
Objective = Literal["classification", "regression", "language"]


@dataclass(frozen=True)
class Split:
    """Samples and what is to be predicted from them, on the CPU.

    images: `inputs` uint8 or float32 [N, C, H, W]; vectors: float32 [N, D]; `targets` int64 [N] (class index) or
    float32 [N, K] (regression). tokens: `inputs` is one long int64 [T] stream and `targets` is None: the targets of
    a window are its own tokens, shifted by one.
    """

    inputs: Tensor
    targets: Tensor | None = None


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images: a shift of up to `crop` pixels (zero padded) and a mirror image."""

    crop: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits with everything a model or an objective must know about them.

    `input_shape` is (C, H, W), (D,) or, for tokens, (context_length,). `num_outputs` is the number of classes, the
    vocabulary size, or the number of regression targets. `mean` and `std` (one number per channel, in the units of
    uint8 / 255) normalize uint8 images when a batch is made; float inputs are stored normalized already.
    `baselines` are reference values in the units of the loss that give a result a meaning (printed with it).
    `details` is recorded with the run: sizes of the splits, their fingerprint, the source of the data.
    """

    name: str
    kind: Kind
    objective: Objective
    input_shape: tuple[int, ...]
    num_outputs: int
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    baselines: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)

    def num_samples(self, split: Split) -> int:
        """Return the number of samples (images, vectors, or non-overlapping token windows) of a split."""
        if self.kind == "tokens":
            return (split.inputs.numel() - 1) // self.input_shape[0]
        return len(split.inputs)


def split_indices(
    total: int, val_fraction: float, test_fraction: float, split_seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut range(total) at random into disjoint train, validation and test indices (each sorted).

    The cut depends on `split_seed` alone and not on the seed of a run, so that runs of different seeds are compared
    on the same data. Raises BadInput when a part would be empty.
    """
    num_val, num_test = round(total * val_fraction), round(total * test_fraction)
    num_train = total - num_val - num_test
    if min(num_train, num_val, num_test) < 1:
        raise BadInput(
            f"dataset.val_fraction={val_fraction} and dataset.test_fraction={test_fraction} leave an empty split of "
            f"{total} samples; each split needs at least one"
        )
    order = torch.randperm(total, generator=streams.generator(split_seed, "split"))
    parts = order.split([num_train, num_val, num_test])
    return parts[0].sort().values, parts[1].sort().values, parts[2].sort().values


def fingerprint(*tensors: Tensor) -> str:
    """Return 16 hexadecimal digits of SHA-256 over the tensors' bytes: recorded, to show which data a run saw."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
