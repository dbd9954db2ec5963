"""What is planted: runs with one known fault each, and healthy runs, of three model families.

The lists are data, in a YAML file for each family: `common` words of all its runs, its optimizers at their good
learning rates (found by a sweep; whatever lies within a factor 3 of one counts as good), healthy arms, and arms by
cause. An arm is the name of an optimizer and the override words that it adds. What counts as a right answer is fixed
here, before any run is diagnosed: the cause an arm stands under, and causes that its `also` names because they are
just as true of it. Those that its `part` names are true of a smaller part of the fault: they are right as findings,
which counts for the confidence in them, and wrong as the first one.
"""

from __future__ import annotations

import math
import shlex
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FAMILIES = ("mlp", "resnet", "transformer")
FITTED = ("mlp", "resnet")
"""Thresholds and confidences may be fitted on these; the other family is looked at once, at the end."""

SEEDS = {"first": 0, "calibration": 20_000, "fresh": 40_000}
"""Sets of seeds, and what is added to those of an arm. The rules of the diagnosis were made with the runs of the first
one in view; confidences are fitted on the second; of the third no run was looked at before everything was done."""

HEALTHY = "healthy"
FEWEST_FAULTY, FEWEST_HEALTHY = 6, 60

STEP_CAUSES = ("step-too-small", "step-too-large", "dampened-momentum")
"""Causes whose size is known: how far the effective learning rate is from the good one, in decades."""

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Plant:
    """One run to be made. `cause` is None for a healthy one; `right` holds every cause that counts as a right answer,
    `part` those that are right behind one of these.

    `decades` is the true distance of the effective learning rate from the good one (negative: too small), where the
    fault is a step of the wrong size. `reference` marks the runs that others of their optimizer are compared with.
    See `harm.counted` for `twin`.
    """

    family: str
    kind: str  # the name of the optimizer in the family's list
    arm: str
    seed: int
    words: tuple[str, ...]
    cause: str | None
    right: frozenset[str]
    decades: float | None
    reference: bool = False
    part: frozenset[str] = frozenset()
    twin: str | None = None  # the arm that must be healthy for this one to be what it is said to be

    @property
    def name(self) -> str:
        """A name for people and for the run directory: `step-too-small-sgd-lr=1e-4-s17`."""
        arm = self.arm.replace("optimizer.", "").replace("schedule.", "").replace("engine.", "")
        arm = arm.replace("model._target_=planted_faults.", "").replace("dataset._target_=planted_faults.", "")
        return f"{self.cause or HEALTHY}-{arm.replace(' ', ',')}-s{self.seed}"


def read_lists(family: str) -> dict[str, Any]:
    """Return the content of a family's file."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{family}.yaml").read_text())
    return content


@cache
def plants(family: str, seeds: str = "first") -> tuple[Plant, ...]:
    """Return all plants of a family with one of the sets of seeds, the healthy ones first."""
    lists = read_lists(family)
    made: list[Plant] = []

    def add(cause: str | None, arm: Any, number: int, **more: Any) -> None:
        made.extend(_of_arm(family, lists, cause, arm, number, SEEDS[seeds], **more))

    for kind in lists["optimizers"]:
        add(None, kind, lists["reference_seeds"], reference=True)
    for arm in lists["healthy"]:
        add(None, arm, lists["healthy_seeds"])
    for cause, arms in lists["faults"].items():
        for arm in arms:
            if cause != "late-oscillation":
                add(cause, arm, lists["faulty_seeds"])
                continue
            twin = f"{arm} schedule=cosine"
            add(None, twin, lists["faulty_seeds"])
            add(cause, f"{arm} schedule=constant", lists["faulty_seeds"], twin=twin)
    return tuple(made)


def _of_arm(
    family: str,
    lists: dict[str, Any],
    cause: str | None,
    arm: Any,
    number: int,
    offset: int,
    reference: bool = False,
    twin: str | None = None,
) -> Iterator[Plant]:
    """Yield an arm's plants, one for each seed. The seeds depend on the arm and on nothing that stands beside it."""
    also: list[str] = []
    part: list[str] = []
    if isinstance(arm, dict):
        arm, also, part = arm["arm"], arm.get("also", []), arm.get("part", [])
    kind, *own = shlex.split(arm)
    good = [*lists["common"], *shlex.split(lists["optimizers"][kind])]
    words = merged([*good, *own])
    decades = None
    if cause in STEP_CAUSES:
        decades = math.log10(effective_lr(words) / effective_lr(merged(good)))
    first = zlib.crc32(f"{cause} {arm}".encode()) % 10_000 + offset
    for seed in range(first, first + number):
        right = frozenset([cause, *also]) if cause else frozenset()
        own = [*words, f"seed={seed}"]
        yield Plant(family, kind, arm, seed, tuple(own), cause, right, decades, reference, frozenset(part), twin)


def merged(words: list[str]) -> tuple[str, ...]:
    """Return the words with the last one of each key only, in the place of the first."""
    kept: dict[str, str] = {}
    for word in words:
        kept[word.lstrip("+~").partition("=")[0]] = word
    return tuple(kept.values())


def effective_lr(words: tuple[str, ...]) -> float:
    """Return lr · (1 - dampening) / (1 - momentum) as the words set it; for adaptive rules the learning rate itself."""
    values = dict(word.partition("=")[::2] for word in words)
    lr = float(values["optimizer.lr"])
    if values["optimizer"] not in ("sgd", "momentum", "nesterov"):
        return lr
    momentum = float(values.get("optimizer.momentum", 0.9))
    return lr * (1 - float(values.get("optimizer.dampening", 0))) / (1 - momentum)
