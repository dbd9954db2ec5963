"""Run the command line from a test: here, or in a process of its own where the boundary between processes matters."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from environments import clean_environ

from optexp.cli import main
from optexp.records.reading import Run, find_runs

TINY = ("model=mlp", "model.hidden=[8]", "engine.max_steps=4")
"""A run of a fraction of a second."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


def environ(**variables: str) -> dict[str, str]:
    """Return the variables of a command: no terminal, one thread."""
    return clean_environ(OMP_NUM_THREADS="1", TERM="dumb", **variables)


def in_a_process(folder: Path, *words: str, timeout: float = 120, **variables: str) -> Ended:
    """Run `optexp words...` in a folder as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "optexp", *words],
        cwd=folder,
        env=environ(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start `optexp words...` in a folder, to be interrupted; at the end of the tests it ends in any case."""
    process = subprocess.Popen(
        [sys.executable, "-m", "optexp", *words],
        cwd=folder,
        env=environ(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _started.append(process)
    return process


_started: list[subprocess.Popen[str]] = []


def end_started() -> None:
    """Kill what a failed test has left running."""
    for process in _started:
        if process.poll() is None:
            process.kill()
    _started.clear()


def here(folder: Path, *words: str) -> Ended:
    """Run `optexp words...` in a folder and in this process, which is several seconds faster."""
    out, err = io.StringIO(), io.StringIO()
    with _in_folder(folder), _own_logging(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(words))
    return Ended(int(status), out.getvalue(), err.getvalue())


def runs_in(folder: Path) -> list[Run]:
    """Return the runs below a folder's `outputs`, in the order they were started."""
    return find_runs(folder / "outputs")


def only_run(folder: Path) -> Run:
    (run,) = runs_in(folder)
    return run


def everything_in(folder: Path) -> list[str]:
    """Return the paths of all files and folders below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    before, path = Path.cwd(), list(sys.path)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path  # trust=[...] puts the current folder on it


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Keep pytest's logging: Hydra replaces the handlers of the root logger by one that writes into the run."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:], root.level = handlers, level
