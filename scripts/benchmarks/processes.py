"""Child processes: how long one took from start to end, and how much memory it and its descendants used."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contest import Cost

SCRIPTS = Path(__file__).parents[1]  # where the package `benchmarks` lies
SAMPLED_EVERY = 0.2  # seconds between two looks at a process tree; a look takes two milliseconds
SHARED_EVERY = 2.0  # seconds between two looks at shared pages, where a gigabyte takes twenty milliseconds


@dataclass(frozen=True)
class Ended:
    """A child that has ended: seconds from start to end, when it started (time.time), peak resident bytes."""

    seconds: float
    started: float
    peak_bytes: int

    @property
    def memory(self) -> dict[str, float]:
        """The peak as it stands in the table; nothing where it is unknown."""
        return {"peak MB": self.peak_bytes / 1e6} if self.peak_bytes else {}

    @property
    def cost(self) -> Cost:
        """Return the seconds as the cost, and the memory beside it."""
        return Cost(self.seconds, self.memory)


def run_python(arguments: Sequence[str], folder: Path, status: int = 0) -> Ended:
    """Run this Python with arguments in a folder; what it prints is kept for the error only.

    Memory is the highest among samples of the whole process tree; a short peak may be missed. (The kernel's own peak,
    ru_maxrss, is of no use here: a child begins with that of its parent.) Raises RuntimeError with the last lines of
    its output when the child ends with another exit status than `status`.
    """
    paths = [str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile() as output:
        started, start = time.time(), time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        sampler = _Sampler(child.pid)
        try:
            sampler.start()
            child.wait()
            seconds = time.perf_counter() - start
        finally:
            sampler.stop()
            if child.poll() is None:  # interrupted
                child.terminate()
                child.wait()
        if child.returncode != status:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().splitlines()[-5:]
            raise RuntimeError(f"{' '.join(arguments)} ended with status {child.returncode}: {' / '.join(last)}")
    return Ended(seconds, started, sampler.peak)


class _Sampler(threading.Thread):
    """Looks at the memory of a process tree from time to time."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._root = root
        self._ended = threading.Event()

    def run(self) -> None:
        shared_at = -SHARED_EVERY
        while not self._ended.wait(SAMPLED_EVERY):
            resident = process_tree(self._root)
            if len(resident) == 1:
                self.peak = max(self.peak, *resident.values())
            elif time.monotonic() - shared_at >= SHARED_EVERY:
                self.peak = max(self.peak, memory_of(resident))
                shared_at = time.monotonic()

    def stop(self) -> None:
        self._ended.set()
        self.join()


def process_tree(root: int) -> dict[int, int]:
    """Return a process and all its descendants with their resident memory in bytes; 0 where there is no /proc."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdigit():
            continue
        try:
            text = Path("/proc", name, "stat").read_text()
        except OSError:  # it has just ended
            continue
        fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
        parents[int(name)], pages[int(name)] = int(fields[1]), int(fields[21])
    members, grown = {root}, True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in members}
        grown = not children <= members
        members |= children
    return {pid: pages.get(pid, 0) * os.sysconf("SC_PAGE_SIZE") for pid in members}


def memory_of(resident: Mapping[int, int]) -> int:
    """Return the memory of several processes (resident bytes by process id), pages that they share counted once.

    A process's proportional set size (PSS) has a page that n processes share as 1 / n of a page.
    """
    total = 0
    for pid, number in resident.items():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended, or this system does not tell
            total += number
        else:
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total
