"""Files that grow while a run goes on: metrics and events."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from optexp.errors import StorageError

WRITE_SECONDS = 0.5
"""Entries that follow each other faster than this are encoded and written together.

Between two steps of a training that takes 50 µs for one entry, because nothing of it is in the caches of the processor,
and 8 µs for every further one. A thread would not make it less: it holds Python's lock meanwhile.
"""

Entry = TypeVar("Entry")


class GrowingFile(Generic[Entry]):
    """A file to which entries are added, and which never holds a part of one with others behind it.

    Entries are written as soon as the last writing was half a second ago: one that comes alone at once, those of a
    quick succession together, the rest of them at `close`. So a process that is killed loses those of half a second.
    When the disk is full, the last entry may be cut short and nothing more is added.
    """

    def __init__(self, path: Path, encode: Callable[[Entry], bytes], new: bool = False) -> None:
        """Open `path` for appending; `new` means that it must not exist yet. Raises StorageError."""
        self.path = path
        self._encode = encode
        self._waiting: list[Entry] = []
        self._next_write = 0.0
        self.failed = False
        try:
            self._file = path.open("xb" if new else "ab", buffering=0)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error

    def append(self, entry: Entry) -> None:
        """Add an entry, which must not change any more. Raises StorageError, and does so again once it has `failed`."""
        self._waiting.append(entry)
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write all entries that wait. Raises StorageError."""
        if self.failed:
            raise StorageError(f"{self.path}: could not be written before")
        entries, self._waiting = self._waiting, []
        data = b"".join(map(self._encode, entries))
        try:
            while data:  # a full disk takes a part, and says why at the next call
                data = data[self._file.write(data) :]
        except OSError as error:
            self.failed = True
            raise StorageError(f"{self.path}: {error.strerror}") from error
        self._next_write = time.monotonic() + WRITE_SECONDS

    def close(self) -> None:
        """Write what waits and close the file. Raises StorageError, but not for a failure that was raised before."""
        try:
            if not self.failed:
                self.write()
        finally:
            self._file.close()
