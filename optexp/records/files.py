"""Writing files so that a crash leaves the old or the new content under a name, and never a part."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

WRITERS = 4
"""Threads that wait for the disk: it finishes several requests in hardly more time than one."""


def write_atomically(path: Path | str, data: bytes | memoryview, sync_name: bool = True) -> None:
    """Replace the content of a file: temporary name, fsync, rename, fsync of the folder. Raises OSError.

    With `sync_name` false the last part is left to the caller, who may write several files before one `sync(folder)`.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        written = os.write(descriptor, data)
        while written < len(data):  # the system takes 2 GiB at most, and of a full disk what there is
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    if sync_name:
        sync(folder or os.curdir)


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
    return ThreadPoolExecutor(WRITERS, thread_name_prefix="writer")


def _stop_writers() -> None:
    if _writers.cache_info().currsize:
        _writers().shutdown()
        _writers.cache_clear()  # the next write starts new ones


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_stop_writers)
