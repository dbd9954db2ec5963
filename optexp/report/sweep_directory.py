"""A sweep directory as reports see it: `sweep.json`, and the run directory of each member that has one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optexp.errors import BadInput
from optexp.records.reading import ABSENT, Run, differences, find_runs, read_run
from optexp.report.grouping import Setting, by_setting
from optexp.report.sweep_causes import diagnosed

SWEEP_FILE = "sweep.json"
SPLITS = ("train", "val", "test")
ENDED_WELL = ("completed", "early_stopped")


@dataclass
class Member:
    """One member: what sweep.json says of it, and its run where the directory can be read."""

    number: int
    overrides: list[str]
    swept: dict[str, Any]
    status: str
    reason: str
    run: Run | None

    def row(self) -> dict[str, Any]:
        """Return settings, ending and metrics as one flat row; the best value only of a member that ended well."""
        row: dict[str, Any] = {"#": self.number, **self.swept, "status": self.status, "reason": self.reason}
        if self.run is None:
            return row
        row |= diagnosed(self.run.info.get("outcome"), self.run.info.get("causes"))
        row |= {
            tag: value
            for tag, value in self.run.metrics.items()
            if tag.partition("/")[0] in SPLITS and value is not None and math.isfinite(value)
        }
        best = self.run.info.get("best")
        if best and self.status in ENDED_WELL:
            row[f"best {best['metric']}"] = best["value"]
        return row


@dataclass
class Sweep:
    """A sweep; `keys` are the settings that tell its members apart."""

    path: Path
    command: list[str]
    keys: list[str]
    members: list[Member]
    status: str

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of the members that have one."""
        return [member.run for member in self.members if member.run is not None]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One flat row per member, in their order."""
        return [member.row() for member in self.members]

    @cached_property
    def metric(self) -> str:
        """The column by which members are ranked: `best val/loss`, unless they looked for the best of another."""
        best = next((run.info["best"] for run in self.runs if run.info.get("best")), None)
        return f"best {best['metric']}" if best else "val/loss"

    @cached_property
    def settings(self) -> list[Setting]:
        """The rows in groups that differ in their seed only."""
        return by_setting(self.rows, self.keys)


def read_sweep(path: Path) -> Sweep:
    """Return the sweep in a directory. Raises BadInput when there is none or sweep.json cannot be read."""
    try:
        record = json.loads((path / SWEEP_FILE).read_text(encoding="utf-8"))
        command, swept = [str(word) for word in record["command"]], [str(key) for key in record["swept"]]
        entries = [
            Member(
                entry["number"],
                [str(word) for word in entry["overrides"]],
                dict(entry["swept"]),
                str(entry["status"]),
                str(entry.get("reason") or ""),
                _run_in(path / entry["directory"]),
            )
            for entry in record["members"]
        ]
    except FileNotFoundError as error:
        raise BadInput(f"{path}: is not a sweep directory (it holds no {SWEEP_FILE})") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise BadInput(f"{path / SWEEP_FILE}: cannot be read ({text})") from error
    members = entries or [
        Member(number, list(run.info.get("overrides") or []), {}, run.status, "", run)
        for number, run in enumerate(find_runs(path))
    ]
    for member in members:  # the run knows best, once there is one
        if member.run is not None:
            member.status, member.reason = member.run.status, str(member.run.info.get("reason") or "")
    keys = swept or _differing(members)
    telling = [key for key in keys if len({repr(member.swept.get(key)) for member in members}) > 1]
    return Sweep(path, command, telling, members, str(record.get("status", "")))


def _run_in(path: Path) -> Run | None:
    try:
        run = read_run(path)
        _ = run.config, run.rows
    except BadInput:  # not started yet, or lost: sweep.json has its status
        return None
    return run


def _differing(members: Sequence[Member]) -> list[str]:
    """Enter into each member the settings that differ between the runs, and return their keys."""
    having = [member for member in members if member.run is not None]
    table = differences([member.run for member in having if member.run is not None])
    for key, values in table.items():
        for member, value in zip(having, values, strict=True):
            if value != ABSENT:
                member.swept[key] = value
    return list(table)
