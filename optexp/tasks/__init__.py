"""What is computed with a config, one task per file.

A task is a class `X` in `optexp/tasks/x.py`, made from a composed configuration and its engine settings. It raises
BadInput for whatever cannot run, before anything is on disk; its `run` does the work in a directory of its own.
`conf/task/x.yaml` names it and the config groups it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from optexp.config.check import check
from optexp.override_words import key_of

if TYPE_CHECKING:
    from optexp.config.compose import Composed
    from optexp.config.schema import Engine
    from optexp.run import Result


class Task(Protocol):
    """What is ready to run."""

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Run in the directory `path` and leave a record of it there."""


def check_composed(composed: Composed) -> Engine:
    """Check a configuration as far as this is possible without torch; returns its engine settings."""
    overridden = [key_of(word) for word in composed.overrides]
    return check(composed.config, composed.choices, overridden)


def prepare(composed: Composed) -> Task:
    """Check a configuration and prepare its task. torch is imported only after the cheap checks have passed."""
    engine = check_composed(composed)
    name = composed.config["task"]["name"]
    task = getattr(import_module(f"optexp.tasks.{name}"), name.title().replace("_", ""))
    return cast(Task, task(composed, engine))
