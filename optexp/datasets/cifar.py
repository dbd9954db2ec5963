"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32×32 pixels (A. Krizhevsky, 2009)."""

from __future__ import annotations

from optexp.datasets.archives import archive
from optexp.datasets.base import Augmentation, Dataset

_CROP_AND_FLIP = Augmentation(crop=4, flip=True)


def cifar10(
    root: str = "data", download: bool = True, augment: bool = True, val_fraction: float = 0.1, split_seed: int = 0
) -> Dataset:
    """Return CIFAR-10: 10 classes, 50,000 images for training and validation, 10,000 for the test.

    `augment` shifts training images by up to 4 pixels and mirrors half of them, as is usual. Raises BadInput when
    the files are neither in `root` nor can be downloaded.
    """
    augmentation = _CROP_AND_FLIP if augment else Augmentation()
    return archive("cifar10", "CIFAR10", root, download, val_fraction, split_seed, augmentation)


def cifar100(
    root: str = "data", download: bool = True, augment: bool = True, val_fraction: float = 0.1, split_seed: int = 0
) -> Dataset:
    """Return CIFAR-100: as CIFAR-10, with 100 classes."""
    augmentation = _CROP_AND_FLIP if augment else Augmentation()
    return archive("cifar100", "CIFAR100", root, download, val_fraction, split_seed, augmentation)
