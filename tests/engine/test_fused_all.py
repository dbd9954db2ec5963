"""All combinations of model, optimizer, clipping and schedule; the default suite has a covering of their pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
from combinations import ALL, assert_same_curves, assert_same_weights

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("combination", ALL, ids="-".join)
def test_loss_curves_in_single_precision(combination: tuple[str, ...], book: Path) -> None:
    assert_same_curves(combination, book)


@pytest.mark.parametrize("combination", ALL, ids="-".join)
def test_final_weights_in_double_precision(combination: tuple[str, ...], book: Path) -> None:
    assert_same_weights(combination, book)
