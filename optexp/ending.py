"""How signals end a sweep or a study while no run is training, which would take them itself."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

from optexp.errors import Exit


class Ended(SystemExit):
    """A signal, or the loss of its directory, has ended the sweep while no member was training."""


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise Ended for SIGTERM and SIGHUP in the `with` block, so that what has come out is still recorded."""

    def end(number: int, frame: object) -> NoReturn:
        raise Ended(128 + number)

    listened = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, end) for number in listened}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def status_of(stop: SystemExit | KeyboardInterrupt) -> int:
    """Return the exit status that an ending stands for."""
    if isinstance(stop, KeyboardInterrupt):
        return int(Exit.SIGINT)
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
