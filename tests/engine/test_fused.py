"""Runs trained together are what they are alone: members as different as they may be, pairwise over all choices."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from combinations import ALL, COVERING, DIMENSIONS, assert_same_curves, assert_same_weights


def test_each_two_choices_meet_in_a_combination() -> None:
    assert len(COVERING) < 40
    assert set(COVERING) <= set(ALL)
    for (one, first), (other, second) in itertools.combinations(enumerate(DIMENSIONS), 2):
        assert {(combination[one], combination[other]) for combination in COVERING} == set(
            itertools.product(first, second)
        )


@pytest.mark.parametrize("combination", COVERING, ids="-".join)
def test_loss_curves_in_single_precision(combination: tuple[str, ...], book: Path) -> None:
    assert_same_curves(combination, book)


@pytest.mark.parametrize("combination", COVERING, ids="-".join)
def test_final_weights_in_double_precision(combination: tuple[str, ...], book: Path) -> None:
    assert_same_weights(combination, book)
