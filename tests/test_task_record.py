"""A task that is no training leaves a run directory that tells how it ended, whatever happened."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from command_line import here

from optexp.config.compose import Composer
from optexp.errors import BadInput, StorageError
from optexp.records.reading import read_run
from optexp.run import Result
from optexp.task_record import Found, carry_out

WORDS = ["task=show_schedule", "seed=3"]


def done(path: Path, work: Callable[[Path], Found]) -> Result:
    path.mkdir()
    return carry_out(Composer().compose(WORDS), path, ["optexp", *WORDS], WORDS, work)


def raising(error: BaseException) -> Callable[[Path], Found]:
    def work(path: Path) -> NoReturn:
        raise error

    return work


def test_what_was_found_is_recorded(tmp_path: Path) -> None:
    found = Found({"lr/peak": 0.5}, {"points": [1.0, float("nan")]}, objective=2.0, exit_status=6)
    result = done(tmp_path / "it", lambda path: found)
    assert (result.status, result.objective, result.exit_status) == ("completed", 2.0, 6)
    run = read_run(tmp_path / "it")
    assert (run.status, run.info["task"], run.info["seed"]) == ("completed", "show_schedule", 3)
    assert run.metrics == {"lr/peak": 0.5}
    assert run.info["command"] == "optexp task=show_schedule seed=3"
    assert json.loads((tmp_path / "it" / "result.json").read_text()) == {"points": [1.0, None]}


def send(number: signal.Signals) -> Callable[[Path], Found]:
    def work(path: Path) -> Found:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal has not ended the work")

    return work


@pytest.mark.parametrize(
    ("work", "status", "exit_status", "reason"),
    [
        (raising(ArithmeticError("one\ntwo")), "failed", 1, "ArithmeticError: one"),
        (raising(SystemExit(3)), "failed", 1, "sys.exit"),
        (raising(KeyboardInterrupt()), "interrupted", 130, "received a signal"),
        (send(signal.SIGTERM), "interrupted", 143, "received a signal"),
        (send(signal.SIGHUP), "interrupted", 129, "received a signal"),
    ],
)
def test_every_end_is_recorded(
    tmp_path: Path, work: Callable[[Path], Found], status: str, exit_status: int, reason: str
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    result = done(tmp_path / "it", work)
    assert (result.status, result.exit_status) == (status, exit_status)
    assert reason in str(result.reason)
    assert read_run(tmp_path / "it").status == status
    assert not (tmp_path / "it" / "result.json").exists()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize("error", [BadInput("task.x=1: allowed is 2"), StorageError("no space left")])
def test_what_the_user_can_mend_is_raised_and_recorded(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        done(tmp_path / "it", raising(error))
    run = read_run(tmp_path / "it")
    assert (run.status, run.info["reason"]) == ("failed", str(error))


def test_it_is_listed_by_what_it_reads_and_not_resumed(tmp_path: Path) -> None:
    ended = here(tmp_path, "task=show_schedule", "engine.max_steps=20")
    assert ended.status == 0, ended.err
    [path] = tmp_path.glob("outputs/runs/*/*-show_schedule-sgd")
    listed: list[dict[str, Any]] = json.loads(here(tmp_path, "runs", "--json").out)
    assert [entry["task"] for entry in listed] == ["show_schedule"]
    table = here(tmp_path, "runs").out
    assert "resnet" not in table
    assert "digits" not in table
    for verb in ("resume", "rerun"):
        refused = here(tmp_path, verb, str(path))
        assert refused.status == 2
        assert "is a task=show_schedule; it is done again by its command: optexp task=show_schedule" in refused.err
