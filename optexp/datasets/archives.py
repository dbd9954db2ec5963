"""Image sets in their official archives, read (and downloaded, when asked for) by torchvision's own readers."""

from __future__ import annotations

import fcntl
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optexp import streams
from optexp.datasets.base import Augmentation, Dataset, Split
from optexp.datasets.cache import decoded, identity
from optexp.datasets.details import channel_statistics, check_fractions, described
from optexp.errors import BadInput
from optexp.pairing import import_torchvision

_FOLDERS = {
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
}
"""Where torchvision's readers keep the files below `root`."""

_BROKEN = (RuntimeError, OSError, ValueError, AssertionError, EOFError, LookupError, pickle.UnpicklingError)
"""What torchvision's readers raise for files that are missing, incomplete or damaged."""


def archive(
    name: str, reader: str, root: str, download: bool, val_fraction: float, split_seed: int, augmentation: Augmentation
) -> Dataset:
    """Return the set that the class `reader` of torchvision.datasets reads, as uint8 images.

    The official test part is the test split; the validation split is drawn from the training part by `split_seed`.
    Raises BadInput when the files are not there and `download` is false, when the download fails, or when
    torchvision does not fit the installed torch.
    """
    check_fractions(val_fraction)
    folder = Path(root).expanduser()
    files, decode = identity(folder / _FOLDERS[reader]), partial(_contents, reader, folder, download)
    contents = decoded(name, files, decode) if files else decode()  # nothing is known yet of files to be downloaded
    classes = contents.pop("classes").tolist()
    data = {part: torch.from_numpy(array) for part, array in contents.items()}
    images, labels = data["train images"], data["train labels"]
    num_val = round(len(images) * val_fraction)
    if not 0 < num_val < len(images):
        raise BadInput(f"dataset.val_fraction={val_fraction}: leaves an empty split of {len(images)} samples")
    order = torch.randperm(len(images), generator=streams.generator(split_seed, "split"))
    held_out, kept = order[:num_val].sort().values, order[num_val:].sort().values
    train, val = Split(images[kept], labels[kept]), Split(images[held_out], labels[held_out])
    test = Split(data["test images"], data["test labels"])
    mean, std = channel_statistics(train.inputs)
    return Dataset(
        name=name,
        kind="images",
        objective="classification",
        input_shape=tuple(images.shape[1:]),
        num_outputs=len(classes),
        train=train,
        val=val,
        test=test,
        mean=mean,
        std=std,
        augmentation=augmentation,
        details=described(f"torchvision.datasets.{reader}", train, val, test, split_seed=split_seed, classes=classes),
    )


def _contents(reader: str, root: Path, download: bool) -> dict[str, np.ndarray]:
    """Read both official parts with torchvision: uint8 images [N, C, H, W], int64 labels [N], names of the classes."""
    wanted = getattr(import_torchvision().datasets, reader)
    train, test = _read(wanted, reader, root, download)
    return {
        "train images": _images(train),
        "train labels": np.asarray(train.targets, dtype=np.int64),
        "test images": _images(test),
        "test labels": np.asarray(test.targets, dtype=np.int64),
        "classes": np.array(train.classes),
    }


def _images(part: Any) -> np.ndarray:
    pixels = np.asarray(part.data)
    return pixels[:, None] if pixels.ndim == 3 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _read(reader: Any, name: str, root: Path, download: bool) -> tuple[Any, Any]:
    """Return the training and the test part, downloading them only when they are not there."""
    try:
        return reader(root, train=True), reader(root, train=False)
    except _BROKEN as error:
        if not download:
            raise BadInput(
                f"dataset.root={root}: holds no intact copy of {name}; set dataset.root to the folder of a copy "
                "or dataset.download=true"
            ) from error
    try:
        with _only_one(root):
            return reader(root, train=True, download=True), reader(root, train=False)
    except _BROKEN as error:
        raise BadInput(
            f"dataset.download=true: {name} could not be downloaded to {root} or read there ({_last_line(error)}); "
            "without a network, set dataset.root to the folder of an existing copy"
        ) from error


@contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """Let one process at a time download to `root`: the members of a sweep all start with the same request."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".download.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _last_line(error: BaseException) -> str:
    """Return the last line of an error's text: where readers that tried several sources put the reason."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
