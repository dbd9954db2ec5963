"""Writing files so that a crash leaves the old or the new content under a name, and never a part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

WRITERS = 4
"""Threads that wait for the disk: it finishes several requests in hardly more time than one."""


def write_atomically(
    path: Path | str, data: bytes | memoryview, sync_name: bool = True, temporary: str | None = None
) -> None:
    """Replace the content of a file: temporary name, fsync, rename, fsync of the folder. Raises OSError.

    With `sync_name` false the last part is left to the caller, who may write several files before one `sync(folder)`.
    `temporary` is a path in the same folder; where a file is there, it is written over.
    """
    folder, name = os.path.split(path)
    temporary = temporary or os.path.join(folder, f".{name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        written = os.write(descriptor, data)
        while written < len(data):  # the system takes 2 GiB at most, and of a full disk what there is
            written += os.write(descriptor, data[written:])
        if os.fstat(descriptor).st_size > written:
            os.truncate(descriptor, written)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    if sync_name:
        sync(folder or os.curdir)


def rewrite(path: Path | str, data: bytes) -> None:
    """Replace the content of a file that is there; FileNotFoundError where it is not: that is another folder."""
    os.stat(path)
    write_atomically(path, data)


def sync(*paths: Path | str) -> None:
    """Make the content of files, and the names in folders, outlive a loss of power. Raises OSError."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def in_background(write: Callable[[], None]) -> Future[None]:
    """Have `write` called soon on another thread, with whatever else waits for the disk.

    The future tells when it has returned, and raises what it raised. The process does not end before everything is
    written, and neither does it fork: no thread is left then, so that nothing is half done in the child.
    """
    return _writers().submit(write)


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WRITERS, thread_name_prefix="writer", initializer=_interrupt_nobody)


def _interrupt_nobody() -> None:
    """Let this thread, when the disk has answered, not take the processor from one that computes (sched(7)).

    Otherwise Linux likes to let it run where training does, although another processor is idle: twice the delay.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # where it is forbidden, the delay is all that happens
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def reason(error: OSError) -> str:
    """Return in words why a file of a run that goes on could not be written."""
    gone = isinstance(error, FileNotFoundError)
    return "has been moved or deleted" if gone else str(error.strerror or error)


def finish_writing() -> None:
    """Return when everything that was given to `in_background` is written."""
    if _writers.cache_info().currsize:
        _writers().shutdown()
        _writers.cache_clear()  # the next write starts new ones


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=finish_writing)
