"""Checkpoints after a loss of power, simulated as SQLite and ALICE do (Pillai et al., OSDI 2014).

What the system promises is little: the content of a file is on the disk after its fsync, names in a folder are after
the fsync of the folder, and before that any of the changes may have got there, in any order. So the disk is kept as a
model that knows only this, and before every call of a save all states are tried in which a machine could start again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import IO

import pytest
import torch

from optexp.engine.checkpoint import Checkpoints
from optexp.errors import BadInput

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file is synced")


class Disk:
    """What is certainly on the disk of one folder, and the changes of names that may or may not be."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.contents: dict[int, bytes] = {}  # inode to what its last fsync has saved
        self.names: dict[str, int] = {}
        self.changes: list[tuple[str, str | None, int]] = []  # (old name, new name, inode); None: deleted
        self.states: list[dict[str, bytes]] = []
        self.held: list[IO[bytes]] = []
        self._fsync, self._write, self._replace, self._unlink = os.fsync, os.write, os.replace, os.unlink
        for name in ("fsync", "write", "replace", "unlink"):
            patch.setattr(os, name, getattr(self, name))

    def fsync(self, descriptor: int) -> None:
        self.remember()
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        self._fsync(descriptor)
        if path == self.folder:
            self.names = self.after(self.changes)
            self.changes = []
        else:
            self.contents[os.fstat(descriptor).st_ino] = path.read_bytes()
            self.held.append(path.open("rb"))  # so that no other file gets its inode

    def write(self, descriptor: int, data: bytes) -> int:
        """What was there before is lost, and what is written is not yet there: the worst that can happen."""
        if Path(f"/proc/self/fd/{descriptor}").resolve().parent == self.folder:
            self.contents.pop(os.fstat(descriptor).st_ino, None)
            self.remember()
        return self._write(descriptor, data)

    def replace(self, old: str, new: str) -> None:
        self.remember()
        self.changes.append((Path(old).name, Path(new).name, os.stat(old).st_ino))
        self._replace(old, new)

    def unlink(self, path: str) -> None:
        self.remember()
        self.changes.append((Path(path).name, None, os.stat(path).st_ino))
        self._unlink(path)

    def after(self, changes: list[tuple[str, str | None, int]]) -> dict[str, int]:
        names = dict(self.names)
        for old, new, inode in changes:
            names.pop(old, None)
            if new is not None:
                names[new] = inode
        return names

    def remember(self) -> None:
        """Note every state of the disk that a loss of power at this moment may leave."""
        for count in range(len(self.changes) + 1):
            for changes in combinations(self.changes, count):
                names = self.after(list(changes))
                self.states.append({name: self.contents.get(inode, b"") for name, inode in names.items()})


def restarted(states: list[dict[str, bytes]], folder: Path) -> Iterator[Checkpoints]:
    distinct = {tuple(sorted(state.items())): state for state in states}
    for number, state in enumerate(distinct.values()):
        place = folder / str(number)
        place.mkdir(parents=True)
        for name, content in state.items():
            (place / name).write_bytes(content)
        yield Checkpoints(place)


@pytest.mark.parametrize("run_goes_on", [True, False])
def test_every_state_of_the_disk_holds_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_goes_on: bool
) -> None:
    """While a run goes on, files that no manifest names are written over; `wait` deletes them."""
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    with monkeypatch.context() as patch:
        disk = Disk(folder.resolve(), patch)
        saves = ((10, ["last", "best"]), (20, ["last"]), (30, ["last", "best"]), (40, ["best"]), (50, ["last"]))
        overwritten = []
        for step, names in (*saves, (60, ["last"])):
            if step == 20:
                disk.states.clear()  # before, there may be none
            checkpoints.save(step, {"weight": torch.full((4,), float(step))}, names)
            if run_goes_on:
                checkpoints.load("best")  # waits, too
            else:
                checkpoints.wait()
            disk.remember()
            overwritten.append(any(folder.glob(".*.tmp")))
            certain = {name for name in disk.names if disk.names[name] in disk.contents}
            assert {f"{name}.json" for name in names} <= certain, "`wait` returns when it is on the disk"
    seen = set()
    for number, found in enumerate(restarted(disk.states, tmp_path / "restarted")):
        for name in ("last", "best"):
            loaded = found.load(name)
            assert loaded is not None, (number, name)
            assert torch.equal(loaded[1]["weight"], torch.full((4,), float(loaded[0]))), (number, name)
            seen.add((name, loaded[0]))
    assert seen == {("last", step) for step in (10, 20, 30, 50, 60)} | {("best", step) for step in (10, 30, 40)}
    assert any(overwritten) == run_goes_on


def test_the_model_of_the_disk_finds_a_missing_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoints"
    with monkeypatch.context() as patch:
        disk = Disk(folder.resolve(), patch)
        fsync = disk.fsync
        patch.setattr(
            os, "fsync", lambda descriptor: None if stat.S_ISDIR(os.fstat(descriptor).st_mode) else fsync(descriptor)
        )
        checkpoints = Checkpoints(folder)
        for step in (10, 20, 30):
            checkpoints.save(step, {"weight": torch.ones(4)}, ["last"])
            checkpoints.wait()
    states = [state for state in disk.states if "last.json" in state]
    loaded = []
    for found in restarted(states, tmp_path / "restarted"):
        try:
            loaded.append(found.load("last"))
        except BadInput:
            loaded.append(None)
    assert None in loaded
