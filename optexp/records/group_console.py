"""The progress of runs that are trained in one program: a line now and then, and one for each surprise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from optexp.records.console import say
from optexp.records.numbers import duration, measured
from optexp.records.sinks import Row

SECONDS_BETWEEN_LINES = 5.0


class GroupConsole:
    """Prints a line every few seconds, one at the end, and one for every member that does not simply complete.

    `name` begins every line of the group: `members 0-31`.
    """

    def __init__(self, total_steps: int, name: str, members: int) -> None:
        self.members = members
        self._total_steps = total_steps
        self._name = name
        self._latest: dict[str, dict[str, float | int]] = {}  # by title; of the members that go on
        self._printed = 0.0  # seconds since the runs began

    def member(self, title: str) -> MemberLines:
        """Return the sink of one member."""
        return MemberLines(self, title)

    def log(self, title: str, row: Row) -> None:
        """Take in a member's row; print when it is time and all members have come to the same step."""
        self._latest.setdefault(title, {}).update(row)
        if row["time"] - self._printed < SECONDS_BETWEEN_LINES and row["step"] < self._total_steps:
            return
        if {latest["step"] for latest in self._latest.values()} == {row["step"]}:
            self._printed = row["time"]
            step = f"step {int(row['step'])}/{self._total_steps}"
            say(f"{self._name}  {step}  {self._losses()}  {duration(row['time'])}")

    def close(self, title: str, status: str, reason: str | None) -> None:
        """Take in how a member ended."""
        self._latest.pop(title, None)
        if status != "completed":
            say(f"{title}  {status.replace('_', ' ')}  {reason or ''}".rstrip())

    def _losses(self) -> str:
        tag = "val/loss" if all("val/loss" in latest for latest in self._latest.values()) else "train/loss"
        found = (latest.get(tag, math.nan) for latest in self._latest.values())
        losses = sorted(loss for loss in found if math.isfinite(loss))
        if not losses:
            return f"{len(self._latest)} members"
        middle = f"median {measured(statistics.median(losses))}, best {measured(losses[0])}"
        return f"{tag.replace('/', ' ')} {middle} of {len(losses)}"


class MemberLines:
    """One member's view of the group's console."""

    def __init__(self, group: GroupConsole, title: str) -> None:
        self._group = group
        self._title = title

    def log(self, row: Row) -> None:
        self._group.log(self._title, row)

    def flush(self) -> None:
        """What is to be seen has been shown."""

    def close(self, summary: Mapping[str, Any]) -> None:
        self._group.close(self._title, str(summary["status"]), summary.get("reason"))
