"""Signals: the run stops at the next step, records it, says how to go on, and goes on bit for bit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import environ, here, in_a_process, only_run, runs_in, start
from own_package import write_own_package

from optexp.records.reading import Run

OWN = ("--config-dir", "configs", "trust=[mine]")
# Dropout, momentum and a schedule: what a resumed run could get wrong. The third of 12 steps sends the signal.
SIGNALLED = (
    *("model=transformer", "model.layers=1", "model.width=8", "model.heads=2", "model.dropout=0.1"),
    *("dataset=pydocs", "dataset.context_length=8", "dataset.batch_size=4"),
    *("optimizer=signals", "schedule=cosine", "engine.max_steps=12", "engine.log_every=1", "engine.eval_every=4"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_own_package(tmp_path)
    (tmp_path / "unsent").touch()
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture(autouse=True)
def nobody_else_dies() -> Iterator[None]:
    """A signal that the product does not handle must fail the test and not end pytest."""

    def fail(number: int, frame: object) -> None:
        raise AssertionError(f"nobody handled {signal.Signals(number).name}")

    before = {number: signal.signal(number, fail) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def rows(run: Run) -> list[dict[str, Any]]:
    return [{tag: value for tag, value in row.items() if not tag.startswith("time")} for row in run.rows]


STUDY = """
question: Does it end?
claim: [C1]
source: "000"
limits: A few steps.
seeds: 2
common: [model=mlp, "model.hidden=[8]", engine.max_steps=STEPS, engine.checkpoint_every=50]
arms: {only: []}
measures: {loss: {of: val/loss, take: last}}
answers:
  ends: {statement: it ends, effect: only.loss, unit: nats, supported_if: above, smallest: 0,
    if_supported: It does., if_refuted: Its loss is negative., if_inconclusive: Nobody knows.}
"""


def test_an_interrupted_request_of_several_studies_goes_on_where_it_stopped(folder: Path) -> None:
    studies = {"first": 4, "second": 3000, "third": 4}
    (folder / "configs" / "study").mkdir()
    for name, steps in studies.items():
        (folder / "configs" / "study" / f"{name}.yaml").write_text(STUDY.replace("STEPS", str(steps)))
    process = start(folder, f"study={','.join(studies)}", "--config-dir", "configs")
    assert process.stdout
    for line in process.stdout:
        if line.startswith("second: 2 runs"):
            process.send_signal(signal.SIGTERM)
            break
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    [parent] = folder.glob("outputs/studies/*/*-studies")
    assert f"second: interrupted; go on with: optexp resume {parent.relative_to(folder)}" in out
    assert statuses(parent) == {"first": "completed", "second": "interrupted", "third": "not started"}
    untouched = {file: file.stat().st_mtime_ns for file in parent.glob("first/*/*/run.json")}
    assert len(untouched) == 2
    ended = here(folder, "resume", str(parent))
    assert (ended.status, ended.err) == (0, "")
    assert statuses(parent) == dict.fromkeys(studies, "completed")
    assert {file: file.stat().st_mtime_ns for file in untouched} == untouched
    for name in studies:
        answers = json.loads((parent / name / "study.json").read_text())["answers"]
        assert len([loss for loss in answers["ends"]["per_seed"] if loss > 0]) == 2


def statuses(parent: Path) -> dict[str, str]:
    return {file.parent.name: json.loads(file.read_text())["status"] for file in parent.glob("*/study.json")}


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_ends_a_run_that_then_resumes_bit_for_bit(folder: Path, name: str, status: int) -> None:
    words = [*SIGNALLED, *OWN, f"+optimizer.send={name}"]
    # SIGTERM through the process boundary, the others here
    ended = in_a_process(folder, *words) if name == "SIGTERM" else here(folder, *words)
    assert (ended.status, ended.err) == (status, "")
    run = only_run(folder)
    assert (run.status, run.last_step, run.info["reason"]) == ("interrupted", 3, f"received {name}")
    where = str(run.path.relative_to(folder))
    assert f"resume {where}" in ended.out

    resumed = here(folder, "resume", where, "trust=[mine]")
    assert (resumed.status, resumed.err) == (0, "")
    run = only_run(folder)
    assert (run.status, run.last_step, run.info["resumed"]) == ("completed", 12, 1)
    assert [session["status"] for session in run.info["sessions"]] == ["interrupted", "completed"]

    assert here(folder, *words, "name=whole").status == 0  # nothing is `unsent` any more
    whole = runs_in(folder)[-1]
    assert (whole.name.endswith("-whole"), whole.status) == (True, "completed")
    assert rows(run) == rows(whole)
    assert run.info["metrics"]["val/loss"] == whole.info["metrics"]["val/loss"]


def sweep_record(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("outputs/sweeps/*/*/sweep.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def test_ctrl_c_ends_a_sweep_with_its_summary(folder: Path) -> None:
    words = ["-m", "hydra/launcher=basic", *SIGNALLED, *OWN, "+optimizer.send=SIGINT", "optimizer.lr=0.1,1.0,0.2"]
    ended = here(folder, *words)
    assert (ended.status, ended.err) == (130, "")
    record = sweep_record(folder)
    assert record["status"] == "interrupted"
    assert [member["status"] for member in record["members"]] == ["completed", "interrupted", "not started"]
    assert "1 completed, 1 interrupted, 1 not started" in ended.out
    assert list(folder.glob("outputs/sweeps/*/*/sweep.csv"))


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_between_members_ends_a_sweep_with_its_summary(folder: Path, name: str, status: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    sweep = ["-m", "hydra/launcher=basic", "seed=1,2,3"]
    words = [*sweep, "model=third_time", f"+model.send={name}", "engine.max_steps=2", *OWN]
    ended = here(folder, *words)
    assert (ended.status, ended.err) == (status, "")
    record = sweep_record(folder)
    assert record["status"] == "interrupted"
    assert [member["status"] for member in record["members"]] == ["completed", "not started", "not started"]
    assert "1 completed, 2 not started" in ended.out
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_at_a_terminal(tmp_path: Path) -> None:
    """The key itself, pressed while a run that would last for hours is shown; with NO_COLOR it is shown plainly."""
    pty, termios, fcntl = (pytest.importorskip(name) for name in ("pty", "termios", "fcntl"))
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "optexp", "model=mlp", "engine.max_steps=100000000", "engine.checkpoint_every=null"],
        cwd=tmp_path,
        env=environ(NO_COLOR="1") | {"TERM": "xterm-256color"},
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # the terminal is this process's own
    )
    os.close(inside)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends on Linux
        while read := os.read(terminal, 65536):
            if b"step " in read and b"step " not in shown:
                os.write(terminal, b"\x03")
            shown += read
    os.close(terminal)
    assert process.wait(timeout=60) == 130
    run = only_run(tmp_path)
    assert (run.status, run.info["reason"]) == ("interrupted", "received SIGINT")
    assert run.last_step >= 1
    assert b"interrupted" in shown
    assert b"Traceback" not in shown
    assert b"\x1b" not in shown
    assert b" resume " not in shown  # without a checkpoint there is nothing to go on from


def test_a_killed_run_is_seen_as_interrupted(tmp_path: Path) -> None:
    """kill -9 leaves no time to record anything: the next look at the directory finds out."""
    words = ["model=mlp", "model.hidden=[8]", "engine.eval_every=1000000", "engine.checkpoint_every=20"]
    process = start(tmp_path, *words, "engine.epochs=null", "engine.max_steps=1000000")
    while process.poll() is None and not list(tmp_path.glob("outputs/runs/*/*/checkpoints/last.json")):
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    run = only_run(tmp_path)
    assert (run.info["status"], run.status) == ("running", "interrupted")
    assert "1 interrupted" in here(tmp_path, "runs").out
