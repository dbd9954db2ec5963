"""metrics.jsonl: one JSON object per logged row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optexp.errors import StorageError
from optexp.records.files import write_atomically
from optexp.records.growing_file import GrowingFile
from optexp.records.sinks import Row


class MetricsFile:
    """Appends rows to a file. Numbers that are not finite become null, so that every line is valid JSON."""

    def __init__(self, path: Path) -> None:
        """Open `path` (usually `<run directory>/metrics.jsonl`) for appending. Raises StorageError."""
        self.path = path
        self._file = GrowingFile(path, _line)

    def log(self, row: Row) -> None:
        """Append one row; see `GrowingFile` for when it can be read. Raises StorageError."""
        self._file.append(dict(row))

    def truncate_after(self, step: int) -> None:
        """Drop the rows of later steps and a line that a crash cut short, so that a resumed run repeats none."""
        kept = [
            line
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            if _is_up_to(step, line)
        ]
        self._file.close()
        try:
            write_atomically(self.path, "".join(line + "\n" for line in kept).encode())
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error
        self._file = GrowingFile(self.path, _line)

    def flush(self) -> None:
        """Write what waits. Raises StorageError."""
        self._file.write()

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write what waits and close the file. Raises StorageError."""
        self._file.close()


_dumps = json.JSONEncoder(allow_nan=False).encode


def _line(row: Row) -> bytes:
    try:
        text = _dumps(row)
    except ValueError:  # nan or infinite
        text = _dumps({key: value if math.isfinite(value) else None for key, value in row.items()})
    return f"{text}\n".encode()


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
