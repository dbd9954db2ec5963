"""Everything about a composed configuration that can be checked without importing torch.

Order matters to the reader of an error: first single values, then rules between keys.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pkgutil
import typing
from pathlib import Path
from typing import Any

from optexp.config import build, values
from optexp.config.schema import BATCH_SIZE, OPTIMIZER_ARGUMENTS, TOP_LEVEL, Engine
from optexp.errors import BadInput, listed, nearest

GROUPS_OF_A_TRAINING = ("model", "dataset", "optimizer", "schedule", "engine")


def check(config: dict[str, Any], choices: dict[str, str | None], overridden: typing.Iterable[str] = ()) -> Engine:
    """Check a composed configuration and return its engine settings.

    `choices` maps each group to the choice made (for the wording of errors); `overridden` are the keys or groups
    the user set, which must belong to groups the task reads. Raises BadInput.
    """
    overridden = list(overridden)
    _top_level(config, overridden)
    _task(config["task"], overridden)
    engine = engine_settings(config["engine"])
    _dataset(config["dataset"])
    _optimizer(config["optimizer"], choices.get("optimizer"))
    _schedule(config["schedule"])
    return engine


def _top_level(config: dict[str, Any], overridden: list[str]) -> None:
    groups = (*GROUPS_OF_A_TRAINING, "task")
    for key, value in config.items():
        if key == "experiment":  # its values were meant for other keys, and would be ignored here
            raise BadInput("experiment: its file must begin with the line '# @package _global_'")
        if key not in (*groups, *TOP_LEVEL):
            known = [*groups, *TOP_LEVEL]
            raise BadInput(f"{key}={value}: no such key{nearest(key, known)}; there are {listed(known)}")
    for group in groups:
        if not isinstance(config.get(group), dict):
            raise BadInput(f"{group}: nothing is chosen; a run needs {group}=…")
    for key, annotation in TOP_LEVEL.items():
        _value(key, config.get(key), annotation)
    if not config["output_dir"]:
        raise BadInput("output_dir=: allowed is the name of a folder")
    if config["trust"] and "trust" not in overridden:
        raise BadInput(f"trust={config['trust']}: is set in a file; allowed is the command line only: trust=[package]")


def engine_settings(node: dict[str, Any]) -> Engine:
    """Turn the engine node into its dataclass; raises BadInput for unknown keys, wrong types and ranges."""
    hints = _engine_hints()
    for name, value in node.items():
        if name not in hints:
            raise BadInput(f"engine.{name}={value}: no such key{nearest(name, hints)}; there are {listed(hints)}")
        _value(f"engine.{name}", value, hints[name])
    engine = Engine(**node)
    engine.evaluation_interval, engine.checkpoint_interval  # noqa: B018 (parsing them is the check)
    if engine.epochs is None and engine.max_steps is None:
        raise BadInput("engine.epochs=null and engine.max_steps=null: one of them must say when training ends")
    return engine


@functools.cache
def _engine_hints() -> dict[str, Any]:
    """Return the engine's keys with what each allows; worked out once, because every member of a sweep is checked."""
    hints = typing.get_type_hints(Engine, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(Engine)}


def _value(key: str, value: Any, annotation: Any) -> None:
    if not values.fits(value, annotation):
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        raise BadInput(f"{key}={shown}: allowed is {values.allowed(annotation)}")


def _task(task: dict[str, Any], overridden: list[str]) -> None:
    tasks = _task_names()
    if task.get("name") not in tasks:
        raise BadInput(f"task.name={task.get('name')}: no such task; there are {listed(tasks)}")
    reads = task.get("reads", GROUPS_OF_A_TRAINING)
    for key in overridden:
        group = key.split(".")[0]
        if group in GROUPS_OF_A_TRAINING and group not in reads:
            read = listed(reads) or "none"
            raise BadInput(f"{key}: task={task['name']} does not use the group '{group}'; it reads {read}")


@functools.cache
def _task_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules([str(Path(__file__).parents[1] / "tasks")])]


def _dataset(node: dict[str, Any]) -> None:
    if "batch_size" not in node:
        raise BadInput("dataset.batch_size must be set: a number of samples per step, or full")
    _value("dataset.batch_size", node["batch_size"], BATCH_SIZE)


def _optimizer(node: dict[str, Any], choice: str | None) -> None:
    target = str(node.get("_target_", ""))
    if node.get("differentiable") is True:
        raise BadInput("optimizer.differentiable=true: a training step updates in place; allowed is false")
    # Other libraries give other meanings to a name: AdEMAMix has alpha = 5. The learning rate is one everywhere.
    known = OPTIMIZER_ARGUMENTS if target.startswith("torch.") else {"lr": OPTIMIZER_ARGUMENTS["lr"] | None}
    for name, value in node.items():
        if name in known:
            _value(f"optimizer.{name}", value, known[name])
    if target == "torch.optim.SGD" or target == "torch.optim.sgd.SGD":
        momentum, dampening = node.get("momentum", 0), node.get("dampening", 0)
        if node.get("nesterov") and momentum == 0:
            raise BadInput("optimizer.nesterov=true: needs optimizer.momentum > 0, but it is 0")
        if node.get("nesterov") and dampening != 0:
            raise BadInput(f"optimizer.nesterov=true: needs optimizer.dampening=0, but it is {dampening}")
    if node.get("foreach") and node.get("fused"):
        raise BadInput("optimizer.foreach=true and optimizer.fused=true: choose one implementation")


def _schedule(node: dict[str, Any]) -> None:
    """Build the schedule if it is one of ours: they are plain arithmetic, so this needs no torch."""
    if str(node.get("_target_", "")).startswith("optexp.schedules."):
        target = build.locate("schedule", node["_target_"], ())
        build.check_arguments("schedule", target, build.arguments(node))
        build.call("schedule", target, **build.arguments(node))


def total_steps(engine: Engine, steps_per_epoch: float) -> int:
    """Return the number of optimizer steps of a run; engine.max_steps, when set, goes before engine.epochs."""
    if engine.max_steps is not None:
        return engine.max_steps
    assert engine.epochs is not None
    return math.ceil(engine.epochs * steps_per_epoch - 1e-9)
