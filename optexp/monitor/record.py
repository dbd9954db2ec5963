"""The directory of a watched training: the same files as a run's, so that the verbs that read runs read it."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from optexp.errors import BadInput, StorageError
from optexp.records import provenance
from optexp.records.files import write_atomically
from optexp.records.metrics_file import MetricsFile
from optexp.records.reading import flat
from optexp.records.run_directory import CONFIG_FILE, CONFIG_HEADER, METRICS_FILE, RunRecord, config_text
from optexp.records.sinks import Row, Sink
from optexp.records.tensorboard import TensorBoard

APART = ("ledger/", "layer/", "probe/")
"""Tags that are for those who read the rows, and not in the summary of a run."""


class Record:
    """Writes rows as they come. What cannot be written costs a warning and not the training."""

    def __init__(self, path: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Make `path` the directory of a run that goes on. Raises BadInput when it cannot be, or is one already.

        `config` has the settings by group, as plain values, `facts` what belongs into run.json.
        """
        self.path = path
        self._config = config
        command = [Path(sys.executable or "python").name, *sys.argv]
        try:
            path.mkdir(parents=True, exist_ok=True)
            info = {**facts, "environment": provenance.environment(threads=torch.get_num_threads())}
            self._run = RunRecord.create(path, config, command, info)
            events = TensorBoard(path / "tensorboard", flat(config), config_text(config), " ".join(command))
            self._sinks: list[Sink] = [MetricsFile(path / METRICS_FILE), events]
        except OSError as error:
            raise BadInput(f"log_dir={path}: cannot be written ({error.strerror})") from error
        except StorageError as error:
            raise BadInput(f"log_dir={path}: cannot be written ({error})") from error
        self._latest: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._ended = False  # closed, or given up

    def log(self, row: Row) -> None:
        """Write a row."""
        self._latest |= row
        if row.get("val/loss", math.inf) < self._best.get("val/loss", math.inf):
            self._best = dict(row)
        for sink in self._sinks:
            self._attempt(partial(sink.log, row))

    def flush(self) -> None:
        """Write what waits."""
        for sink in self._sinks:
            self._attempt(sink.flush)

    def close(self, status: str, reason: str | None, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Enter how it ended; `config` and `facts` are what is known by now."""
        self._attempt(partial(self._close, status, reason, config, facts))
        self._ended = True

    def _close(self, status: str, reason: str | None, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        for sink in self._sinks:
            sink.close({"status": status, "reason": reason})
        if config != self._config:
            write_atomically(self.path / CONFIG_FILE, (CONFIG_HEADER + config_text(config)).encode())
        metrics = {tag: value for tag, value in self._latest.items() if "/" in tag and not tag.startswith(APART)}
        best = {"metric": "val/loss", "value": self._best["val/loss"], **self._best} if self._best else None
        last, seconds = int(self._latest.get("step", 0)), self._latest.get("time", 0.0)
        self._run.finish(status, reason, last_step=last, wall_time=seconds, metrics=metrics, best=best, **facts)

    def _attempt(self, write: Callable[[], None]) -> None:
        if self._ended:
            return
        try:
            write()
        except (OSError, StorageError) as error:
            self._ended = True
            warnings.warn(f"optexp.Monitor records no further: {error}", RuntimeWarning, stacklevel=2)
