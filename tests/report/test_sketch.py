"""The line in a terminal: as high as its values, as wide as asked for."""

from __future__ import annotations

import math

import pytest

from optexp.report.sketch import sketch


def test_a_ramp_is_drawn_in_eighths() -> None:
    assert sketch([0, 1, 2, 3, 4, 5, 6, 7, 8], width=9, height=1) == ["0 ┤ ▁▂▃▄▅▆▇█"]
    assert sketch([0.25, 0.5], width=2, height=2) == ["0.5 ┤ █", "  0 ┤██"]


def test_columns_stretch_few_values_and_keep_the_peaks_of_many() -> None:
    assert sketch([1, 0.5], width=4, height=1) == ["0 ┤██▄▄"]
    assert sketch([0, 0, 8, 0, 0, 0, 4, 0], width=2, height=1) == ["0 ┤█▄"]


def test_what_cannot_be_drawn() -> None:
    assert sketch([0.0, 0.0], width=2, height=1) == ["0 ┤"]
    assert sketch([1.0, math.inf, math.nan], width=3, height=1) == ["0 ┤█"]
    with pytest.raises(ValueError, match="nothing"):
        sketch([])
