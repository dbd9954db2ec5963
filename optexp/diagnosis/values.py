"""Numbers as one would choose them, for prescriptions."""

from __future__ import annotations

import math


def nice(value: float) -> float:
    """Return the nearest of 1, 2, 3, 5 times a power of ten, on a logarithmic scale."""
    exponent = math.floor(math.log10(value))
    choices = (digit * 10.0**power for power in (exponent, exponent + 1) for digit in (1, 2, 3, 5))
    return float(f"{min(choices, key=lambda choice: abs(math.log10(choice / value))):.0e}")


def decades(value: float) -> str:
    """Return a number of decades: `3.1 decades`, `exactly` left to the caller."""
    return f"{value:.1f} decade{'' if f'{value:.1f}' == '1.0' else 's'}"


def steps(number: int) -> str:
    """Return a number of steps: `1 step`, `1,970 steps`."""
    return f"{number:,} step{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Return a share in per cent: `4 %`, `0.3 %`."""
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"


def of_missing(part: float, shortfall: float) -> str:
    """Return what a part takes of what is missing; other parts may have given some of it back."""
    if part > shortfall + 0.05:
        return f"{decades(part)}, more than the {decades(shortfall)} that are missing in the end"
    return f"{decades(part)} of the {decades(shortfall)} missing"


def log10(value: float) -> float:
    """Return the decimal logarithm; of zero that of 1e-30, which is beyond every threshold."""
    return math.log10(max(value, 1e-30))
