"""metrics.jsonl: one JSON object per logged row, on the disk as soon as it is logged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optexp.errors import StorageError
from optexp.records.files import write_atomically
from optexp.records.sinks import Row


class MetricsFile:
    """Appends rows to a file. Numbers that are not finite become null, so that every line is valid JSON."""

    def __init__(self, path: Path) -> None:
        """Open `path` (usually `<run directory>/metrics.jsonl`) for appending. Raises StorageError."""
        self.path = path
        try:
            self._file = path.open("a", buffering=1, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error

    def log(self, row: Row) -> None:
        """Append one row: a single write of a whole line. Raises StorageError."""
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        try:
            self._file.write(json.dumps(finite) + "\n")
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error

    def truncate_after(self, step: int) -> None:
        """Drop the rows of later steps and a line that a crash cut short, so that a resumed run repeats none."""
        kept = [
            line
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            if _is_up_to(step, line)
        ]
        try:
            self._file.close()
            write_atomically(self.path, "".join(line + "\n" for line in kept).encode())
            self._file = self.path.open("a", buffering=1, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error

    def close(self, summary: Mapping[str, Any]) -> None:
        """Close the file. Raises StorageError."""
        try:
            self._file.close()
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error


def parse_row(line: str) -> dict[str, float] | None:
    """Return the row in a line of metrics.jsonl, null as nan; None when a crash cut the line short."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return {key: math.nan if value is None else value for key, value in row.items()}


def _is_up_to(step: int, line: str) -> bool:
    row = parse_row(line)
    return row is not None and row["step"] <= step
