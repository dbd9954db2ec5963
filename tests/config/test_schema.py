"""Intervals and the typed part of the configuration."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from optexp.config.check import engine_settings
from optexp.config.schema import Engine, Interval
from optexp.errors import BadInput
from optexp.help import shipped_folder


@pytest.mark.parametrize(
    ("text", "count", "unit"),
    [
        (100, 100, "step"),
        (1, 1, "step"),
        ("100", None, None),
        ("100steps", 100, "step"),
        ("1 step", 1, "step"),
        ("1epoch", 1, "epoch"),
        ("2epochs", 2, "epoch"),
        ("0.5epochs", 0.5, "epoch"),
        ("0.25 epoch", 0.25, "epoch"),
        ("2.0steps", 2, "step"),
        ("1.5steps", None, None),
        (0, None, None),
        (-1, None, None),
        (True, None, None),
        (1.5, None, None),
        ("0epochs", None, None),
        ("0.0epochs", None, None),
        ("-1epoch", None, None),
        ("epoch", None, None),
        ("1e3epochs", None, None),
        ("1epoch!", None, None),
        ("", None, None),
        (None, None, None),
        ([1], None, None),
    ],
)
def test_intervals_are_read_or_refused(text: Any, count: float | None, unit: str | None) -> None:
    if count is None:
        with pytest.raises(BadInput, match=r"engine\.eval_every=.*allowed are a number of steps"):
            Interval.parse("engine.eval_every", text)
    else:
        interval = Interval.parse("engine.eval_every", text)
        assert (interval.count, interval.unit) == (count, unit)


def exactly_due(step: int, length: Fraction) -> bool:
    """Count whole intervals in exact arithmetic: is there a multiple of `length` in (step - 1, step]?"""
    multiple = 0
    while multiple * length <= step - 1:
        multiple += 1
    return multiple * length <= step


@pytest.mark.parametrize(
    ("count", "unit", "samples", "batch"),
    [
        ("1", "step", 1257, 32),
        ("7", "step", 1257, 32),
        ("1", "epoch", 1257, 32),  # 39.28 steps per epoch
        ("0.1", "epoch", 1257, 32),
        ("0.5", "epoch", 1257, 32),
        ("3", "epoch", 100, 7),
        ("0.3", "epoch", 100, 7),
        ("0.1", "epoch", 100, 7),  # 0.1 * (100 / 7) is not 10 / 7 in floating point
        ("1", "epoch", 96, 32),  # ends exactly on a step
        ("0.1", "epoch", 30, 1),
        ("0.7", "epoch", 10, 1),
        ("1", "epoch", 5, 5),  # every step is an epoch
        ("0.1", "epoch", 5, 5),  # several intervals in each step
        ("2.5", "epoch", 8, 8),
    ],
)
def test_an_interval_is_due_when_an_exact_count_says_so(count: str, unit: Any, samples: int, batch: int) -> None:
    interval = Interval(float(count), unit)
    length = Fraction(count) * (Fraction(samples, batch) if unit == "epoch" else 1)
    steps = range(1, 200)
    due = [step for step in steps if interval.due(step, samples / batch)]
    assert due == [step for step in steps if exactly_due(step, length)]
    assert due
    assert list(interval.all_due(steps[-1], samples / batch)) == due


def shipped_engine() -> dict[str, Any]:
    path: Path = shipped_folder() / "engine" / "default.yaml"
    node: dict[str, Any] = yaml.safe_load(path.read_text())
    return node


def test_the_shipped_engine_names_every_setting_with_its_default() -> None:
    assert engine_settings(shipped_engine()) == Engine()
    assert list(shipped_engine()) == [field.name for field in dataclasses.fields(Engine)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"max_step": 3},
            r"engine\.max_step=3: no such key \(did you mean 'max_steps'\?\); there are epochs, max_steps",
        ),
        ({"epochs": 0}, r"engine\.epochs=0: allowed is a finite number > 0 or null"),
        ({"epochs": float("inf")}, r"engine\.epochs=inf: allowed is a finite number > 0"),
        ({"epochs": True}, r"engine\.epochs=true: allowed is a finite number"),
        ({"max_steps": 2.5}, r"engine\.max_steps=2\.5: allowed is an integer ≥ 1 or null"),
        ({"epochs": None, "max_steps": None}, r"engine\.epochs=null and engine\.max_steps=null: one of them"),
        ({"clip_norm": 0}, r"engine\.clip_norm=0: allowed is a finite number > 0 or null"),
        ({"accumulate": 0}, r"engine\.accumulate=0: allowed is an integer ≥ 1"),
        ({"label_smoothing": 1.0}, r"engine\.label_smoothing=1\.0: allowed is a finite number in \[0, 1\)"),
        ({"precision": "fp8"}, r"engine\.precision=fp8: allowed is one of fp32, bf16, fp16"),
        ({"device": "gpu"}, r"engine\.device=gpu: allowed is one of auto, cpu, cuda, mps"),
        ({"compile": "yes"}, r"engine\.compile=yes: allowed is true or false"),
        ({"eval_every": None}, r"engine\.eval_every=null: allowed are a number of steps"),
        ({"eval_every": "sometimes"}, r"engine\.eval_every=sometimes: allowed are a number of steps"),
        ({"checkpoint_every": 0}, r"engine\.checkpoint_every=0: allowed are a number of steps"),
        ({"early_stopping_patience": 0}, r"engine\.early_stopping_patience=0: allowed is an integer ≥ 1 or null"),
        ({"init_from": 3}, r"engine\.init_from=3: allowed is a string or null"),
    ],
)
def test_engine_settings_out_of_range_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        engine_settings({**shipped_engine(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"max_steps": 7},
        {"epochs": None, "max_steps": 7},
        {"epochs": 0.5},
        {"checkpoint_every": None},
        {"eval_every": 3},
    ],
)
def test_engine_settings_in_range_are_taken(change: dict[str, Any]) -> None:
    settings = engine_settings({**shipped_engine(), **change})
    assert {name: getattr(settings, name) for name in change} == change


def test_the_parsed_intervals_are_those_of_the_settings() -> None:
    settings = engine_settings({**shipped_engine(), "eval_every": 50, "checkpoint_every": "2epochs"})
    assert settings.evaluation_interval == Interval(50, "step")
    assert settings.checkpoint_interval == Interval(2, "epoch")
    assert dataclasses.replace(settings, checkpoint_every=None).checkpoint_interval is None
