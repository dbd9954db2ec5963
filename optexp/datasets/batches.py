"""Batches as pure functions of (seed, step): any step can be asked for at any time, so resuming needs no saved state.

A data set is put on the training device once and batches are gathered there. Images are kept channels last
([N, H, W, C] in memory), so that a gathered batch already has the layout in which convolutions are fastest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from optexp import streams
from optexp.datasets.base import Dataset, Split
from optexp.errors import BadInput
from optexp.transfers import capturing, to_device

Clock = Callable[[], int]
"""Tells the optimizer step that is being taken, from 0. A captured step asks again before each replay."""


_SMALL_EPOCH = 1 << 24  # bytes


class Batch(NamedTuple):
    """Inputs as a model reads them (normalized, on the training device) and what is to be predicted from them.

    images: float32 [B, C, H, W] in channels-last memory; vectors: float32 [B, D]; tokens: int64 [B, T].
    `targets` are int64 [B] (class index), float32 [B, K] (regression) or int64 [B, T] (the next tokens).
    """

    inputs: Tensor
    targets: Tensor


class TrainBatches:
    """The endless sequence of training batches of one seed.

    The batches cut the concatenation of all epochs' permutations into pieces of `batch_size`. So every sample is
    seen exactly once per epoch, all batches have the same size, and a batch may begin in one epoch and end in the next.

    Token windows start at multiples of the context length, shifted by an offset drawn anew for each epoch, so that
    a token is met at all positions of the context.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, device: torch.device | str) -> None:
        """Raise BadInput when `batch_size` is not between 1 and the number of training samples."""
        self.num_samples = num_train_samples(dataset)
        if not 1 <= batch_size <= self.num_samples:
            raise BadInput(
                f"dataset.batch_size={batch_size}: must be 'full' or between 1 and {self.num_samples}, "
                f"the number of training samples of {dataset.name}"
            )
        self.batch_size = batch_size
        self.steps_per_epoch = self.num_samples / batch_size
        self._dataset = dataset
        self._seed = seed
        self._augmented = dataset.kind == "images" and bool(dataset.augmentation.crop or dataset.augmentation.flip)
        self._store = _stored(dataset, dataset.train, torch.device(device), dataset.augmentation.crop)
        self._epochs: dict[int, Tensor] = {}
        self._gathered: dict[int, Batch] = {}
        # On a CPU a batch of a small data set costs more calls than work: an epoch is gathered in as many.
        bytes_of_epoch = self.num_samples * math.prod(dataset.input_shape) * 4
        self._by_epoch = self._store.device.type == "cpu" and not self._augmented and bytes_of_epoch <= _SMALL_EPOCH

    def of_seed(self, seed: int) -> TrainBatches:
        """Return the batches of another seed over the same data."""
        if seed == self._seed:
            return self
        other = copy.copy(self)
        other._seed, other._epochs, other._gathered = seed, {}, {}
        return other

    def sample_ids(self, step: int) -> Tensor:
        """Return the samples (int64 [B]) of optimizer step `step`, counted from 0."""
        positions = self._positions(step)
        return positions // self._dataset.input_shape[0] if self._dataset.kind == "tokens" else positions

    @property
    def resident(self) -> bool:
        """Whether the data lie on the training device."""
        return self._store.home == self._store.device

    def take(self, step: int) -> Batch:
        """Return the batch of optimizer step `step`, counted from 0."""
        return self.at(lambda: step)

    def at(self, clock: Clock) -> Batch:
        """Return the batch of the step that the clock tells."""
        if self._by_epoch and not capturing() and (piece := self._piece(clock())) is not None:
            return piece
        positions = to_device(lambda: self._positions(clock()), self._store.home)
        return self._store.batch(positions, self._draws([self], clock) if self._augmented else None)

    @staticmethod
    def stacked(members: Sequence[TrainBatches], clock: Clock) -> Batch:
        """Return the batches of a step of several seeds over the same data, each with a leading axis [R, ...]."""
        first, members_of_seed = members[0], {batches._seed: batches for batches in members}
        if len(members_of_seed) == 1:
            inputs, targets = first.at(clock)
            return Batch(inputs.expand(len(members), *inputs.shape), targets.expand(len(members), *targets.shape))

        def positions() -> Tensor:
            of_seed = {seed: batches._positions(clock()) for seed, batches in members_of_seed.items()}
            return torch.cat([of_seed[batches._seed] for batches in members])

        stored_at = to_device(positions, first._store.home)
        inputs, targets = first._store.batch(stored_at, first._draws(members, clock) if first._augmented else None)
        size = (len(members), first.batch_size)
        return Batch(inputs.unflatten(0, size), targets.unflatten(0, size))

    def _draws(self, members: Sequence[TrainBatches], clock: Clock) -> Tensor:
        """Return the numbers in [0, 1) that decide how the samples of a step are changed, [R · B, 3]."""

        def keys() -> Tensor:
            return streams.halves([streams.key(batches._seed, "augment", clock()) for batches in members])

        return streams.uniform(to_device(keys, self._store.device), (self.batch_size, 3)).flatten(0, 1)

    def _piece(self, step: int) -> Batch | None:
        """Return the batch of a step as a part of the epoch, all of whose samples are gathered at once.

        None for a batch that ends in the next epoch.
        """
        epoch, start = divmod(step * self.batch_size, self.num_samples)
        end = start + self.batch_size
        if end > self.num_samples:
            return None
        inputs, targets = self._whole(epoch)
        return Batch(inputs[start:end], targets[start:end])

    def _whole(self, epoch: int) -> Batch:
        """Return all samples in the order of an epoch, kept while it or a neighbour is in use."""
        if epoch not in self._gathered:
            neighbours = {near: kept for near, kept in self._gathered.items() if abs(near - epoch) == 1}
            self._gathered = neighbours | {epoch: self._store.batch(self._epoch(epoch))}
        return self._gathered[epoch]

    def _positions(self, step: int) -> Tensor:
        """Return where the samples of a step are stored: their rows or, for tokens, the starts of their windows."""
        epoch, start = divmod(step * self.batch_size, self.num_samples)
        end = start + self.batch_size
        current = self._epoch(epoch)
        if end <= self.num_samples:
            return current[start:end]
        return torch.cat([current[start:], self._epoch(epoch + 1)[: end - self.num_samples]])

    def _epoch(self, epoch: int) -> Tensor:
        """Return the positions of all samples in the order of an epoch, kept while it or a neighbour is in use."""
        if epoch not in self._epochs:
            order = torch.randperm(self.num_samples, generator=streams.generator(self._seed, "order", epoch))
            if self._dataset.kind == "tokens":
                length = self._dataset.input_shape[0]
                shift = torch.randint(length, (), generator=streams.generator(self._seed, "window", epoch))
                order = order * length + shift
            neighbours = {near: kept for near, kept in self._epochs.items() if abs(near - epoch) == 1}
            self._epochs = neighbours | {epoch: _sent(order, self._store.home)}
        return self._epochs[epoch]


class EvalBatches:
    """One split in its own order, every sample exactly once, without augmentation or shift."""

    def __init__(self, dataset: Dataset, split: Split, device: torch.device | str, max_batch: int = 1024) -> None:
        self._dataset = dataset
        self._num_samples = dataset.num_samples(split)
        self._max_batch = max_batch
        self._store = _stored(dataset, split, torch.device(device), padding=0)

    def __len__(self) -> int:
        """Return the number of samples (not of batches)."""
        return self._num_samples

    def __iter__(self) -> Iterator[Batch]:
        store = self._store
        for start in range(0, self._num_samples, self._max_batch):
            end = min(start + self._max_batch, self._num_samples)
            if self._dataset.kind == "tokens":
                length = self._dataset.input_shape[0]
                yield store.windows(torch.arange(start * length, end * length, length, device=store.home))
            else:
                inputs, targets = store.section(start, end)
                yield Batch(store.ready(inputs), targets)


def num_train_samples(dataset: Dataset) -> int:
    """Return the number of training samples of an epoch.

    For tokens this may be one less than `dataset.num_samples(dataset.train)`: every shift of the windows must fit.
    """
    if dataset.kind == "tokens":
        return dataset.train.inputs.numel() // dataset.input_shape[0] - 1
    return len(dataset.train.inputs)


class _Store:
    """A split's tensors where batches are gathered (`home`): the training device, or the host when it is too small."""

    def __init__(self, dataset: Dataset, split: Split, device: torch.device, padding: int) -> None:
        inputs, targets = split.inputs, split.targets
        if dataset.kind == "images":
            inputs = inputs.permute(0, 2, 3, 1)
            if padding:
                inputs = torch.nn.functional.pad(inputs, (0, 0, padding, padding, padding, padding))
            inputs = inputs.contiguous()
        self.split = split  # keeps the split alive, so that its identity can name this store in `_stores`
        self.device = device
        self.home = device if _fits(inputs, device) else torch.device("cpu")
        self.inputs = self._placed(inputs)
        self.targets = None if targets is None else self._placed(targets.contiguous())
        self._dataset = dataset
        self._images = dataset.kind == "images"
        self._factor: Tensor | None = None
        if inputs.dtype == torch.uint8:
            # (x / 255 - mean) / std as one product and one sum. The per-channel numbers are repeated for every pixel,
            # because broadcasting over a last axis of 3 is eight times slower on the CPU.
            channels, height, width = dataset.input_shape
            mean = torch.tensor(dataset.mean, dtype=torch.float64).expand(channels)
            std = torch.tensor(dataset.std, dtype=torch.float64).expand(channels)
            self._factor = (1 / (255 * std)).repeat(height * width).to(device, torch.float32)
            self._offset = (-mean / std).repeat(height * width).to(device, torch.float32)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device) if self.home == self.device else tensor.pin_memory()

    def batch(self, positions: Tensor, draws: Tensor | None = None) -> Batch:
        """Return the samples at `positions` [B]: rows, or starts of windows; images changed at random by `draws`."""
        if self._dataset.kind == "tokens":
            return self.windows(positions)
        inputs, targets = self.gather(positions) if draws is None else self._changed(positions, draws)
        return Batch(self.ready(inputs), targets)

    def _changed(self, ids: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Gather images [B, H, W, C] at a random shift, half of them mirrored, by one gather of single pixels."""
        wanted, batch_size = self._dataset.augmentation, len(ids)
        source, targets = self.inputs, self.targets
        if self.home == self.device:
            assert targets is not None
            targets = targets.index_select(0, ids)
        else:
            source, targets = self.gather(ids)
            ids = torch.arange(batch_size, device=self.device)
        channels, height, width = self._dataset.input_shape
        padded_height, padded_width = source.shape[1:3]
        shifts = (draws[:, :2] * (2 * wanted.crop + 1)).long()
        rows = shifts[:, :1] + torch.arange(height, device=self.device)
        columns = torch.arange(width, device=self.device).expand(batch_size, width)
        if wanted.flip:
            columns = torch.where(draws[:, 2:] < 0.5, width - 1 - columns, columns)
        columns = shifts[:, 1:2] + columns
        pixels = (ids[:, None] * padded_height + rows)[:, :, None] * padded_width + columns[:, None, :]
        images = source.view(-1, channels).index_select(0, pixels.view(-1))
        return images.view(batch_size, height, width, channels), targets

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the given samples on the training device, as they are stored."""
        assert self.targets is not None
        inputs, targets = self.inputs.index_select(0, rows), self.targets.index_select(0, rows)
        if self.home == self.device:
            return inputs, targets
        return _sent(inputs, self.device), _sent(targets, self.device)

    def section(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Return samples [start, end) on the training device, as they are stored."""
        assert self.targets is not None
        inputs, targets = self.inputs[start:end], self.targets[start:end]
        if self.home == self.device:
            return inputs, targets
        return _sent(inputs, self.device), _sent(targets, self.device)

    def windows(self, starts: Tensor) -> Batch:
        """Return the token windows that begin at `starts`; the targets are the same windows one token later."""
        windows = self.inputs.unfold(0, self._dataset.input_shape[0], 1)
        inputs, targets = windows.index_select(0, starts), windows.index_select(0, starts + 1)
        if self.home == self.device:
            return Batch(inputs, targets)
        return Batch(_sent(inputs, self.device), _sent(targets, self.device))

    def ready(self, inputs: Tensor) -> Tensor:
        """Return stored samples as a model reads them: uint8 normalized, images with the shape [B, C, H, W]."""
        if self._factor is not None:
            shape = inputs.shape
            inputs = inputs.reshape(shape[0], -1).to(torch.float32).mul_(self._factor).add_(self._offset).view(shape)
        return inputs.permute(0, 3, 1, 2) if self._images else inputs


_stores: WeakValueDictionary[tuple[object, ...], _Store] = WeakValueDictionary()


def _stored(dataset: Dataset, split: Split, device: torch.device, padding: int) -> _Store:
    """Return the store of a split on a device: all who use the same data set in one process share its memory."""
    name = (id(split), str(device), padding, dataset.kind, dataset.input_shape, dataset.mean, dataset.std)
    store = _stores.get(name)
    if store is None:
        store = _stores[name] = _Store(dataset, split, device, padding)
    return store


def _fits(tensor: Tensor, device: torch.device) -> bool:
    """Return whether a tensor may live on the device: on CUDA it may take at most half of the memory now free."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return tensor.numel() * tensor.element_size() <= free // 2


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to the device; to CUDA without making the host wait for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
