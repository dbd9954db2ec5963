"""`sweep.json`: which members a sweep has, which train together, with their overrides, directories and ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optexp.config.resolvers import member_slug
from optexp.errors import BadInput, StorageError
from optexp.records.console import relative
from optexp.records.files import reason, rewrite
from optexp.records.provenance import config_hash
from optexp.records.reading import read_run
from optexp.records.run_directory import RUN_FILE, SWEEP_FILE, RunRecord

GOOD_ENDS = ("completed", "early_stopped", "diverged")
"""How members end that need no further training: one that diverged has told what it had to tell."""


@dataclass
class MemberRecord:
    """One member: its number, overrides, directory below the sweep's, values of the swept keys, and its end.

    `program` is the plan of what trains together: members with the same number train in one program, and None is for
    those that train alone. A member that goes on in another way, after its program was lost, has what it went on in.
    `exit_status` is what a task that is no training would have ended with alone, such as a failed audit; `outcome` is
    that of the diagnosis of a training, `causes` are those it found, the likeliest first.
    """

    number: int
    overrides: list[str]
    directory: str
    swept: dict[str, Any]
    status: str = "not started"
    reason: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    program: int | None = None
    exit_status: int = 0
    outcome: str | None = None
    causes: list[str] = field(default_factory=list)


@dataclass
class SweepRecord:
    """The content of sweep.json."""

    command: list[str]
    swept: list[str]
    members: list[MemberRecord]
    status: str = "running"

    def create(self, folder: Path) -> None:
        """Write a new sweep's sweep.json, exclusively: of two sweeps given the same folder only one can own it.

        Raises BadInput when the folder holds a sweep or a run already, StorageError when it cannot be written.
        """
        for run in folder.glob(f"*/{RUN_FILE}"):
            raise BadInput(
                f"hydra.sweep.dir={relative(folder)}: already holds the run {run.parent.name}; name another directory"
            )
        try:
            (folder / SWEEP_FILE).open("x").close()
        except FileExistsError:
            raise BadInput(
                f"hydra.sweep.dir={relative(folder)}: already holds a sweep; name another directory"
            ) from None
        except OSError as error:
            raise StorageError(f"cannot write {folder / SWEEP_FILE}: {error.strerror}") from error
        self.write(folder)

    def write(self, folder: Path) -> None:
        """Rewrite sweep.json in one piece; raises StorageError, also when it is gone."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        try:
            rewrite(folder / SWEEP_FILE, text.encode())
        except OSError as error:
            raise StorageError(f"cannot write {folder / SWEEP_FILE}: {reason(error)}") from error

    @classmethod
    def read(cls, folder: Path) -> SweepRecord:
        content = json.loads((folder / SWEEP_FILE).read_text(encoding="utf-8"))
        return cls(**{**content, "members": [MemberRecord(**member) for member in content["members"]]})


def note_end(member: Path, status: str, reason: str | None) -> None:
    """Enter how a member ended into the sweep.json above its directory, if there is one.

    Members may run in several processes: a lock on the folder lets them write one after the other.
    """
    folder = os.open(member.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        record = SweepRecord.read(member.parent)
        for entry in record.members:
            if entry.directory == member.name:
                entry.status, entry.reason = status, reason
        record.write(member.parent)
    except FileNotFoundError:  # a sweep that was not started by optexp's command line
        return
    finally:
        os.close(folder)


def record_failure(
    member: Path, config: Mapping[str, Any], command: Sequence[str], overrides: Sequence[str], reason: str
) -> None:
    """Record in a member's directory that it failed, whether it has begun a record of its own or not.

    Raises StorageError.
    """
    if (member / RUN_FILE).exists():
        with contextlib.suppress(BadInput):  # into a record that cannot be read nothing can be entered either
            RunRecord(member, read_run(member).info).finish("failed", reason)
        return
    try:
        member.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"{member}: {error.strerror}") from error
    info = {"seed": config["seed"], "overrides": list(overrides), "config_hash": config_hash(config)}
    RunRecord.create(member, config, command, info).finish("failed", reason)


def member_directory(number: int, overrides: Sequence[str], swept: Sequence[str]) -> str:
    """Return the name of a member's directory: its number and the values of the swept keys."""
    return f"{number}-{member_slug(overrides, swept)}"
