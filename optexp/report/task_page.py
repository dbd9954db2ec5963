"""What the page of a task that is no training says: its answer, its main numbers, its figures and its tables.

A task that has an answer hands it over in result.json: `headline`, a sentence, and `sections`, a list of mappings that
the page shows in order, each with what it needs of
- `heading`
- `notes`: sentences to be read first
- `table`: headings, and rows of texts
- `commands`: pairs of what a command does and its line
- `picture`: the name of a file in `figures`
- `caption`.

Of a task with sections the page names the tables in files, which hold every digit, and does not show them again.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optexp.errors import BadInput
from optexp.records.numbers import duration
from optexp.records.reading import Run
from optexp.records.run_directory import CONFIG_FILE, RESULT_FILE
from optexp.report.parts import number, provenance

LONGEST_TABLE = 60
"""Rows that a page shows of a file; the file beside it has all."""

NARROWEST = 600
"""CSS pixels below which no picture shrinks: its text could not be read. A phone scrolls it."""

Picture = tuple[str, str, int]


def task_content(run: Run) -> dict[str, Any]:
    """Return what the template of a task shows, from whatever the task has left in its directory."""
    result = _result(run.path)
    pictures = {file.name: _picture(file) for file in sorted((run.path / "figures").glob("*.png"))}
    sections = [_section(entry, pictures) for entry in result.get("sections") or []]
    tables = sorted(run.path.glob("*.csv"))
    return {
        "name": run.path.resolve().name,
        "task": str(run.info.get("task")),
        "status": run.status,
        "reason": run.info.get("reason") or "",
        "progress": f"in {duration(run.wall_time)}",
        "metrics": [(tag, number(value)) for tag, value in run.metrics.items()],
        "headline": str(result.get("headline") or ""),
        "sections": sections,
        "pictures": list(pictures.values()),
        "tables": [] if sections else [_table(file) for file in tables],
        "files": [file.name for file in tables],
        "overrides": [str(word) for word in run.info.get("overrides") or []],
        "config": (run.path / CONFIG_FILE).read_text(encoding="utf-8", errors="replace"),
        "command": str(run.info.get("command") or ""),
        "provenance": provenance([run]),
    }


def _result(path: Path) -> Mapping[str, Any]:
    """Return the content of result.json, nothing of a task that has left none. Raises BadInput."""
    file = path / RESULT_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read ({error})") from error
    return content if isinstance(content, Mapping) else {}


def _section(entry: Mapping[str, Any], pictures: dict[str, Picture]) -> dict[str, Any]:
    """Return a section with every key; its picture is taken out of `pictures`."""
    absent: dict[str, Any] = {"heading": "", "notes": [], "table": None, "commands": [], "caption": ""}
    return {**absent, **entry, "picture": pictures.pop(entry.get("picture", ""), None)}


def _picture(file: Path) -> Picture:
    """Return a picture's name, its content as a data URI (the page is one file), and its least width on a screen."""
    content = file.read_bytes()
    pixels = int.from_bytes(content[16:20], "big")  # the header of a PNG
    name, source = file.stem.replace("_", " "), f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return name, source, min(pixels // 2, NARROWEST)


def _table(file: Path) -> dict[str, Any]:
    with file.open(newline="", encoding="utf-8", errors="replace") as lines:
        heading, *rows = list(csv.reader(lines)) or [[]]
    return {"name": file.name, "table": (heading, rows[:LONGEST_TABLE]), "left_out": len(rows[LONGEST_TABLE:])}
