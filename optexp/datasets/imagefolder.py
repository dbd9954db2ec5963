"""The user's own images: one folder per class."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from optexp.datasets.base import Augmentation, Dataset, Split, split_indices
from optexp.datasets.cache import decoded, identity
from optexp.datasets.details import channel_statistics, check_fractions, described
from optexp.errors import BadInput, listed
from optexp.pairing import import_torchvision

_NAMES_OF_SPLITS = {"train", "training", "val", "valid", "validation", "test"}


def imagefolder(
    root: str,
    image_size: int = 64,
    augment: bool = True,
    split_seed: int = 0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
) -> Dataset:
    """Return the images root/<class>/**/<image>, resized and cropped at the centre to `image_size` squared, as RGB.

    All are read once into memory: 3 · image_size² bytes per image. `augment` shifts training images by up to an
    eighth of their size and mirrors half of them. Raises BadInput when there is no such folder, no class in it, a
    class without images, or an image that cannot be read.
    """
    check_fractions(val_fraction, test_fraction)
    if image_size < 1:
        raise BadInput(f"dataset.image_size={image_size}: must be at least 1 pixel")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise BadInput(f"dataset.root={root}: no such folder; set it to a folder with one subfolder per class")
    subfolders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if subfolders and _NAMES_OF_SPLITS.issuperset(subfolders):
        raise BadInput(
            f"dataset.root={root}: holds splits ({listed(subfolders)}) and not classes; "
            f"set dataset.root={folder / subfolders[0]} (the splits are made from one set of images)"
        )
    key = [image_size, _version("pillow"), *identity(folder)]
    contents = decoded("imagefolder", key, lambda: _contents(folder, root, image_size))
    images, labels = torch.from_numpy(contents["pixels"]).permute(0, 3, 1, 2), torch.from_numpy(contents["labels"])
    classes = contents["classes"].tolist()
    parts = split_indices(len(images), val_fraction, test_fraction, split_seed)
    train, val, test = (Split(images[part], labels[part]) for part in parts)
    mean, std = channel_statistics(train.inputs)
    return Dataset(
        name="imagefolder",
        kind="images",
        objective="classification",
        input_shape=(3, image_size, image_size),
        num_outputs=len(classes),
        train=train,
        val=val,
        test=test,
        mean=mean,
        std=std,
        augmentation=Augmentation(crop=image_size // 8, flip=True) if augment else Augmentation(),
        details=described(root, train, val, test, split_seed=split_seed, classes=classes),
    )


def _contents(folder: Path, root: str, size: int) -> dict[str, np.ndarray]:
    """Find and decode all images below a folder: uint8 [N, size, size, 3], labels, names of the classes."""
    try:
        found = import_torchvision().datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise BadInput(f"dataset.root={root}: {' '.join(str(error).split())}") from None
    pixels = np.empty((len(found.samples), size, size, 3), dtype=np.uint8)
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
        for row, image in enumerate(pool.map(lambda sample: _read(sample[0], size), found.samples)):
            pixels[row] = image
    labels = np.array([label for _, label in found.samples], dtype=np.int64)
    return {"pixels": pixels, "labels": labels, "classes": np.array(found.classes)}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _read(path: str, size: int) -> np.ndarray:
    """Return an image file as uint8 [size, size, 3]."""
    from PIL import Image, ImageOps  # comes with torchvision

    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))  # lets JPEG be decoded at a fraction of its size, never below `size`
            return np.array(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"dataset.root: {path} cannot be read as an image ({error}); repair or remove it") from error
