"""Names of runs, and the resolvers with which the shipped configuration asks for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf


def slug(text: str, longest: int = 60) -> str:
    """Return text that is safe and readable as a folder name: `lr=0.1,weight_decay=0`."""
    clean = re.sub(r"[^A-Za-z0-9.,=+_-]+", "-", re.sub(r"[\[\]{}'\"]", "", text)).strip("-.")
    return clean[:longest].rstrip("-.,=") or "run"


def member_slug(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """Name a sweep member by the values of the swept keys, each under the last part of its name."""
    pairs = [word.lstrip("+~").partition("=") for word in overrides]
    return slug(",".join(f"{key.rpartition('.')[2]}={value}" for key, _, value in pairs if key in swept))


def run_name(*, _root_: Any) -> str:
    """Return the name a run's directory gets: `name`, or the experiment, or data set, model and optimizer.

    A task that is no training stands in front, and only the groups it reads follow.
    """
    choices = _root_.hydra.runtime.choices
    read = (_root_.get("task") or {}).get("reads", ("dataset", "model", "optimizer"))
    parts = [choices.get(group) for group in ("dataset", "model", "optimizer") if group in read]
    what = choices.get("experiment") or "-".join(str(part) for part in parts if part)
    task = choices.get("task", "train")
    return slug(str(_root_.get("name") or (what if task == "train" else f"{task}-{what}".strip("-"))))


def register() -> None:
    """Register the resolvers with OmegaConf (harmless when done twice)."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
