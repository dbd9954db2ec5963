"""Telling whether the process that began a run is still there, so that a dead run is not shown as running."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Return what it takes to find out later whether this process still runs; see `is_alive`."""
    return {"pid": os.getpid(), "start": _start_time(os.getpid()), "boot": _boot()}


def is_alive(process: Mapping[str, Any]) -> bool | None:
    """Return whether the process described by `this_process()` runs; None when it belongs to another machine or boot.

    The start time is compared as well, because process ids are used again.
    """
    if process.get("boot") != _boot():
        return None
    pid = process.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists and is another user's
        pass
    return bool(_start_time(pid) == process.get("start"))


def _boot() -> str:
    """Return a name for this boot of this machine (and container) that does not reveal which machine it is."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: no boot id, so a reboot is told apart by the process id alone
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)).

    None for a zombie, which is dead but not yet buried by its parent, and where the system does not tell.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # from the third field on: the second, the command, may hold spaces
    return None if fields[0] == "Z" else int(fields[19])
