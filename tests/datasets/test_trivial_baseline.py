"""The loss that needs no inputs, against scikit-learn-free arithmetic on made-up data sets."""

from __future__ import annotations

import math

import pytest
import torch

from optexp.datasets.base import Dataset, Split
from optexp.datasets.digits import digits
from optexp.datasets.line import line
from optexp.datasets.trivial import trivial_baseline


def test_class_frequencies_are_those_of_the_training_split() -> None:
    train = torch.tensor([0] * 8 + [1] * 2)
    val = torch.tensor([0, 0, 0, 1])
    inputs = {n: torch.zeros(n, 2) for n in (10, 4)}
    dataset = Dataset(
        "made up",
        "vectors",
        "classification",
        (2,),
        3,
        Split(inputs[10], train),
        Split(inputs[4], val),
        Split(inputs[4], val),
    )
    expected = -(3 * math.log(9 / 13) + math.log(3 / 13)) / 4  # counted once more, so that class 2 is possible
    assert trivial_baseline(dataset) == {"class frequencies": pytest.approx(expected)}


def test_balanced_classes_cost_the_logarithm_of_their_number() -> None:
    assert trivial_baseline(digits())["class frequencies"] == pytest.approx(math.log(10), rel=0.01)


def test_tokens_are_predicted_from_their_frequencies() -> None:
    tokens = torch.tensor([0, 1] * 50)
    split = Split(tokens)
    dataset = Dataset("made up", "tokens", "language", (8,), 2, split, split, split)
    assert trivial_baseline(dataset) == {"token frequencies": pytest.approx(math.log(2))}


def test_a_regression_is_predicted_by_the_mean_of_its_training_targets() -> None:
    dataset = line()
    assert dataset.train.targets is not None
    assert dataset.val.targets is not None
    expected = (dataset.val.targets - dataset.train.targets.mean()).square().mean()
    assert trivial_baseline(dataset) == {"training mean": pytest.approx(expected.item())}
