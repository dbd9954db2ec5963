"""A directory that is moved or deleted while it is written to: one line, exit status 5, and no second directory."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import everything_in, start

LONG = ("model=mlp", "model.hidden=[8]", "engine.max_steps=1000000")
"""Minutes of training."""


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def trains(folder: Path) -> bool:
    """Return whether all runs below a folder that have begun have their first rows and checkpoints."""
    rows, checkpoints = (list(folder.rglob(name)) for name in ("metrics.jsonl", "last.json"))
    return 0 < len(rows) == len(checkpoints) and all(file.stat().st_size for file in rows)


def lost(folder: Path, *words: str, named: str, delete: bool = False) -> str:
    """Run a command whose directory `named` vanishes once it trains; return its line of error."""
    process = start(folder, *words)
    wait_for(lambda: process.poll() is not None or trains(folder / named))
    if delete:
        os.rename(folder / named, folder / "doomed")  # at once, so that nothing is half deleted
        shutil.rmtree(folder / "doomed", ignore_errors=True)
    else:
        os.rename(folder / named, folder / "elsewhere")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert not (folder / named).exists(), everything_in(folder / named)
    (line,) = err.splitlines()
    return line


@pytest.mark.parametrize("delete", [False, True])
def test_a_run_without_its_directory_ends(tmp_path: Path, delete: bool) -> None:
    line = lost(tmp_path, *LONG, "hydra.run.dir=run", named="run", delete=delete)
    assert line.startswith("optexp: ")
    assert "run" in line
    assert line.endswith((": has been moved or deleted", ": No such file or directory"))


@pytest.mark.parametrize(
    "words",
    [
        ["hydra.launcher.group_size=64"],
        ["hydra.launcher.group_size=1", "hydra.launcher.workers=1"],
        ["hydra/launcher=basic"],
    ],
)
def test_a_sweep_without_its_directory_ends(tmp_path: Path, words: list[str]) -> None:
    line = lost(tmp_path, "-m", *LONG, "seed=0,1,2", "hydra.sweep.dir=sweep", *words, named="sweep")
    assert line == f"optexp: {tmp_path / 'sweep'}: the directory of the sweep is gone"


def test_under_nohup_a_run_outlives_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; what is ignored is inherited
    try:
        process = start(tmp_path, *LONG, "hydra.run.dir=run")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(lambda: process.poll() is not None or trains(tmp_path / "run"))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)  # thousands of steps, at each of which it would end
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "")
    assert "received SIGTERM" in out
