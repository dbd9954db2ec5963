"""Everything about a composed configuration that can be checked without importing torch.

Order matters to the reader of an error: first single values, then rules between keys.
"""

from __future__ import annotations

import dataclasses
import math
import typing
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
    for key, annotation in TOP_LEVEL.items():
        _value(key, config.get(key), annotation)
    _task(config["task"], overridden)
    engine = engine_settings(config["engine"])
    _dataset(config["dataset"])
    _optimizer(config["optimizer"], choices.get("optimizer"))
    _schedule(config["schedule"])
    return engine


def engine_settings(node: dict[str, Any]) -> Engine:
    """Turn the engine node into its dataclass; raises BadInput for unknown keys, wrong types and ranges."""
    hints = typing.get_type_hints(Engine, include_extras=True)
    names = [field.name for field in dataclasses.fields(Engine)]
    for name, value in node.items():
        if name not in names:
            raise BadInput(f"engine.{name}={value}: no such key{nearest(name, names)}; there are {listed(names)}")
        _value(f"engine.{name}", value, hints[name])
    engine = Engine(**node)
    engine.evaluation_interval, engine.checkpoint_interval  # noqa: B018 (parsing them is the check)
    if engine.epochs is None and engine.max_steps is None:
        raise BadInput("engine.epochs=null and engine.max_steps=null: one of them must say when training ends")
    return engine


def _value(key: str, value: Any, annotation: Any) -> None:
    if not values.fits(value, annotation):
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        raise BadInput(f"{key}={shown}: allowed is {values.allowed(annotation)}")


def _task(task: dict[str, Any], overridden: typing.Iterable[str]) -> None:
    reads = task.get("reads", GROUPS_OF_A_TRAINING)
    for key in overridden:
        group = key.split(".")[0]
        if group in GROUPS_OF_A_TRAINING and group not in reads:
            raise BadInput(f"{key}: task={task['name']} does not use the group '{group}'; it reads {listed(reads)}")


def _dataset(node: dict[str, Any]) -> None:
    if "batch_size" not in node:
        raise BadInput("dataset.batch_size must be set: a number of samples per step, or full")
    _value("dataset.batch_size", node["batch_size"], BATCH_SIZE)


def _optimizer(node: dict[str, Any], choice: str | None) -> None:
    target = str(node.get("_target_", ""))
    for name, value in node.items():
        annotation = OPTIMIZER_ARGUMENTS.get(name)
        if annotation is None:
            continue
        if name == "differentiable" and value is True:
            raise BadInput("optimizer.differentiable=true: a training step updates in place; allowed is false")
        if value is None and not target.startswith("torch."):
            continue  # null may mean "the default" in optimizers that are not torch's
        _value(f"optimizer.{name}", value, annotation)
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
