"""Files that grow while a run goes on: metrics and events."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from optexp.errors import StorageError
from optexp.records.files import reason

WRITE_SECONDS = 0.5
"""Entries that follow each other faster than this are encoded and written together.

Between two steps of a training that takes 50 µs for one entry, because nothing of it is in the caches of the processor,
and 8 µs for every further one. A thread would not make it less: it holds Python's lock meanwhile.
"""

Entry = TypeVar("Entry")


class GrowingFile(Generic[Entry]):
    """A file to which entries are added, and which never holds a part of one with others behind it.

    Entries are written as soon as the last writing was half a second ago: one that comes alone at once, those of a
    quick succession together, whether or not another one follows them. So a process that is killed loses those of half
    a second. When the disk is full, the last entry may be cut short and nothing more is added. When the file is no
    longer under its name, because its folder was moved or deleted, that is an error, too.
    """

    def __init__(self, path: Path, encode: Callable[[Entry], bytes], new: bool = False) -> None:
        """Open `path` for appending; `new` means that it must not exist yet. Raises StorageError."""
        self.path = path
        self.next_write = 0.0  # on the clock of time.monotonic
        self.failed = False
        self._encode = encode
        self._waiting: list[Entry] = []
        self._lock = threading.Lock()  # held while entries are added or written
        self._untold: Exception | None = None  # a failure that nobody has been told of yet
        try:
            self._file = path.open("xb" if new else "ab", buffering=0)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error

    def append(self, entry: Entry) -> None:
        """Add an entry, which must not change any more. Raises StorageError, and does so again once it has `failed`."""
        with self._lock:
            self._waiting.append(entry)
        if self.failed or time.monotonic() >= self.next_write:
            self.write()
        elif len(self._waiting) == 1:
            _late.add(self)

    def write(self) -> None:
        """Write all entries that wait. Raises StorageError."""
        with self._lock:
            if self.failed:
                problem, self._untold = self._untold, None
                raise problem or StorageError(f"{self.path}: could not be written before")
            self._write()

    def write_late(self) -> None:
        """Write as `write` does, on another thread: the next call of another method raises what this one meets."""
        with self._lock:
            if self._waiting and not self.failed:
                try:
                    self._write()
                except Exception as error:  # noqa: BLE001 - it is raised where somebody can act on it
                    self.failed, self._untold = True, error

    def _write(self) -> None:
        entries, self._waiting = self._waiting, []
        data = b"".join(map(self._encode, entries))
        try:
            os.stat(self.path)  # an open file can be written to wherever it has gone
            while data:  # a full disk takes a part, and says why at the next call
                data = data[self._file.write(data) :]
        except OSError as error:
            self.failed = True
            raise StorageError(f"{self.path}: {reason(error)}") from error
        self.next_write = time.monotonic() + WRITE_SECONDS

    def close(self) -> None:
        """Write what waits and close the file. Raises StorageError, but not for a failure that was raised before."""
        try:
            if self._untold is not None or not self.failed:
                self.write()
        finally:
            self._file.close()


class _Late:
    """Writes the entries that nobody followed when they were due, on a thread of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._files: set[GrowingFile[Any]] = set()
        self._thread: threading.Thread | None = None

    def add(self, file: GrowingFile[Any]) -> None:
        """Have a file written when it is due."""
        with self._changed:
            self._files.add(file)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="late entries", daemon=True)
                self._thread.start()
            elif len(self._files) == 1:
                self._changed.notify()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                if self._thread is not me:
                    return
                now = time.monotonic()
                due = [file for file in self._files if file.next_write <= now]
                if not due:
                    soonest = min((file.next_write for file in self._files), default=None)
                    self._changed.wait(None if soonest is None else soonest - now)
                self._files.difference_update(due)
            for file in due:
                file.write_late()

    def stop(self) -> None:
        """End the thread, before a fork: the child gets none of the parent's threads and none of its files."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None:
            thread.join()

    def forget(self) -> None:
        self._files.clear()

    def go_on(self) -> None:
        for file in list(self._files):
            self.add(file)


_late = _Late()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_late.stop, after_in_child=_late.forget, after_in_parent=_late.go_on)
