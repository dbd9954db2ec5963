"""The task `train`: train one model and record the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optexp.assemble import assemble
from optexp.config.compose import Composed
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.run import Result, execute


@dataclass(frozen=True)
class NoSettings:
    """What is trained, and how, stands in the other groups."""


class Train:
    """One training, refused or ready when constructed (BadInput), then run in a directory of its own."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        task_settings(NoSettings, composed.config["task"])
        self.training = assemble(composed.config, engine, composed.choices)

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Train in the directory `path`; see optexp.run.execute."""
        return execute(self.training, path, command, overrides, member)
