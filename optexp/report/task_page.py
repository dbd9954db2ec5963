"""What the page of a task that is no training says: its main numbers, its figures and its tables."""

from __future__ import annotations

import base64
import csv
from pathlib import Path
from typing import Any

from optexp.records.numbers import duration
from optexp.records.reading import Run
from optexp.records.run_directory import CONFIG_FILE
from optexp.report.parts import number, provenance

LONGEST_TABLE = 60
"""Rows that a page shows of a file; the file beside it has all."""


def task_content(run: Run) -> dict[str, Any]:
    """Return what the template of a task shows, from whatever the task has left in its directory."""
    return {
        "name": run.path.resolve().name,
        "task": str(run.info.get("task")),
        "status": run.status,
        "reason": run.info.get("reason") or "",
        "progress": f"in {duration(run.wall_time)}",
        "metrics": [(tag, number(value)) for tag, value in run.metrics.items()],
        "pictures": [_picture(file) for file in sorted((run.path / "figures").glob("*.png"))],
        "tables": [_table(file) for file in sorted(run.path.glob("*.csv"))],
        "overrides": [str(word) for word in run.info.get("overrides") or []],
        "config": (run.path / CONFIG_FILE).read_text(encoding="utf-8", errors="replace"),
        "command": str(run.info.get("command") or ""),
        "provenance": provenance([run]),
    }


def _picture(file: Path) -> tuple[str, str]:
    """Return a picture's name and its content as a data URI: the page is one file."""
    return file.stem.replace("_", " "), f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _table(file: Path) -> dict[str, Any]:
    with file.open(newline="", encoding="utf-8", errors="replace") as lines:
        heading, *rows = list(csv.reader(lines)) or [[]]
    return {"name": file.name, "table": (heading, rows[:LONGEST_TABLE]), "left_out": len(rows[LONGEST_TABLE:])}
