"""What takes in the measurements of a run while it trains: a file, TensorBoard, the terminal, or a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Row = Mapping[str, float | int]
"""One logged moment: `step` (optimizer steps done), `epoch` (passes over the data, fractional), `time` (seconds
since the run began), then tags such as `train/loss`, `val/accuracy`, `optim/lr`, `time/samples_per_second`."""


class Sink(Protocol):
    """Takes rows until it is closed. The caller closes every sink, whatever ended the run."""

    def log(self, row: Row) -> None:
        """Take in one row. Steps do not decrease; two rows may share a step."""

    def flush(self) -> None:
        """Hand everything taken in to the system: a checkpoint is about to be saved, from which the run may go on."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Finish; `summary` has at least `status` and `reason`, as run.json has them."""
