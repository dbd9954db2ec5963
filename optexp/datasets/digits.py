"""Handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

import gzip
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from optexp.datasets.base import Dataset, Split, split_indices
from optexp.datasets.cache import decoded, identity
from optexp.datasets.details import check_fractions, described


def digits(split_seed: int = 0, val_fraction: float = 0.15, test_fraction: float = 0.15) -> Dataset:
    """Return 1,797 grey images of 8×8 pixels in 10 classes, normalized by mean and deviation of the training split.

    Source: UCI Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, 1998), its test part, as
    `sklearn.datasets.load_digits` gives it. Raises BadInput when a split would be empty.
    """
    check_fractions(val_fraction, test_fraction)
    table = torch.from_numpy(_table())
    images = table[:, :-1].reshape(-1, 1, 8, 8) / 16
    labels = table[:, -1].to(torch.int64)
    parts = split_indices(len(images), val_fraction, test_fraction, split_seed)
    mean, std = images[parts[0]].mean(), images[parts[0]].std()
    images.sub_(mean).div_(std)
    train, val, test = (Split(images[part], labels[part]) for part in parts)
    return Dataset(
        name="digits",
        kind="images",
        objective="classification",
        input_shape=(1, 8, 8),
        num_outputs=10,
        train=train,
        val=val,
        test=test,
        details=described("sklearn.datasets.load_digits", train, val, test, split_seed=split_seed),
    )


def _table() -> np.ndarray:
    """Return float32 [1797, 65]: 64 pixels (0 to 16) and the class.

    Importing scikit-learn costs a second, which is most of the time a small run needs to start. So the file that
    `load_digits` reads is read without it, where it is in its known place.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return decoded("digits", identity(path), partial(_read, path))["table"]
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target]).astype(np.float32)


def _read(path: Path) -> dict[str, np.ndarray]:
    with gzip.open(path, "rt") as file:
        return {"table": np.loadtxt(file, delimiter=",", dtype=np.float32)}
