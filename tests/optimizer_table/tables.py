"""A small table of optimizers as `table_of` returns it, without training anything."""

from __future__ import annotations

from typing import Any


def row(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "optimizer": name,
        "default_lr": 0.01,
        "lr": 0.1,
        "final": {"estimate": 0.96, "low": 0.95, "high": 0.97, "level": 0.95, "n": 5, "method": "t"},
        "finals": [0.95, 0.97],
        "window": {"decades": 1.25, "low": 0.01, "high": 0.178, "open_low": False, "open_high": False},
        "curve": {"rates": [0.01, 0.1, 1.0], "values": [0.9, 0.96, None]},
        "steps_to_target": 40.0,
        "reached": 5,
        "state_bytes_per_parameter": 4.0,
        "peak_bytes_per_parameter": 6.5,
        "seconds_per_step": 3e-4,
        "time_ratio": {"median": 1.25, "low": 1.2, "high": 1.31},
        "remarks": [],
    } | changes


def table(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "setting": {
            "model": "mlp",
            "dataset": "digits",
            "schedule": "cosine",
            "parameters": 26122,
            "batch_size": 32,
            "steps": 197,
            "device": "cpu (1 thread)",
            "threads": 1,
        },
        "metric": "val/accuracy",
        "lower_is_better": False,
        "tolerance": 0.1,
        "target": 0.92,
        "target_tolerance": 0.05,
        "eval_every": 5,
        "rates": 9,
        "rates_per_decade": 2,
        "tuning_seeds": [1000, 1001],
        "seeds": [0, 1, 2, 3, 4],
        "level": 0.95,
        "repeats": 15,
        "runs": 54,
        "optimizers": list(rows),
    } | changes


NOTHING: dict[str, Any] = {
    "lr": None,
    "final": None,
    "finals": [],
    "window": None,
    "curve": {"rates": [0.01, 0.1, 1.0], "values": [None, None, None]},
    "steps_to_target": None,
    "reached": 0,
    "state_bytes_per_parameter": None,
    "peak_bytes_per_parameter": None,
    "seconds_per_step": None,
    "time_ratio": None,
    "remarks": ["no learning rate of its grid brought all runs to an end"],
}
"""What a row has in place of numbers when nothing could be measured."""
