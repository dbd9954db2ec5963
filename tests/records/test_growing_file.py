"""Files that grow: what is in them when, and what a full disk or a kill leaves."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from optexp.errors import StorageError
from optexp.records import growing_file
from optexp.records.growing_file import GrowingFile


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves on."""
    now = [100.0]
    monkeypatch.setattr(growing_file.time, "monotonic", lambda: now[0])
    return now


def test_entries_are_written_when_half_a_second_has_passed(tmp_path: Path, seconds: list[float]) -> None:
    path = tmp_path / "file"
    file = GrowingFile(path, str.encode)
    contents = []
    for entry, passed in (("a", 0.0), ("b", 0.2), ("c", 0.2), ("d", 0.2), ("e", 0.49), ("f", 3.0), ("g", 0.0)):
        seconds[0] += passed
        file.append(entry)
        contents.append(path.read_text())
    assert contents == ["a", "a", "a", "abcd", "abcd", "abcdef", "abcdef"]
    file.close()
    assert path.read_text() == "abcdefg"


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.perf_counter() + 30
    while not condition():
        assert time.perf_counter() < end
        time.sleep(0.01)


def test_an_entry_that_nobody_follows_is_written_all_the_same(tmp_path: Path) -> None:
    files = [GrowingFile(tmp_path / str(number), str.encode) for number in range(3)]
    for file in files:
        for entry in "abc":
            file.append(entry)
    wait_for(lambda: all(file.path.read_text() == "abc" for file in files))
    for file in files:
        file.append("d")
    wait_for(lambda: all(file.path.read_text() == "abcd" for file in files))


def test_entries_that_wait_are_written_after_a_fork_and_by_one_process(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path / "file", str.encode)
    for entry in "abc":
        file.append(entry)
    child = os.fork()
    if child == 0:
        time.sleep(1.0)  # twice the time after which they are due
        os._exit(0)
    os.waitpid(child, 0)
    wait_for(lambda: file.path.read_text() != "a")
    file.append("d")
    file.close()
    assert file.path.read_text() == "abcd"


def test_a_file_written_from_two_threads_is_whole_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing_file, "WRITE_SECONDS", 1e-4)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    file: GrowingFile[int] = GrowingFile(tmp_path / "file", lambda number: b"%d\n" % number)
    try:
        for number in range(20000):
            file.append(number)
    finally:
        sys.setswitchinterval(before)
    file.close()
    assert file.path.read_text().split() == [str(number) for number in range(20000)]


@pytest.mark.parametrize("then", ["append", "write", "close"])
def test_what_fails_unseen_is_told_at_the_next_call_and_once(tmp_path: Path, then: str) -> None:
    file = GrowingFile(tmp_path / "file", str.encode)
    file.append("a")
    file.append("b")
    file.path.unlink()
    wait_for(lambda: file.failed)
    with pytest.raises(StorageError, match="file: has been moved or deleted"):
        file.append("c") if then == "append" else getattr(file, then)()
    file.close()
    assert file._file.closed


def test_a_file_that_was_moved_away_is_an_error(tmp_path: Path, seconds: list[float]) -> None:
    (tmp_path / "run").mkdir()
    file = GrowingFile(tmp_path / "run" / "file", str.encode)
    file.append("a")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    seconds[0] += 1
    with pytest.raises(StorageError, match="run/file: has been moved or deleted"):
        file.append("b")
    file.close()
    assert (tmp_path / "elsewhere" / "file").read_text() == "a"


def test_an_entry_is_encoded_once_and_in_order(tmp_path: Path, seconds: list[float]) -> None:
    encoded = []

    def encode(number: int) -> bytes:
        encoded.append(number)
        return b"%d\n" % number

    file = GrowingFile(tmp_path / "file", encode)
    for number in range(10):
        file.append(number)
    file.write()
    file.write()
    file.close()
    assert encoded == list(range(10))
    assert (tmp_path / "file").read_text().split() == list("0123456789")


def test_a_new_file_must_not_exist(tmp_path: Path) -> None:
    GrowingFile(tmp_path / "file", str.encode, new=True).close()
    with pytest.raises(StorageError, match="File exists"):
        GrowingFile(tmp_path / "file", str.encode, new=True)
    file = GrowingFile(tmp_path / "file", str.encode)
    file.append("more")
    file.close()


def test_nothing_follows_an_entry_that_was_cut_short(tmp_path: Path, seconds: list[float]) -> None:
    """The system takes a part of a write when the limit is reached within it, like a disk that gets full."""
    path = tmp_path / "file"
    file = GrowingFile(path, str.encode)
    file.append("first line\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, hard))
    try:
        seconds[0] += 1
        with pytest.raises(StorageError, match="file: File too large"):
            file.append("second line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text() == "first line\nseco"
    assert file.failed
    seconds[0] += 1
    with pytest.raises(StorageError, match="could not be written before"):
        file.append("third line\n")
    file.close()  # has nothing new to say
    assert path.read_text() == "first line\nseco"


def test_a_failure_at_the_end_is_not_lost(seconds: list[float]) -> None:
    file = GrowingFile(Path("/dev/full"), str.encode)
    seconds[0] = -1.0  # so that nothing is due
    file.append("x")
    with pytest.raises(StorageError, match="/dev/full: No space left on device"):
        file.close()
    assert file._file.closed


KILLED = """
import os, signal, sys
from pathlib import Path
from optexp.records.metrics_file import MetricsFile
file = MetricsFile(Path(sys.argv[1]))
for step in range(1, 20001):
    file.log({"step": step, "train/loss": 1 / step})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_whole_lines_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    lines = path.read_text().splitlines(keepends=True)
    assert 1 <= len(lines) <= 20000
    assert all(line.startswith(f'{{"step": {step}, ') and line.endswith("}\n") for step, line in enumerate(lines, 1))
