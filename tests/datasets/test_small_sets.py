"""The sets that need no file: digits, shapes and line; and what all sets have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from optexp.datasets import digits as digits_module
from optexp.datasets.base import Dataset, Split, split_indices
from optexp.datasets.details import channel_statistics
from optexp.datasets.digits import digits
from optexp.datasets.line import line
from optexp.datasets.shapes import shapes
from optexp.errors import BadInput

SMALL: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "shapes": lambda **changes: shapes(num_images=300, **changes),
    "line": line,
}


def rows(split: Split) -> list[bytes]:
    assert split.targets is not None
    return [
        sample.numpy().tobytes() + target.numpy().tobytes()
        for sample, target in zip(split.inputs.contiguous(), split.targets, strict=True)
    ]


@pytest.mark.parametrize("name", SMALL)
def test_splits_are_disjoint_and_hold_everything(name: str) -> None:
    one, other = SMALL[name](split_seed=0), SMALL[name](split_seed=0, val_fraction=0.3, test_fraction=0.05)
    parts = [rows(split) for split in (one.train, one.val, one.test)]
    samples = [*parts[0], *parts[1], *parts[2]]
    total = len(samples)
    assert total == {"digits": 1797, "shapes": 300, "line": 100}[name]
    assert len(parts[1]) == len(parts[2]) == round(0.15 * total)
    if name != "digits":  # these are normalized by their training split, so another split changes them
        assert sorted(samples) == sorted([*rows(other.train), *rows(other.val), *rows(other.test)])
    assert len(set(samples)) == total


@pytest.mark.parametrize("name", SMALL)
def test_split_depends_on_split_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    one = SMALL[name](split_seed=3)
    torch.manual_seed(2)
    same, other = SMALL[name](split_seed=3), SMALL[name](split_seed=4)
    assert one.details == same.details
    assert one.details["split_seed"] == 3
    assert one.details["fingerprints"] != other.details["fingerprints"]
    for part in ("train", "val", "test"):
        assert rows(getattr(one, part)) == rows(getattr(same, part))
        assert rows(getattr(one, part)) != rows(getattr(other, part))
        assert one.details["sizes"][part] == len(getattr(one, part).inputs)  # type: ignore[index]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_fraction": 0.0}, r"dataset\.val_fraction=0\.0: must be between 0 and 1"),
        ({"test_fraction": -0.1}, r"dataset\.test_fraction=-0\.1: must be between"),
        ({"val_fraction": float("nan")}, r"dataset\.val_fraction=nan: must be between"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, r"dataset\.val_fraction=0\.6 \+ dataset\.test_fraction=0\.4"),
        ({"val_fraction": 1e-6}, r"dataset\.val_fraction=1e-06 .* empty split"),
    ],
)
def test_fractions_out_of_range_are_named(name: str, changes: dict[str, float], message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        SMALL[name](**changes)
    assert "\n" not in str(raised.value)


def test_split_indices_cover_the_range() -> None:
    train, val, test = split_indices(101, 0.2, 0.1, split_seed=5)
    assert (len(train), len(val), len(test)) == (71, 20, 10)
    assert torch.equal(torch.cat([train, val, test]).sort().values, torch.arange(101))


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    dataset = digits(split_seed=1)
    parts = split_indices(1797, 0.15, 0.15, split_seed=1)
    raw = torch.from_numpy(bunch.images).unsqueeze(1)
    mean, std = raw[parts[0]].mean(), raw[parts[0]].std()
    for split, part in zip((dataset.train, dataset.val, dataset.test), parts, strict=True):
        assert split.inputs.dtype == torch.float32
        torch.testing.assert_close(split.inputs.double(), (raw[part] - mean) / std, atol=1e-5, rtol=0)
        assert split.targets is not None
        assert split.targets.tolist() == bunch.target[part.numpy()].tolist()
    assert abs(dataset.train.inputs.mean()) < 1e-5
    assert abs(dataset.train.inputs.std() - 1) < 1e-5


def test_digits_do_without_the_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = digits()
    monkeypatch.setattr(digits_module, "find_spec", lambda name: None)
    assert digits().details == quick.details


def test_shapes_are_balanced_and_normalized_by_the_training_split() -> None:
    dataset = shapes(num_images=505)
    labels = torch.cat([split.targets for split in (dataset.train, dataset.val, dataset.test)])  # type: ignore[misc]
    assert sorted(labels.bincount().tolist()) == [50] * 5 + [51] * 5
    assert dataset.train.inputs.dtype == torch.uint8
    assert dataset.train.inputs.shape[1:] == dataset.input_shape == (3, 32, 32)
    pixels = dataset.train.inputs.double() / 255
    torch.testing.assert_close(torch.tensor(dataset.mean).double(), pixels.mean((0, 2, 3)), atol=1e-6, rtol=0)
    expected = pixels.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(dataset.std).double(), expected, atol=1e-6, rtol=0)


def test_shapes_say_nothing_by_colour_but_all_by_form() -> None:
    dataset = shapes(num_images=4000, split_seed=2)
    images, labels = dataset.train.inputs.float(), dataset.train.targets
    assert labels is not None
    colour = torch.stack([images[labels == label].mean() for label in range(10)])
    assert (colour - colour.mean()).abs().max() < 8, "mean brightness per class, of 255"
    # The share of pixels that belong to the shape (a fact of its form) does differ between classes.
    corner = images[:, :, :2, :2].mean((2, 3), keepdim=True)
    covered = ((images - corner).abs().amax(1) > 90).float().mean((1, 2))
    share = torch.stack([covered[labels == label].mean() for label in range(10)])
    assert share.max() > 1.5 * share.min()


def test_a_class_needs_an_image() -> None:
    with pytest.raises(BadInput, match=r"dataset\.num_images=9: must be at least 10"):
        shapes(num_images=9)


def test_a_channel_without_variation_can_be_divided_by() -> None:
    mean, std = channel_statistics(torch.full((5, 2, 3, 3), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2, 0.2), abs=1e-6)
    assert std == pytest.approx((1 / 255, 1 / 255))


def test_line_is_a_line() -> None:
    exact = line(noise=0.0)
    for split in (exact.train, exact.val, exact.test):
        assert torch.equal(split.targets, 2 * split.inputs + 1)  # type: ignore[arg-type]
    noisy = line(num_points=20_000, noise=0.3)
    assert noisy.train.targets is not None
    x, y = noisy.train.inputs.double(), noisy.train.targets.double()
    slope, intercept = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), y).solution.flatten().tolist()
    assert slope == pytest.approx(2, abs=0.02)
    assert intercept == pytest.approx(1, abs=0.02)
    assert noisy.baselines["mean squared error of the true line"] == pytest.approx(0.09, rel=0.1)
    with pytest.raises(BadInput, match=r"dataset\.noise=-1"):
        line(noise=-1.0)


CONF = Path(__file__).parents[2] / "conf" / "dataset"


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_spells_out_the_arguments_of_its_function(path: Path) -> None:
    assert path.read_text().startswith("# ")
    given: dict[str, Any] = {
        key: None if value == "???" else value for key, value in yaml.safe_load(path.read_text()).items()
    }
    module, function = given.pop("_target_").rsplit(".", 1)
    parameters = inspect.signature(getattr(import_module(module), function)).parameters
    batch_size = given.pop("batch_size")
    assert batch_size == "full" or batch_size > 0
    assert set(given) == set(parameters)
    for key, value in given.items():
        default = parameters[key].default
        assert value == (None if default is inspect.Parameter.empty else default)


def test_the_groups_choices_are_complete() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == {
        *("digits", "pydocs", "text", "line", "shapes", "imagefolder"),
        *("cifar10", "cifar100", "mnist", "fashion_mnist"),
    }
