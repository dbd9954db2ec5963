"""Batches are pure functions of (seed, step), cover every sample once per epoch, and change images exactly as said."""

from __future__ import annotations

import timeit
from dataclasses import replace

import pytest
import torch

from optexp import streams
from optexp.datasets import batches
from optexp.datasets.base import Augmentation, Dataset, Split
from optexp.datasets.batches import EvalBatches, TrainBatches, num_train_samples
from optexp.datasets.digits import digits
from optexp.errors import BadInput


def split_of(kind: str, count: int, generator: torch.Generator) -> Split:
    if kind == "tokens":
        return Split(torch.randint(11, (count,), generator=generator))
    if kind == "vectors":
        return Split(torch.randn(count, 3, generator=generator), torch.randn(count, 2, generator=generator))
    images = torch.randint(256, (count, 3, 6, 5), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % 7)


def small(kind: str, count: int = 23, **changes: object) -> Dataset:
    """Return a data set with `count` training samples (tokens: that many tokens) of odd sizes."""
    generator = streams.generator(3, "test")
    shape = {"tokens": (4,), "vectors": (3,), "images": (3, 6, 5)}[kind]
    dataset = Dataset(
        name="small",
        kind=kind,  # type: ignore[arg-type]
        objective={"tokens": "language", "vectors": "regression", "images": "classification"}[kind],  # type: ignore[arg-type]
        input_shape=shape,
        num_outputs=11,
        train=split_of(kind, count, generator),
        val=split_of(kind, count // 2, generator),
        test=split_of(kind, count // 2, generator),
        mean=(0.1, 0.5, 0.7) if kind == "images" else (),
        std=(0.2, 0.3, 0.4) if kind == "images" else (),
    )
    return replace(dataset, **changes)  # type: ignore[arg-type]


def normalized(images: torch.Tensor, dataset: Dataset) -> torch.Tensor:
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (dataset.mean, dataset.std))
    return ((images.double() / 255 - mean) / std).float()


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23])
def test_every_sample_is_seen_exactly_once_per_epoch(batch_size: int) -> None:
    train = TrainBatches(small("images"), batch_size, seed=1, device="cpu")
    assert train.num_samples == 23
    assert train.steps_per_epoch == 23 / batch_size
    epochs = 4
    steps = -(-epochs * 23 // batch_size)
    ids = torch.cat([train.sample_ids(step) for step in range(steps)])[: epochs * 23].view(epochs, 23)
    assert all(len(train.sample_ids(step)) == batch_size for step in range(steps))
    assert torch.equal(ids.sort(1).values, torch.arange(23).expand(epochs, 23))
    assert len({tuple(row) for row in ids.tolist()}) == epochs, "every epoch has its own order"


def test_order_is_the_documented_permutation() -> None:
    train = TrainBatches(small("vectors"), 10, seed=8, device="cpu")
    orders = [torch.randperm(23, generator=streams.generator(8, "order", epoch)) for epoch in range(3)]
    expected = torch.cat(orders)
    for step in range(6):
        assert torch.equal(train.sample_ids(step), expected[step * 10 : step * 10 + 10])


@pytest.mark.parametrize(("kind", "count"), [("images", 23), ("vectors", 23), ("tokens", 50)])
def test_any_step_can_be_taken_at_any_time(kind: str, count: int) -> None:
    dataset = small(kind, count, augmentation=Augmentation(crop=2, flip=True) if kind == "images" else Augmentation())
    sequential = [TrainBatches(dataset, 7, seed=5, device="cpu").take(step) for step in range(30)]
    again = TrainBatches(dataset, 7, seed=5, device="cpu")
    other = TrainBatches(dataset, 7, seed=6, device="cpu")
    for step in torch.randperm(30, generator=streams.generator(0, "test")).tolist():
        batch = again.take(step)
        assert torch.equal(batch.inputs, sequential[step].inputs)
        assert torch.equal(batch.targets, sequential[step].targets)
        assert not torch.equal(batch.inputs, other.take(step).inputs)


KINDS = {
    "vectors": {"kind": "vectors"},
    "images": {"kind": "images"},
    "cropped images": {"kind": "images", "augmentation": Augmentation(crop=2)},
    "cropped and mirrored images": {"kind": "images", "augmentation": Augmentation(crop=1, flip=True)},
    "tokens": {"kind": "tokens", "count": 50},
}


@pytest.mark.parametrize("hosted", [False, True])
@pytest.mark.parametrize("seeds", [[5, 6, 7], [5, 6, 5], [5, 5, 5], [9]])
@pytest.mark.parametrize("name", KINDS)
def test_stacked_batches_are_bitwise_those_of_each_seed(
    name: str, seeds: list[int], hosted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several epochs of 23 samples (11 windows of tokens), with batches that begin in one and end in the next."""
    if hosted:
        monkeypatch.setattr(batches, "_fits", lambda tensor, device: False)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    dataset, device = small(**KINDS[name]), "cpu:0" if hosted else "cpu"
    first = TrainBatches(dataset, 7, seeds[0], device)
    members = [first, *(first.of_seed(seed) for seed in seeds[1:])]
    alone = [TrainBatches(dataset, 7, seed, device) for seed in seeds]
    for step in (0, 1, 2, 3, 11, 4):
        found, expected = TrainBatches.stacked(members, lambda at=step: at), [one.take(step) for one in alone]
        for values, wanted in zip(found, zip(*expected, strict=True), strict=True):
            assert torch.equal(values, torch.stack(wanted))
            assert values.dtype == wanted[0].dtype
            assert [row.stride() for row in values] == [one.stride() for one in wanted]


def test_batches_of_another_seed_share_the_data_and_nothing_else() -> None:
    dataset = small("images")
    first = TrainBatches(dataset, 7, 5, "cpu")
    first.take(0)
    other = first.of_seed(6)
    assert other._store is first._store
    assert other.steps_per_epoch == first.steps_per_epoch
    assert torch.equal(other.take(4).inputs, TrainBatches(dataset, 7, 6, "cpu").take(4).inputs)
    assert torch.equal(first.take(1).inputs, TrainBatches(dataset, 7, 5, "cpu").take(1).inputs)
    assert first.of_seed(5) is first


def test_vectors_and_targets_belong_together() -> None:
    dataset = small("vectors")
    train = TrainBatches(dataset, 9, seed=0, device="cpu")
    for step in range(6):
        ids, batch = train.sample_ids(step), train.take(step)
        assert dataset.train.targets is not None
        assert torch.equal(batch.inputs, dataset.train.inputs[ids])
        assert torch.equal(batch.targets, dataset.train.targets[ids])


def test_full_batch_holds_every_sample_once_in_every_step() -> None:
    train = TrainBatches(small("vectors"), 23, seed=0, device="cpu")
    for step in (0, 1, 77):
        assert torch.equal(train.sample_ids(step).sort().values, torch.arange(23))


def test_images_are_normalized_per_channel_and_channels_last() -> None:
    dataset = small("images")
    train = TrainBatches(dataset, 8, seed=0, device="cpu")
    batch = train.take(3)
    assert batch.inputs.shape == (8, 3, 6, 5)
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    expected = normalized(dataset.train.inputs[train.sample_ids(3)], dataset)
    torch.testing.assert_close(batch.inputs, expected, atol=1e-6, rtol=1e-6)


def test_float_images_are_used_as_stored() -> None:
    dataset = digits()
    train = TrainBatches(dataset, 32, seed=0, device="cpu")
    assert torch.equal(train.take(5).inputs, dataset.train.inputs[train.sample_ids(5)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True)])
@pytest.mark.parametrize("hosted", [False, True])
def test_augmentation_equals_a_loop_over_samples(
    channels: int, dtype: torch.dtype, crop: int, flip: bool, hosted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small("images", augmentation=Augmentation(crop, flip))
    raw = dataset.train.inputs[:, :channels].to(dtype)
    dataset = replace(
        dataset,
        input_shape=(channels, 6, 5),
        train=Split(raw, dataset.train.targets),
        mean=dataset.mean[:channels],
        std=dataset.std[:channels],
    )
    if hosted:  # "cpu:0" plays a training device that is too small, "cpu" the host
        monkeypatch.setattr(batches, "_fits", lambda tensor, device: False)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    train = TrainBatches(dataset, 9, seed=4, device="cpu:0" if hosted else "cpu")
    assert dataset.train.targets is not None
    mirrored = 0
    shifts = set()
    for step in range(8):
        batch, ids = train.take(step), train.sample_ids(step)
        draws = streams.uniform(streams.key(4, "augment", step), (9, 3))
        assert torch.equal(batch.targets, dataset.train.targets[ids])
        for position, sample in enumerate(ids.tolist()):
            down, right = (int(draws[position, axis].item() * (2 * crop + 1)) for axis in (0, 1))
            expected = torch.zeros_like(raw[sample])
            for row in range(6):
                for column in range(5):
                    source_row, source_column = row + down - crop, column + right - crop
                    if 0 <= source_row < 6 and 0 <= source_column < 5:
                        expected[:, row, column] = raw[sample, :, source_row, source_column]
            if flip and draws[position, 2] < 0.5:
                expected = expected.flip(-1)
                mirrored += 1
            shifts.add((down, right))
            wanted = normalized(expected, dataset) if dtype == torch.uint8 else expected
            torch.testing.assert_close(batch.inputs[position], wanted, atol=1e-6, rtol=1e-6)
    assert len(shifts) > 20 if crop else shifts == {(0, 0)}
    assert 20 < mirrored < 52 if flip else mirrored == 0


def test_evaluation_is_never_augmented() -> None:
    dataset = small("images", augmentation=Augmentation(crop=2, flip=True))
    [batch] = EvalBatches(dataset, dataset.train, "cpu")
    torch.testing.assert_close(batch.inputs, normalized(dataset.train.inputs, dataset), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("count", [48, 49, 50, 51])
def test_token_windows_tile_the_stream_with_one_shift_per_epoch(count: int) -> None:
    length = 4
    dataset = replace(small("tokens", count), train=Split(torch.arange(count)))  # a token is its own position
    train = TrainBatches(dataset, 3, seed=2, device="cpu")
    samples = train.num_samples
    assert samples == num_train_samples(dataset) == count // length - 1
    shifts = set()
    for epoch in range(12):
        shift = int(torch.randint(length, (), generator=streams.generator(2, "window", epoch)))
        shifts.add(shift)
        starts = []
        for position in range(epoch * samples, (epoch + 1) * samples):
            batch, row = train.take(position // 3), position % 3
            assert torch.equal(batch.targets[row], batch.inputs[row] + 1), "the target is the next token"
            assert torch.equal(batch.inputs[row], torch.arange(length) + batch.inputs[row, 0])
            assert train.sample_ids(position // 3)[row] == (batch.inputs[row, 0] - shift) // length
            starts.append(int(batch.inputs[row, 0]))
        assert sorted(starts) == [shift + length * i for i in range(samples)]
    assert shifts == set(range(length))


def test_token_batches_are_contiguous_integers() -> None:
    batch = TrainBatches(small("tokens", 50), 3, seed=2, device="cpu").take(0)
    assert batch.inputs.shape == batch.targets.shape == (3, 4)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert batch.inputs.is_contiguous()
    assert batch.targets.is_contiguous()


@pytest.mark.parametrize("max_batch", [1, 4, 11, 1024])
@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_evaluation_covers_a_split_once_in_order(kind: str, max_batch: int) -> None:
    dataset = small(kind)
    evaluation = EvalBatches(dataset, dataset.val, "cpu", max_batch)
    found = list(evaluation)
    assert len(evaluation) == len(dataset.val.inputs) == 11
    assert all(len(batch.inputs) <= max_batch for batch in found)
    assert dataset.val.targets is not None
    assert torch.equal(torch.cat([batch.targets for batch in found]), dataset.val.targets)
    wanted = normalized(dataset.val.inputs, dataset) if kind == "images" else dataset.val.inputs
    torch.testing.assert_close(torch.cat([batch.inputs for batch in found]), wanted, atol=1e-6, rtol=1e-6)
    assert len(list(evaluation)) == len(found), "it can be read again"


@pytest.mark.parametrize("count", [41, 42, 44])
def test_evaluation_predicts_each_token_at_most_once_and_all_that_fill_a_window(count: int) -> None:
    dataset = replace(small("tokens", 50), val=Split(torch.arange(count)))
    evaluation = EvalBatches(dataset, dataset.val, "cpu", max_batch=3)
    predicted = torch.cat([batch.targets.flatten() for batch in evaluation])
    assert torch.equal(predicted, torch.arange(1, len(evaluation) * 4 + 1))
    assert len(evaluation) == (count - 1) // 4


@pytest.mark.parametrize("batch_size", [0, -3, 24])
def test_batch_size_must_fit(batch_size: int) -> None:
    with pytest.raises(BadInput, match=rf"dataset\.batch_size={batch_size}: .* between 1 and 23"):
        TrainBatches(small("images"), batch_size, seed=0, device="cpu")


def test_memory_is_shared_by_all_who_use_a_split_and_freed_with_them() -> None:
    dataset = small("images")
    first, second = (TrainBatches(dataset, 4, seed, "cpu") for seed in (0, 1))
    evaluation = EvalBatches(dataset, dataset.train, "cpu")
    assert first._store is second._store is evaluation._store
    other = EvalBatches(replace(dataset, mean=(0.0, 0.0, 0.0)), dataset.train, "cpu")
    assert other._store is not evaluation._store
    del first, second, evaluation, other
    assert not [store for store in batches._stores.values() if store.split is dataset.train]


@pytest.mark.parametrize("kind", ["images", "vectors", "tokens"])
def test_a_set_that_stays_on_the_host_gives_the_same_batches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small(kind, 50)
    wanted = [TrainBatches(dataset, 7, seed=1, device="cpu").take(step) for step in range(8)]
    wanted += EvalBatches(dataset, dataset.val, "cpu", 4)
    monkeypatch.setattr(batches, "_fits", lambda tensor, device: False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    train = TrainBatches(dataset, 7, seed=1, device="cpu:0")
    assert train._store.home != train._store.device
    found = [train.take(step) for step in range(8)] + list(EvalBatches(dataset, dataset.val, "cpu:0", 4))
    for batch, other in zip(found, wanted, strict=True):
        assert torch.equal(batch.inputs, other.inputs)
        assert torch.equal(batch.targets, other.targets)


def test_taking_a_batch_of_digits_is_cheap() -> None:
    """The goal is 30 microseconds on an idle core (measured: 8); the test allows for a busy machine."""
    train = TrainBatches(digits(), 32, seed=0, device="cpu")
    train.take(0)
    best = min(timeit.repeat(lambda: train.take(3), number=200, repeat=10)) / 200
    assert best < 100e-6


@pytest.mark.gpu
@pytest.mark.parametrize("hosted", [False, True])
@pytest.mark.parametrize("kind", ["images", "tokens", "vectors"])
def test_cuda_gives_the_same_batches_without_a_synchronization(
    kind: str, hosted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if hosted:
        monkeypatch.setattr(batches, "_fits", lambda tensor, device: device.type != "cuda")
    dataset = small(kind, 50, augmentation=Augmentation(2, True) if kind == "images" else Augmentation())
    on_cpu = TrainBatches(dataset, 7, seed=1, device="cpu")
    on_gpu = TrainBatches(dataset, 7, seed=1, device="cuda")
    on_gpu.take(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        taken = [on_gpu.take(step) for step in range(20)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for step, batch in enumerate(taken):
        assert batch.inputs.is_cuda
        assert batch.targets.is_cuda
        torch.testing.assert_close(batch.inputs.cpu(), on_cpu.take(step).inputs, atol=1e-6, rtol=1e-6)
        assert torch.equal(batch.targets.cpu(), on_cpu.take(step).targets)
    found = torch.cat([batch.inputs for batch in EvalBatches(dataset, dataset.val, "cuda", 4)])
    wanted = torch.cat([batch.inputs for batch in EvalBatches(dataset, dataset.val, "cpu", 4)])
    torch.testing.assert_close(found.cpu(), wanted, atol=1e-6, rtol=1e-6)
