"""Runs trained together are what they are alone: members as different as they may be, pairwise over all choices."""

from __future__ import annotations

from pathlib import Path

import pytest
from combinations import covering, words_of
from fusing import alone, assert_same_runs, together

COVERING = covering()


@pytest.mark.parametrize("combination", COVERING, ids="-".join)
def test_loss_curves_in_single_precision(combination: tuple[str, ...], book: Path) -> None:
    common, variants = words_of(combination, book)
    assert_same_runs(together(common, variants), alone(common, variants), rows=1e-5, weights=None)


@pytest.mark.parametrize("combination", COVERING, ids="-".join)
def test_final_weights_in_double_precision(combination: tuple[str, ...], book: Path) -> None:
    common, variants = words_of(combination, book, "engine.precision=fp64")
    assert_same_runs(together(common, variants), alone(common, variants), rows=1e-9, weights=1e-9)
