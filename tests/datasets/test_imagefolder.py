"""A folder of the user's own images, and what can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optexp.datasets.imagefolder import imagefolder
from optexp.errors import BadInput


def save(path: Path, pixels: np.ndarray, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve red and twelve blue images of several sizes, modes and formats, one of them in a subfolder."""
    for label, channel in (("blue", 2), ("red", 0)):
        for number in range(12):
            pixels = np.zeros((20 + number, 30 - number, 3), dtype=np.uint8)
            pixels[..., channel] = 200 + number
            folder = tmp_path / label / ("more" if number == 5 else "")
            suffix = (".png", ".jpg", ".bmp")[number % 3]
            save(folder / f"{number}{suffix}", pixels, "P" if suffix == ".png" else "RGB")
    return tmp_path


def test_images_are_read_resized_and_split(photos: Path) -> None:
    dataset = imagefolder(str(photos), image_size=16, val_fraction=0.25, test_fraction=0.25)
    assert [len(split.inputs) for split in (dataset.train, dataset.val, dataset.test)] == [12, 6, 6]
    assert dataset.details["classes"] == ["blue", "red"]
    assert dataset.num_outputs == 2
    assert dataset.input_shape == (3, 16, 16)
    assert (dataset.augmentation.crop, dataset.augmentation.flip) == (2, True)
    for split in (dataset.train, dataset.val, dataset.test):
        assert split.inputs.dtype == torch.uint8
        assert split.inputs.shape[1:] == (3, 16, 16)
        assert split.targets is not None
        red, blue = split.inputs[:, 0].float().mean((1, 2)), split.inputs[:, 2].float().mean((1, 2))
        assert torch.equal((red > blue).long(), split.targets)
        assert torch.maximum(red, blue).min() > 190
    assert imagefolder(str(photos), 16, val_fraction=0.25, test_fraction=0.25).details == dataset.details
    other = imagefolder(str(photos), 16, augment=False, split_seed=1, val_fraction=0.25, test_fraction=0.25)
    assert other.details["fingerprints"] != dataset.details["fingerprints"]
    assert (other.augmentation.crop, other.augmentation.flip) == (0, False)


def test_the_centre_is_kept_undistorted(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16, 1] = 250  # the middle third is green
    for label in "ab":
        for number in range(3):
            save(tmp_path / label / f"{number}.png", wide)
    dataset = imagefolder(str(tmp_path), image_size=8, val_fraction=0.2, test_fraction=0.2)
    assert (dataset.train.inputs[:, 1] == 250).all()
    assert (dataset.train.inputs[:, 0] == 0).all()


def test_what_is_wrong_with_a_folder_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"dataset\.root=.*nowhere: no such folder"):
        imagefolder(str(tmp_path / "nowhere"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match=r"dataset\.root=.*empty: Couldn't find any class folder"):
        imagefolder(str(empty))
    (empty / "class").mkdir()
    with pytest.raises(BadInput, match=r"dataset\.root=.*empty: Found no valid file for the classes class"):
        imagefolder(str(empty))
    with pytest.raises(BadInput, match=r"dataset\.image_size=0: must be at least 1"):
        imagefolder(str(photos), image_size=0)


def test_a_folder_of_splits_is_not_taken_for_one_of_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(tmp_path / split / "cat" / "0.png", np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(BadInput, match=r"holds splits \(train, val\) and not classes; set dataset\.root=.*train"):
        imagefolder(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"not an image", b"truncated"])
def test_an_unreadable_image_is_named(photos: Path, content: bytes) -> None:
    bad = photos / "red" / "bad.png"
    if content == b"truncated":
        save(bad, np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8))
        content = bad.read_bytes()[:1000]
    bad.write_bytes(content)
    with pytest.raises(BadInput, match=r"dataset\.root: .*bad\.png cannot be read as an image") as raised:
        imagefolder(str(photos))
    assert "\n" not in str(raised.value)
