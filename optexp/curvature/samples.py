"""A fixed set of training samples, read in batches: the samples over which a loss is averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from optexp import streams
from optexp.datasets.base import Dataset, Split
from optexp.datasets.batches import Batch, EvalBatches


class FixedSamples:
    """Some samples of a split, the same at every pass: without augmentation and, for tokens, without shifted windows.

    `number` of them are drawn at random by `seed`; all when `number` is None or there are no more.
    """

    def __init__(
        self, dataset: Dataset, split: Split, number: int | None, seed: int, device: torch.device, batch_size: int
    ) -> None:
        available = dataset.num_samples(split)
        self.number = available if number is None else min(number, available)
        order = torch.randperm(available, generator=streams.generator(seed, "sharpness samples"))
        chosen = order[: self.number].sort().values if self.number < available else torch.arange(available)
        self._batch_size = batch_size
        self._windows = None
        if dataset.kind == "tokens":
            length = dataset.input_shape[0]
            self._windows = split.inputs.unfold(0, length + 1, length)[chosen].to(device)
        else:
            assert split.targets is not None
            part = Split(split.inputs[chosen], split.targets[chosen])
            self._batches = EvalBatches(dataclasses.replace(dataset, train=part), part, device, batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self._windows is None:
            yield from self._batches
            return
        for windows in self._windows.split(self._batch_size):
            yield Batch(windows[:, :-1], windows[:, 1:])
