"""How numbers are written for people: measurements, durations and config values."""

from __future__ import annotations

import math
import re
from typing import Any


def measured(value: float | None) -> str:
    """Return a measurement with about four significant digits: `0.0713`, `1.5302`, `12,431`, `3.20e-05`.

    What is not a number is `nan`, and so is None: that is how the records write it, JSON having no word for it.
    """
    if value is None:
        return "nan"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if not math.isfinite(value) or size == 0:
        return f"{value:g}"
    if size < 1e-3 or size >= 1e6:
        return f"{value:.2e}"
    return f"{value:.4f}" if size < 100 else f"{value:,.1f}"


def setting(value: Any) -> str:
    """Return a config value as a user would type it: `0.001`, `1e-5`, `true`, `null`, `[0.9,0.999]`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return re.sub(r"e([-+])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{value:.6g}")
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(setting, value))}]"
    return str(value)


def duration(seconds: float) -> str:
    """Return a time span in two units at most: `8.4 s`, `1 min 23 s`, `2 h 05 min`, `3 d 4 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours} h {minute:02} min" if hours else f"{minutes} min {second:02} s"


def clock(seconds: float) -> str:
    """Return a time span as on a stop watch: `0:42`, `12:05`, `1:02:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def rate(per_second: float) -> str:
    """Return a throughput in three or four digits: `87.3`, `8,412`, `123k`, `1.25M`."""
    if not math.isfinite(per_second) or per_second < 100:
        return f"{per_second:.1f}"
    if per_second < 1e5:
        return f"{per_second:,.0f}"
    return f"{per_second / 1e3:.0f}k" if per_second < 1e6 else f"{per_second / 1e6:.2f}M"
