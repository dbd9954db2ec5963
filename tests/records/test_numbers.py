"""How numbers are written for people."""

from __future__ import annotations

import math

import pytest
import yaml

from optexp.records.numbers import clock, duration, measured, rate, setting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.07134, "0.0713"),
        (2.302585, "2.3026"),
        (123.456, "123.5"),
        (12431.0, "12,431.0"),
        (12431, "12,431"),
        (3.2e-5, "3.20e-05"),
        (1e30, "1.00e+30"),
        (0.0, "0"),
        (-0.5, "-0.5000"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (None, "nan"),
    ],
)
def test_measured(value: float | None, text: str) -> None:
    assert measured(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.001, "0.001"),
        (1e-5, "1e-5"),
        (3e-10, "3e-10"),
        (1e20, "1e20"),
        (0.1 + 0.2, "0.3"),
        (5.0, "5"),
        (64, "64"),
        (True, "true"),
        (None, "null"),
        ([0.9, 0.999], "[0.9,0.999]"),
        ("full", "full"),
    ],
)
def test_setting_is_what_a_user_would_type(value: object, text: str) -> None:
    assert setting(value) == text


@pytest.mark.parametrize("value", [0.001, 64, True, None, [0.9, 0.999], "full"])
def test_setting_is_read_back_as_the_same_value(value: object) -> None:
    assert yaml.safe_load(setting(value)) == value


def test_durations() -> None:
    assert [duration(s) for s in (0.04, 8.44, 59.96, 83, 7500, 273_600)] == [
        "0.0 s",
        "8.4 s",
        "1 min 00 s",
        "1 min 23 s",
        "2 h 05 min",
        "3 d 4 h",
    ]
    assert [clock(s) for s in (0.2, 42, 725, 3723)] == ["0:00", "0:42", "12:05", "1:02:03"]


def test_rates() -> None:
    assert [rate(r) for r in (8.73, 99.96, 8412.3, 123_456, 1.254e6, math.inf)] == [
        "8.7",
        "100.0",
        "8,412",
        "123k",
        "1.25M",
        "inf",
    ]
