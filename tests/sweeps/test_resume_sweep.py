"""`optexp resume SWEEP_DIR` trains what is missing or failed, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, here, start

from optexp.records.reading import read_run

SWEEP = ("-m", *TINY, "optimizer.lr=0.01,0.02,0.05", "seed=0,1,2", "hydra.sweep.dir=sweep")


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "sweep" / "sweep.json").read_text())
    return found


def test_what_is_missing_is_trained_and_the_rest_left_alone(tmp_path: Path) -> None:
    assert here(tmp_path, *SWEEP).status == 0
    whole = record(tmp_path)
    losses = [member["metrics"]["val/loss"] for member in whole["members"]]
    for number in (1, 4, 5):
        member = whole["members"][number]
        shutil.rmtree(tmp_path / "sweep" / member["directory"])
        member.update(status="not started", metrics={}, best=None)
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps(whole))
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "sweep").glob("*/run.json")}
    ended = here(tmp_path, "resume", "sweep")
    assert (ended.status, ended.err) == (0, "")
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    again = record(tmp_path)
    assert [member["directory"] for member in again["members"]] == [member["directory"] for member in whole["members"]]
    assert [member["status"] for member in again["members"]] == ["completed"] * 9
    assert [member["metrics"]["val/loss"] for member in again["members"]] == pytest.approx(losses, rel=1e-5)
    assert again["status"] == "completed"
    assert "9 completed" in ended.out
    assert "nothing to resume: all 9 members" in here(tmp_path, "resume", "sweep").out


def test_an_interrupted_fused_sweep_goes_on_together(tmp_path: Path) -> None:
    words = ("model=mlp", "engine.max_steps=4000", "engine.checkpoint_every=50", "seed=0,1,2", "hydra.sweep.dir=sweep")
    process = start(tmp_path, "-m", *words, "hydra.launcher.group_size=3", "hydra.launcher.workers=1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list((tmp_path / "sweep").glob("*/checkpoints/last.json"))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    steps = [read_run(path.parent).last_step for path in sorted((tmp_path / "sweep").glob("*/run.json"))]
    assert len(steps) == 3
    assert all(0 < step < 4000 for step in steps)
    ended = here(tmp_path, "resume", "sweep")
    assert (ended.status, ended.err) == (0, "")
    assert "3 members in 1 program of 3" in ended.out
    for path in (tmp_path / "sweep").glob("*/run.json"):
        run = read_run(path.parent)
        assert (run.status, run.last_step) == ("completed", 4000)
        logged = [row["step"] for row in run.rows]
        assert logged == sorted(set(logged))


def test_a_sweep_that_runs_is_not_resumed(tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "model=mlp", "engine.max_steps=100000", "seed=0,1", "hydra.sweep.dir=sweep")
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(list((tmp_path / "sweep").glob("*/run.json"))) < 2:
            time.sleep(0.05)
        ended = here(tmp_path, "resume", "sweep")
        assert ended.status == 2
        assert ended.err.startswith("optexp: sweep: is still running (")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_a_killed_member_fails_alone_and_is_finished_later(tmp_path: Path) -> None:
    """Nine members in processes of their own, one of them killed in the middle."""
    lengths = ("model=mlp", "engine.max_steps=1500", "engine.checkpoint_every=50")
    grid = ("optimizer.lr=0.01,0.02,0.05", "seed=0,1,2", "hydra.launcher.group_size=1", "hydra.sweep.dir=sweep")
    process = start(tmp_path, "-m", *lengths, *grid)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((tmp_path / "sweep").glob("4-*/checkpoints/last.json")):
        time.sleep(0.02)
    [file] = (tmp_path / "sweep").glob("4-*/run.json")
    os.kill(json.loads(file.read_text())["process"]["pid"], signal.SIGKILL)
    assert process.wait(120) == 4
    members = record(tmp_path)["members"]
    assert [member["status"] for member in members].count("completed") == 8
    assert (members[4]["status"], members[4]["reason"]) == ("failed", "the process was ended by SIGKILL")
    assert (tmp_path / "sweep" / "report.html").exists()
    untouched = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").glob("[!4]-*/**/*") if path.is_file()}
    ended = here(tmp_path, "resume", "sweep")
    assert (ended.status, ended.err) == (0, "")
    assert [member["status"] for member in record(tmp_path)["members"]] == ["completed"] * 9
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    assert sum(path.name == "run.json" for path in untouched) == 8
    for member, again in zip(members, record(tmp_path)["members"], strict=True):
        assert {key: member[key] for key in ("number", "directory", "swept")}.items() <= again.items()
    assert read_run(file.parent).last_step == 1500
