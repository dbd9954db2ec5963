"""The task `train`: train one model and record the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optexp.assemble import Training, assemble
from optexp.config.schema import Engine
from optexp.run import Result, execute


class Train:
    """One training, refused or ready when constructed (BadInput), then run in a directory of its own."""

    def __init__(self, config: dict[str, Any], engine: Engine, origin: str = "") -> None:
        self.training: Training = assemble(config, engine, origin)

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Train in the directory `path`; see optexp.run.execute."""
        return execute(self.training, path, command, overrides, member)
