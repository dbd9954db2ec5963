"""Child processes: their answers, their deaths, how many there are, and signals."""

from __future__ import annotations

import faulthandler
import os
import signal
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import GeneratorType
from typing import Any

import pytest

from optexp.records.files import in_background
from optexp.sweeps.children import Children, Died, can_fork

pytestmark = pytest.mark.skipif(not can_fork(), reason="children are forked on Linux only")


def answer(value: Any) -> Any:
    return value


def end(kind: str) -> None:
    if kind == "exit":
        os._exit(7)
    if kind == "SystemExit":
        raise SystemExit(3)
    if kind == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if kind == "raise":
        raise ArithmeticError("planted")
    faulthandler.disable()  # inherited from pytest, it would print a traceback among the results
    os.kill(os.getpid(), getattr(signal, kind))
    time.sleep(10)


def write_late(path: Path) -> None:
    time.sleep(0.2)
    path.touch()


def results(works: Sequence[Callable[[], Any]], at_most: int = 2) -> dict[int, Any]:
    return dict(Children().run(works, at_most))


def test_every_work_is_answered() -> None:
    works = [partial(answer, {"number": number, "large": "x" * 300_000}) for number in range(7)]
    assert {index: value["number"] for index, value in results(works).items()} == {n: n for n in range(7)}


@pytest.mark.parametrize(
    ("kind", "reason", "killed"),
    [
        ("exit", "the process ended with exit status 7", False),
        ("SystemExit", "the process ended with exit status 1", False),
        ("raise", "the process ended with exit status 1", False),
        ("KeyboardInterrupt", "the process ended with exit status 130", False),
        ("SIGKILL", "the process was ended by SIGKILL", True),
        ("SIGSEGV", "the process was ended by SIGSEGV", False),
        ("SIGTERM", "the process was ended by SIGTERM", False),
    ],
)
def test_a_child_that_dies_takes_nobody_along(kind: str, reason: str, killed: bool) -> None:
    found = results([partial(answer, 1), partial(end, kind), partial(answer, 2)])
    assert found == {0: 1, 1: Died(reason, killed), 2: 2}


def test_only_a_mistake_leaves_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    results([partial(end, "KeyboardInterrupt")])
    assert capfd.readouterr().err == ""
    results([partial(end, "raise")])
    assert "ArithmeticError: planted" in capfd.readouterr().err


def test_a_child_may_die_in_the_middle_of_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def send_a_part(self: Connection, answer: bytes) -> None:
        os.write(self.fileno(), struct.pack("!i", len(answer)) + answer[:-1])
        os._exit(9)

    monkeypatch.setattr(Connection, "send_bytes", send_a_part)
    assert results([partial(answer, 1)]) == {0: Died("the process ended with exit status 9", killed=False)}


def stamp(folder: Path, name: str) -> None:
    (folder / f"{name}-begins").write_text(str(time.monotonic()))
    time.sleep(0.1)
    (folder / f"{name}-ends").write_text(str(time.monotonic()))


@pytest.mark.parametrize("at_most", [1, 3])
def test_no_more_than_asked_run_at_a_time(tmp_path: Path, at_most: int) -> None:
    results([partial(stamp, tmp_path, str(number)) for number in range(6)], at_most)
    begins = sorted(float(file.read_text()) for file in tmp_path.glob("*-begins"))
    ends = sorted(float(file.read_text()) for file in tmp_path.glob("*-ends"))
    # The n-th to begin waited for the (n - at_most)-th to end.
    assert all(ends[n - at_most] <= begins[n] for n in range(at_most, 6))


def wait_for_signal(folder: Path, number: int) -> str:
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    (folder / f"ready-{number}").touch()
    while not received:
        time.sleep(0.01)
    return signal.Signals(received[0]).name


def test_signals_are_passed_on_and_nothing_begins_after_one(tmp_path: Path) -> None:
    children = Children()
    before = signal.getsignal(signal.SIGTERM)

    def interrupt() -> None:
        while len(list(tmp_path.glob("ready-*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGTERM)

    works: list[Callable[[], Any]] = [
        partial(wait_for_signal, tmp_path, 0),
        partial(wait_for_signal, tmp_path, 1),
        interrupt,
        partial(answer, 3),
    ]
    with children.passing_on_signals():
        found = dict(children.run(works, at_most=3))
    assert found[0] == found[1] == "SIGTERM"
    assert 3 not in found
    assert children.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_at_the_birth_of_a_child_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork = os.fork

    def signalled() -> int:
        process = fork()
        if process != 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(os, "fork", signalled)
    children = Children()
    with children.passing_on_signals():
        found = dict(children.run([partial(time.sleep, 20), partial(answer, 1)], at_most=1))
    assert found == {0: Died("the process was ended by SIGTERM", killed=False)}


def test_hanging_up_is_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    children = Children()
    try:
        with children.passing_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            found = dict(children.run([partial(signal.getsignal, signal.SIGHUP)], at_most=1))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (found, children.received) == ({0: signal.SIG_IGN}, None)


def leave_a_helper(file: Path, end: Callable[[], None]) -> None:
    """Start a process that would last, and holds what is open here."""
    helper = os.fork()
    if helper == 0:
        while True:
            time.sleep(60)
    file.write_text(str(helper))
    end()


def is_gone(process: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":  # nobody buries it
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (partial(os._exit, 0), Died("the process ended with exit status 0", killed=False)),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), Died("the process was ended by SIGKILL", killed=True)),
        (lambda: None, None),
    ],
)
def test_what_a_child_has_started_ends_with_it(tmp_path: Path, end: Callable[[], None], outcome: Died | None) -> None:
    assert results([partial(leave_a_helper, tmp_path / "helper", end)]) == {0: outcome}
    assert is_gone(int((tmp_path / "helper").read_text()))


@pytest.mark.parametrize("then", [0, "raise"])
def test_what_is_still_to_be_written_is_written_before_the_child_ends(tmp_path: Path, then: Any) -> None:
    def work() -> None:
        for number in range(8):
            in_background(partial(write_late, tmp_path / str(number)))
        if then == "raise":
            raise SystemExit(3)

    results([work])
    assert len(list(tmp_path.iterdir())) == 8


def test_whoever_stops_listening_leaves_no_children(tmp_path: Path) -> None:
    children = Children()
    running = children.run([partial(answer, 1), partial(wait_for_signal, tmp_path, 0)], at_most=2)
    assert isinstance(running, GeneratorType)
    assert next(running) == (0, 1)
    (process,) = [process for _, process in children._running.values()]
    running.close()
    os.waitpid(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
