"""What people see: plain lines in a pipe, a live panel on a terminal, the result at the end."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optexp.records.console import Console, program, relative, result_table

RUN = """
import sys
from optexp.records.console import Console
console = Console(200, "resnet on digits", ["cpu"])
for step in range(10, 201, 10):
    row = {"step": step, "epoch": step / 40, "time": step / 10, "train/loss": 1 / step, "optim/lr": 1e-3,
           "time/samples_per_second": 1234.5}
    console.log(row)
    if step % 40 == 0:
        console.log({"step": step, "epoch": step / 40, "time": step / 10, "val/loss": 2 / step, "val/accuracy": 0.5})
console.close({"status": "completed"})
print("done", file=sys.stderr)
"""


def feed(console: Console, steps: int, every: int) -> None:
    for step in range(1, steps + 1):
        console.log({"step": step, "epoch": step / 10, "time": float(step), "train/loss": 1.0, "optim/lr": 0.1})
        if step % every == 0:
            console.log({"step": step, "epoch": step / 10, "time": float(step), "val/loss": 0.5})
    console.close({"status": "completed"})


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(1000, "a run", ["with a title"])
    feed(console, 1000, 250)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a run", "  with a title"]
    assert not any(character in "".join(lines) for character in "\x1b\r")
    evaluations = [line for line in lines if "val loss" in line]
    assert evaluations[0] == "step  250/1000  epoch 25.0/100  loss 1.0000  val loss 0.5000"
    assert len(evaluations) == 4
    progress = [line for line in lines[2:] if "val loss" not in line]
    assert 10 <= len(progress) <= 12
    assert progress[1] == "step  100/1000  epoch 10.0/100  loss 1.0000  lr 0.1  15:00 left"


def test_time_left_uses_the_pace_since_the_first_row(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(100, "resumed")
    console.log({"step": 50, "epoch": 5.0, "time": 1000.0, "train/loss": 1.0})
    console.log({"step": 60, "epoch": 6.0, "time": 1020.0, "train/loss": 1.0})
    assert capsys.readouterr().out.splitlines()[-1].endswith("1:20 left")  # 40 steps of 2 s, whatever came before


def test_members_of_a_sweep_get_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    feed(Console(100, "[1/2] lr=0.1", brief=True), 100, 50)
    assert capsys.readouterr().out.splitlines() == ["[1/2] lr=0.1  completed  loss 1.0000  val loss 0.5000"]


def on_terminal(environment: dict[str, str]) -> str:
    """Return what a run writes to a pseudo terminal of 80 columns."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment},
    )
    os.close(theirs)
    written = b""
    while select.select([ours], [], [], 20)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        written += piece
    os.close(ours)
    assert process.wait(20) == 0
    return written.decode()


def test_a_terminal_gets_a_live_panel_and_keeps_the_evaluations() -> None:
    written = on_terminal({"NO_COLOR": ""})
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert "━" in visible
    assert re.search(r"step +\d+/200 +0:\d\d left", visible)
    assert "samples/s" in visible
    kept = [line for line in visible.splitlines() if line.startswith("step")]
    assert kept[-1] == "step 200/200  epoch 5.0/5  loss 0.0050  val loss 0.0100  val accuracy 0.5000"
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l")  # the cursor is visible again


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_drawing_gets_plain_lines(environment: dict[str, str]) -> None:
    assert "\x1b" not in on_terminal(environment)


def test_a_run_survives_readers_that_leave() -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    assert run.stderr.read() == b"done\n"
    assert run.wait(20) == 0


def finished(**changes: Any) -> dict[str, Any]:
    return {
        "status": "completed",
        "reason": None,
        "last_step": 1000,
        "total_steps": 1000,
        "wall_time": 8.44,
        "metrics": {"optim/lr": 0.1, "train/loss": 1.21, "val/loss": 1.53, "val/accuracy": 0.55},
        "best": {"metric": "val/loss", "value": 1.53, "step": 900},
        **changes,
    }


def test_result_says_everything_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "outputs" / "a run"
    (path / "tensorboard").mkdir(parents=True)
    result_table(path, finished(), {"bigram": 2.32})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "completed  1,000 of 1,000 steps in 8.4 s"
    assert [line.split() for line in lines[2:6]] == [
        ["loss", "accuracy"],
        ["train", "1.2100"],
        ["val", "1.5300", "0.5500"],
        ["bigram", "2.3200"],
    ]
    assert "  best         val/loss 1.5300 at step 900" in lines
    assert "  results      'outputs/a run'" in lines
    assert f"  tensorboard  {program('tensorboard')} --logdir 'outputs/a run'" in lines
    assert not any("resume" in line for line in lines)


@pytest.mark.parametrize(("why", "is_more"), [([], False), (["unknown: short"], False), (["slow: x", "cause"], True)])
def test_diagnose_is_offered_where_it_has_more_to_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], why: list[str], is_more: bool
) -> None:
    result_table(tmp_path, finished(), why=why)
    out = capsys.readouterr().out
    assert all(f"  {line}\n" in out for line in why)
    assert (f"optexp diagnose {tmp_path}" in out) is is_more


@pytest.mark.parametrize(("status", "is_offered"), [("interrupted", True), ("failed", True), ("diverged", False)])
def test_resume_is_offered_where_it_can_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str, is_offered: bool
) -> None:
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    result_table(tmp_path, finished(status=status, reason="the reason", metrics={"train/loss": None}, best=None))
    out = capsys.readouterr().out
    assert (f"optexp resume {tmp_path}" in out) is is_offered
    assert "the reason" in out
    assert re.search(r"train +nan", out)


def test_paths_are_relative_inside_the_current_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert relative(Path("a")) == relative(tmp_path / "here" / "a") == "a"
    assert relative(tmp_path / "there") == str(tmp_path / "there")
