"""A line drawn in a terminal with block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optexp.records.numbers import setting

_BLOCKS = " ▁▂▃▄▅▆▇█"  # eighths of a character


def sketch(values: Sequence[float], width: int = 64, height: int = 8) -> list[str]:
    """Return lines of text that show non-negative values from left to right over zero, with the largest at the top.

    A column shows the largest of the values that fall into it, or the one it falls on where there are fewer values
    than columns. What is not finite counts as zero. Raises ValueError without values.
    """
    if not values:
        raise ValueError("nothing to draw")
    finite = [value if math.isfinite(value) else 0.0 for value in values]
    columns = []
    for column in range(width):
        begin = column * len(finite) // width
        end = max((column + 1) * len(finite) // width, begin + 1)
        columns.append(max(finite[begin:end]))
    top = max(columns) or 1.0
    eighths = [round(8 * height * value / top) for value in columns]
    labels = {height - 1: setting(float(f"{top:.3g}")), 0: "0"}
    margin = max(map(len, labels.values()))
    lines = []
    for row in reversed(range(height)):
        blocks = "".join(_BLOCKS[min(max(level - 8 * row, 0), 8)] for level in eighths)
        lines.append(f"{labels.get(row, ''):>{margin}} ┤{blocks}".rstrip())
    return lines
