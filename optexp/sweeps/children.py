"""Child processes forked from a warm parent: no import is repeated, and a child that dies takes nobody along.

Only where forking is safe: on Linux, before this process has started threads or a GPU. Children form process groups
of their own, so that Ctrl-C reaches them once, through the parent, which passes on every signal that it gets. What a
child has started belongs to its group: it gets the same signals, and is ended when the child has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from types import FrameType
from typing import Any, NoReturn

from optexp.records.files import finish_writing

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Died:
    """A child that ended without an answer."""

    reason: str
    killed: bool  # by SIGKILL: most often by the system, out of memory


class Children:
    """Runs functions in child processes, at most `at_most` at a time. `received` is the first signal that came."""

    def __init__(self, while_waiting: Callable[[], None] = lambda: None) -> None:
        """`while_waiting` is called once, when children are at work and there is nothing to do but wait."""
        self._while_waiting: Callable[[], None] | None = while_waiting
        self.received: int | None = None
        self._running: dict[Connection, tuple[int, int]] = {}  # the pipe to the index of the work and the process id
        self._told: set[int] = set()  # the processes that a signal was passed on to

    def run(self, works: Sequence[Callable[[], Any]], at_most: int) -> Iterator[tuple[int, Any]]:
        """Yield (index, what the function returned or Died) as the functions end; none is begun after a signal."""
        waiting = list(enumerate(works))
        try:
            while waiting or self._running:
                while waiting and len(self._running) < at_most and self.received is None:
                    index, work = waiting.pop(0)
                    self._fork(index, work)
                if not self._running:
                    return
                if self._while_waiting is not None and waiting == [] and self.received is None:
                    self._while_waiting()
                    self._while_waiting = None
                for pipe in wait(list(self._running), timeout=1.0) or self._held_by_others():
                    assert isinstance(pipe, Connection)
                    yield self._collected(pipe)
        finally:
            for _, process in self._running.values():
                _signal_group(process, signal.SIGKILL)

    def _fork(self, index: int, work: Callable[[], Any]) -> None:
        # A signal waits until the child is known here and handles signals in its own way; else it would miss the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            receiver, sender = Pipe(duplex=False)
            sys.stdout.flush()
            sys.stderr.flush()
            parent = os.getpid()
            process = os.fork()
            if process == 0:
                receiver.close()
                self._work(work, sender, parent, before)
            with contextlib.suppress(ProcessLookupError):  # the child does it, too: who comes first is not known
                os.setpgid(process, process)
            sender.close()
            self._running[receiver] = (index, process)
            if self.received is not None and process not in self._told:  # it came by another thread, which blocks none
                self._pass_on(self.received)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _work(self, work: Callable[[], Any], sender: Connection, parent: int, unblocked: Iterable[int]) -> NoReturn:
        """Send the parent what `work` returns, and end this process, which is the child."""
        status = 1
        try:
            os.setpgid(0, 0)
            _die_with_parent(parent)
            for number in _listened():
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            for other in self._running:
                other.close()
            try:
                answer = pickle.dumps(work())
            finally:
                finish_writing()
            with contextlib.suppress(BrokenPipeError):  # the parent was killed: nobody waits for the answer
                sender.send_bytes(answer)
            status = 0
        except KeyboardInterrupt:
            status = 128 + signal.SIGINT
        except BaseException:  # noqa: BLE001 - nothing may return into the parent's code from here
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def _held_by_others(self) -> list[Connection]:
        """Return the silent pipes of children that are dead, which what they have forked still holds open."""
        dead = os.WEXITED | os.WNOHANG | os.WNOWAIT
        running = self._running.items()
        return [pipe for pipe, (_, process) in running if os.waitid(os.P_PID, process, dead) and not pipe.poll()]

    def _collected(self, pipe: Connection) -> tuple[int, Any]:
        index, process = self._running.pop(pipe)
        try:
            answer = pipe.recv_bytes() if pipe.poll() else None
        except (EOFError, OSError):  # it has died before or while it answered
            answer = None
        pipe.close()
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # until it is buried, its number stands for its group
        _signal_group(process, signal.SIGKILL if answer is None else signal.SIGTERM)
        _, status = os.waitpid(process, 0)
        if answer is not None:
            return index, pickle.loads(answer)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return index, Died(f"the process was ended by {signal.Signals(-code).name}", -code == signal.SIGKILL)
        return index, Died(f"the process ended with exit status {code}", killed=False)

    def _pass_on(self, number: int) -> None:
        """Send a signal to all children that have not got it."""
        for _, process in self._running.values():
            if process not in self._told:
                self._told.add(process)
                _signal_group(process, number)

    @contextlib.contextmanager
    def passing_on_signals(self) -> Iterator[None]:
        """Pass signals on to all children, inside the `with` block."""

        def receive(number: int, frame: FrameType | None) -> None:
            self.received = self.received or number
            self._told.clear()
            self._pass_on(number)

        before = {number: signal.signal(number, receive) for number in _listened()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listened() -> list[signal.Signals]:
    """Return the signals that end a sweep: not those this process was started to ignore, as SIGHUP under nohup."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _signal_group(process: int, number: int) -> None:
    """Send a signal to a child and to all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, number)


def can_fork() -> bool:
    return sys.platform == "linux"


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent dies, whatever kills that."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has died already
        os.kill(os.getpid(), signal.SIGTERM)
