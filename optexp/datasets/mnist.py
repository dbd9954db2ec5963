"""MNIST (Y. LeCun, C. Cortes and C. Burges, 1998) and Fashion-MNIST (H. Xiao et al., 2017): grey, 28×28 pixels."""

from __future__ import annotations

from optexp.datasets.archives import archive
from optexp.datasets.base import Augmentation, Dataset

_CROP = Augmentation(crop=2)  # no mirror images: a mirrored digit is another sign or none


def mnist(
    root: str = "data", download: bool = True, augment: bool = False, val_fraction: float = 0.1, split_seed: int = 0
) -> Dataset:
    """Return MNIST: 10 digits, 60,000 images for training and validation, 10,000 for the test.

    `augment` shifts training images by up to 2 pixels. Raises BadInput when the files are neither in `root` nor can
    be downloaded.
    """
    augmentation = _CROP if augment else Augmentation()
    return archive("mnist", "MNIST", root, download, val_fraction, split_seed, augmentation)


def fashion_mnist(
    root: str = "data", download: bool = True, augment: bool = False, val_fraction: float = 0.1, split_seed: int = 0
) -> Dataset:
    """Return Fashion-MNIST: as MNIST, with 10 kinds of clothing."""
    augmentation = _CROP if augment else Augmentation()
    return archive("fashion_mnist", "FashionMNIST", root, download, val_fraction, split_seed, augmentation)
