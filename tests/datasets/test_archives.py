"""CIFAR and MNIST: torchvision's own readers, on small files in the official binary formats."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import pickle
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets as readers

from optexp.datasets.archives import _only_one
from optexp.datasets.base import Dataset
from optexp.datasets.batches import TrainBatches
from optexp.datasets.cifar import cifar10, cifar100
from optexp.datasets.imagefolder import imagefolder
from optexp.datasets.mnist import fashion_mnist, mnist
from optexp.errors import BadInput

SETS: dict[str, Callable[..., Dataset]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
}
TRAIN, TEST = 40, 10  # samples in the archives written here


def write_cifar(root: Path, reader: Any, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write pickled batches as the authors published them, and let the reader expect their checksums."""
    draw = np.random.default_rng(0)
    folder = root / reader.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    for attribute, total in (("train_list", TRAIN), ("test_list", TEST)):
        names = [name for name, _ in getattr(reader, attribute)]
        listed = []
        for name in names:
            count = total // len(names)
            content: dict[str, Any] = {"data": draw.integers(0, 256, (count, 3072), dtype=np.uint8)}
            content["fine_labels" if fine else "labels"] = draw.integers(0, 10, count).tolist()
            listed.append([name, write(name, content)])
        monkeypatch.setattr(reader, attribute, listed)
    classes = [f"class {i}" for i in range(100 if fine else 10)]
    meta = dict(reader.meta)
    meta["md5"] = write(meta["filename"], {meta["key"]: classes})
    monkeypatch.setattr(reader, "meta", meta)


def write_mnist(root: Path, reader: Any, compressed: bool = False) -> None:
    """Write idx-ubyte files: big-endian magic number (type 8, dimensions), sizes, then the bytes."""
    draw = np.random.default_rng(1)
    folder = root / reader.__name__ / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", TRAIN), ("t10k", TEST)):
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = draw.integers(0, 10, count, dtype=np.uint8)
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / name).write_bytes(data)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small copy of each of the four sets."""
    write_cifar(tmp_path, readers.CIFAR10, False, monkeypatch)
    write_cifar(tmp_path, readers.CIFAR100, True, monkeypatch)
    write_mnist(tmp_path, readers.MNIST)
    write_mnist(tmp_path, readers.FashionMNIST)
    return tmp_path


def expected(name: str, root: Path) -> tuple[torch.Tensor, list[int], torch.Tensor, list[int]]:
    """Read the official training and test parts one sample at a time, as a torchvision user would."""
    reader: Any = {
        "cifar10": readers.CIFAR10,
        "cifar100": readers.CIFAR100,
        "mnist": readers.MNIST,
        "fashion_mnist": readers.FashionMNIST,
    }[name]
    parts: list[Any] = []
    for train in (True, False):
        samples = [(np.array(image), label) for image, label in reader(root, train=train)]
        images = torch.from_numpy(np.stack([image for image, _ in samples]))
        parts.append(images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2))
        parts.append([label for _, label in samples])
    return parts[0], parts[1], parts[2], parts[3]


@pytest.mark.parametrize("name", SETS)
def test_official_files_are_read_and_split(name: str, root: Path) -> None:
    images, labels, test_images, test_labels = expected(name, root)
    dataset = SETS[name](root=str(root), download=False, val_fraction=0.25)
    assert dataset.train.inputs.dtype == torch.uint8
    assert dataset.train.inputs.shape[1:] == dataset.input_shape == tuple(images.shape[1:])
    assert dataset.num_outputs == (100 if name == "cifar100" else 10)
    assert (len(dataset.train.inputs), len(dataset.val.inputs)) == (30, 10)
    assert dataset.test.targets is not None
    assert torch.equal(dataset.test.inputs, test_images), "the test split is the official one, in its own order"
    assert dataset.test.targets.tolist() == test_labels

    def rows(inputs: torch.Tensor, targets: Any) -> list[tuple[bytes, int]]:
        return [(i.contiguous().numpy().tobytes(), int(t)) for i, t in zip(inputs, targets, strict=True)]

    train, val = (rows(split.inputs, split.targets) for split in (dataset.train, dataset.val))
    assert not set(train) & set(val)
    assert sorted(train + val) == sorted(rows(images, labels))
    pixels = dataset.train.inputs.double() / 255
    torch.testing.assert_close(torch.tensor(dataset.mean).double(), pixels.mean((0, 2, 3)), atol=1e-6, rtol=0)
    expected_std = pixels.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(dataset.std).double(), expected_std, atol=1e-6, rtol=0)
    batch = TrainBatches(dataset, 8, seed=0, device="cpu").take(0)
    assert batch.inputs.shape == (8, *dataset.input_shape)
    assert len(dataset.details["classes"]) == dataset.num_outputs  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_validation_depends_on_split_seed_alone(name: str, root: Path) -> None:
    one, same, other = (SETS[name](root=str(root), download=False, split_seed=seed) for seed in (1, 1, 2))
    assert one.details == same.details
    prints = [dataset.details["fingerprints"] for dataset in (one, other)]
    assert prints[0]["train"] != prints[1]["train"]  # type: ignore[index]
    assert prints[0]["test"] == prints[1]["test"]  # type: ignore[index]


@pytest.mark.parametrize(("name", "crop", "flip"), [("cifar10", 4, True), ("cifar100", 4, True), ("mnist", 2, False)])
def test_augmentation_can_be_switched(name: str, crop: int, flip: bool, root: Path) -> None:
    on, off = (SETS[name](root=str(root), download=False, augment=augment).augmentation for augment in (True, False))
    assert (on.crop, on.flip) == (crop, flip)
    assert (off.crop, off.flip) == (0, False)


@pytest.mark.parametrize("name", SETS)
def test_missing_files_without_download_name_the_root(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    with pytest.raises(BadInput, match=r"dataset\.root=.*nothing: holds no intact copy of .*dataset\.download=true"):
        SETS[name](root=str(folder), download=False)
    assert not folder.exists()


def test_a_damaged_file_is_not_read(root: Path) -> None:
    batch = root / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput, match=r"dataset\.root=.*: holds no intact copy of CIFAR10"):
        cifar10(root=str(root), download=False)
    images = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    content = images.read_bytes()
    for damaged in (content[:-100], content[:9], b"", b"\x00" * 100, b"<html>no such file</html>"):
        images.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"dataset\.root=.*: holds no intact copy of MNIST"):
            mnist(root=str(root), download=False)


@pytest.mark.parametrize("name", SETS)
def test_failed_download_names_the_way_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", no_network)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    with pytest.raises(BadInput, match=r"dataset\.download=true: .*Name or service not known.*dataset\.root") as raised:
        SETS[name](root=str(tmp_path / "data"))
    assert "\n" not in str(raised.value)


def test_an_unwritable_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"dataset\.download=true: MNIST .* to .*file/data"):
        mnist(root=str(tmp_path / "file" / "data"))


def test_download_goes_to_the_root_and_only_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is replaced by a folder; torchvision's checks, unpacking and reading are the real ones."""
    server = tmp_path / "server"
    write_mnist(server, readers.MNIST, compressed=True)
    packed = server / "MNIST" / "raw"
    resources = [(name, hashlib.md5((packed / name).read_bytes()).hexdigest()) for name, _ in readers.MNIST.resources]
    monkeypatch.setattr(readers.MNIST, "resources", resources)
    fetched: list[str] = []

    def fetch(url: str, path: str) -> None:
        fetched.append(Path(path).name)
        Path(path).write_bytes((packed / Path(path).name).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", fetch)
    root = tmp_path / "new" / "data"
    first = mnist(root=str(root))
    assert fetched == [name for name, _ in resources]
    assert mnist(root=str(root)).details == first.details == mnist(root=str(root), download=False).details
    assert len(fetched) == 4


def test_one_download_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with _only_one(tmp_path):
            order.append("second")

    with _only_one(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("load", [cifar10, lambda: imagefolder(str(Path(__file__).parents[1]))])
def test_a_torchvision_that_does_not_fit_torch_is_one_line(
    load: Callable[[], Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(BadInput, match=r"torchvision .* does not load with torch .*nms.*pip install torch==") as raised:
        load()
    assert "\n" not in str(raised.value)
