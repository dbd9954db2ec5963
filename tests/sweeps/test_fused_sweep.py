"""Sweeps under the launcher `fused`: what separate runs would have left, whatever happens to a process on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Ended, here, in_a_process, start

from optexp.records.reading import Run, read_run
from optexp.sweeps.children import can_fork

MLP = ["-m", "model=mlp", "model.hidden=[16]", "engine.max_steps=30", "engine.eval_every=10", "engine.log_every=5"]
OF_TWO_KINDS = [word.replace("[16]", "[16],[8]") for word in MLP]
TOGETHER = "hydra.launcher.group_size=64"
NOT_COMPARED = ("time", "time/step_ms", "time/samples_per_second")

pytestmark = pytest.mark.skipif(not can_fork(), reason="children are forked on Linux only")


def sweep_in(folder: Path) -> Path:
    (path,) = (folder / "outputs" / "sweeps").glob("*/*")
    return path


def members_of(folder: Path) -> list[Run]:
    record = json.loads((sweep_in(folder) / "sweep.json").read_text())
    return [read_run(sweep_in(folder) / member["directory"]) for member in record["members"]]


def statuses(folder: Path) -> list[str]:
    return [member["status"] for member in json.loads((sweep_in(folder) / "sweep.json").read_text())["members"]]


def files_of(path: Path) -> set[str]:
    """Return the files of a run; names that hold a time or a hash without it."""
    names = (str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    return {name.partition("/events")[0].partition("/step-")[0] for name in names}


def assert_rows_agree(one: Run, other: Run) -> None:
    assert len(one.rows) == len(other.rows)
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        assert list(mine) == list(theirs)
        for tag in mine.keys() - set(NOT_COMPARED):
            assert mine[tag] == pytest.approx(theirs[tag], rel=1e-5, abs=1e-7, nan_ok=True), tag


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One sweep under both launchers: values, seeds, one absurd learning rate, early stopping and the test split."""
    folders = []
    # Without a learning rate nothing ever improves: patience ends those members.
    words = [*MLP, "optimizer.lr=0.0,0.1,1e30", "seed=0,1", "engine.evaluate_test=true", "optimizer.weight_decay=0"]
    for launcher in (["hydra/launcher=basic"], ["hydra/launcher=fused", TOGETHER]):
        folders.append(tmp_path_factory.mktemp("sweep"))
        ended = in_a_process(folders[-1], *words, "engine.early_stopping_patience=1", *launcher)
        assert (ended.status, ended.err) == (0, "")
    return folders[0], folders[1]


def test_members_leave_what_separate_runs_leave(both: tuple[Path, Path]) -> None:
    alone, together = (members_of(folder) for folder in both)
    assert [run.status for run in together] == ["early_stopped"] * 2 + ["completed"] * 2 + ["diverged"] * 2
    for one, other in zip(alone, together, strict=True):
        assert files_of(one.path) == files_of(other.path)
        assert_rows_agree(one, other)
        assert one.config == other.config
        same: tuple[str, ...] = (
            "status",
            "reason",
            "first_step",
            "last_step",
            "total_steps",
            "command",
            "overrides",
            "config_hash",
        )
        same += ("choices", "seed", "model", "data", "baselines", "resumed", "device")
        assert {key: one.info[key] for key in same} == {key: other.info[key] for key in same}
        assert one.metrics.keys() == other.metrics.keys()
        if one.info["best"]:
            best, others = ({**run.info["best"], "metric": 0} for run in (one, other))
            assert best == pytest.approx(others, rel=1e-5)


def test_the_run_says_with_whom_it_was_trained(both: tuple[Path, Path]) -> None:
    for member in members_of(both[1]):
        assert any("in one program with 2 others" in note for note in member.info["notes"])


def test_hydras_own_files_are_there(both: tuple[Path, Path]) -> None:
    for one, other in zip(*(members_of(folder) for folder in both), strict=True):
        for name in ("config.yaml", "overrides.yaml"):
            assert (one.path / ".hydra" / name).read_text() == (other.path / ".hydra" / name).read_text()
        assert "num:" in (other.path / ".hydra" / "hydra.yaml").read_text()


def test_a_member_of_a_program_goes_on_alone(tmp_path: Path) -> None:
    """Stopped in a program after 12 steps, resumed alone: the end is that of a run that was never stopped."""
    words = [*MLP, "seed=0,1,2", "engine.precision=fp64", TOGETHER]
    ended = in_a_process(tmp_path, *words, **{"PYTHONPATH": str(planted(tmp_path, "interrupt_after_12_steps"))})
    assert ended.status == 143, ended
    assert statuses(tmp_path) == ["interrupted"] * 3
    member = members_of(tmp_path)[1]
    assert here(tmp_path, "resume", str(member.path.relative_to(tmp_path))).status == 0
    whole = tmp_path / "whole"
    whole.mkdir()
    assert here(whole, *[word for word in MLP if word != "-m"], "seed=1", "engine.precision=fp64").status == 0
    (path,) = (whole / "outputs" / "runs").glob("*/*")
    resumed, alone = read_run(member.path), read_run(path)
    assert resumed.info["resumed"] == 1
    steps, losses = resumed.series("val/loss")
    assert (steps, losses) == (alone.series("val/loss")[0], pytest.approx(alone.series("val/loss")[1], rel=1e-9))


def test_what_differs_in_more_than_numbers_is_grouped_apart(tmp_path: Path) -> None:
    words = [*MLP, "optimizer=sgd,adam", "dataset.batch_size=16,32", "seed=0,1", TOGETHER]
    ended = in_a_process(tmp_path, *words)
    assert (ended.status, ended.err) == (0, "")
    assert statuses(tmp_path) == ["completed"] * 8
    assert ended.out.count("2 members in 1 program of 2") == 4
    assert "\nmembers 0-1  step 30/30  " in ended.out
    record = json.loads((sweep_in(tmp_path) / "sweep.json").read_text())
    assert [member["program"] for member in record["members"]] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert "  2 members fused; 2 members fused; 2 members fused; 2 members fused" in ended.out


def test_reasons_are_given(tmp_path: Path) -> None:
    ended = here(tmp_path, *MLP, "optimizer=sgd,rmsprop", "engine.precision=fp16", "seed=0,1", "--dry-run")
    assert ended.out.splitlines()[-1].endswith(
        "; 4 one by one (engine.precision=fp16 scales the loss of each run by itself)"
    )
    ended = here(tmp_path, *OF_TWO_KINDS, "--dry-run")
    assert ended.out.splitlines()[-1].endswith("; 2 one by one (no other of its kind)")
    ended = here(tmp_path, *MLP, "seed=0,1", "hydra/launcher=basic", "--dry-run")
    assert ended.out.splitlines()[-1].endswith("; by Hydra: hydra/launcher=basic")


def test_hydras_settings_for_jobs_are_not_ignored(tmp_path: Path) -> None:
    ended = here(tmp_path, *MLP, "seed=0,1", "hydra.job.chdir=true", "--dry-run")
    assert ended.out.splitlines()[-1].endswith("; by Hydra: hydra.job.chdir=true")
    ended = here(tmp_path, *MLP, "seed=0,1", "hydra.job.chdir=true", "hydra/launcher=fused")
    assert ended.status == 2
    assert "hydra.job.chdir=true is for members that Hydra runs; add hydra/launcher=basic" in ended.err


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "True"])
def test_settings_of_the_launcher_are_checked(tmp_path: Path, value: str) -> None:
    for key in ("group_size", "workers"):
        ended = here(tmp_path, *MLP, "seed=0,1", f"hydra.launcher.{key}={value}")
        assert ended.status == 2
        assert f"hydra.launcher.{key}={value}: must be a whole number of at least 1, or null" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_bad_value_of_one_member_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    ended = here(tmp_path, *MLP, "optimizer.nesterov=false,true", "optimizer.momentum=0.9,0.0")
    assert ended.status == 2
    assert "optimizer.nesterov=true: needs optimizer.momentum > 0" in ended.err
    assert "(member " in ended.err
    assert list(tmp_path.iterdir()) == []


# What can happen to a process ---------------------------------------------------------------------------------------

PLANTED = {
    "interrupt_after_12_steps": """
from optexp.engine import fused
step = fused.FusedRuns.step
def stepping(self, number, *rest):
    if number == 12 and not os.path.exists("planted"):
        open("planted", "w").close()
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(0.3)
    return step(self, number, *rest)
fused.FusedRuns.step = stepping
""",
    "kill_after_12_steps": """
from optexp.engine import fused
step = fused.FusedRuns.step
def stepping(self, number, *rest):
    if number == 12 and not os.path.exists("planted"):
        open("planted", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, number, *rest)
fused.FusedRuns.step = stepping
""",
    "lose_a_directory": """
import shutil
from optexp.engine import fused, single
def losing(step):
    def stepping(self, number, *rest):
        if number == 12:
            shutil.rmtree("sweep/1-seed=1", ignore_errors=True)
        return step(self, number, *rest)
    return stepping
fused.FusedRuns.step = losing(fused.FusedRuns.step)
single.SingleRun.step = losing(single.SingleRun.step)
""",
    "exit_in_a_program": """
from optexp.engine import fused
def stepping(self, number, *rest):
    os._exit(7)
fused.FusedRuns.step = stepping
""",
    "no_memory_for_more_than_2": """
import torch
from optexp.engine import fused
step = fused.FusedRuns.step
def stepping(self, number, *rest):
    if number == 12 and self.members > 2:
        raise torch.OutOfMemoryError("out of memory")
    return step(self, number, *rest)
fused.FusedRuns.step = stepping
""",
    "exit_when_alone_with_seed_1": """
from optexp.assemble import SingleRun
step = SingleRun.step
def stepping(self, *rest):
    if self.step_state.seed == 1:
        os._exit(3)
    return step(self, *rest)
SingleRun.step = stepping
""",
}


def planted(folder: Path, what: str) -> Path:
    """Write a module that Python imports as it starts, with a fault in it, and return its folder."""
    path = folder / "planted_fault"
    path.mkdir()
    (path / "sitecustomize.py").write_text("import os, signal, sys, time\n" + PLANTED[what])
    return path


def with_fault(folder: Path, what: str, *words: str) -> Ended:
    return in_a_process(folder, *words, **{"PYTHONPATH": str(planted(folder, what))})


def compared_with_an_undisturbed_sweep(folder: Path, *words: str) -> None:
    clean = folder / "clean"
    clean.mkdir()
    assert in_a_process(clean, *words).status == 0
    for one, other in zip(members_of(folder), members_of(clean), strict=True):
        assert one.status == other.status == "completed"
        assert [row["step"] for row in one.rows] == [row["step"] for row in other.rows]
        assert one.metrics["val/loss"] == pytest.approx(other.metrics["val/loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("kill_after_12_steps", "4 members go on in two programs: the process was ended by SIGKILL"),
        ("exit_in_a_program", "4 members go on one by one: the process ended with exit status 7"),
        ("no_memory_for_more_than_2", "4 members go on in two programs: OutOfMemoryError: out of memory"),
    ],
)
def test_a_lost_program_costs_no_member(tmp_path: Path, fault: str, told: str) -> None:
    words = [
        *MLP,
        "optimizer.lr=0.1,0.2",
        "seed=0,1",
        "engine.checkpoint_every=10",
        TOGETHER,
        "hydra.launcher.workers=1",
    ]
    ended = with_fault(tmp_path, fault, *words)
    assert (ended.status, ended.err) == (0, ""), ended.out
    assert told in ended.out
    compared_with_an_undisturbed_sweep(tmp_path, *words)


def test_a_member_whose_process_dies_fails_alone(tmp_path: Path) -> None:
    ended = with_fault(tmp_path, "exit_when_alone_with_seed_1", *MLP, "seed=0,1,2", "hydra.launcher.group_size=1")
    assert (ended.status, ended.err) == (4, "")
    assert statuses(tmp_path) == ["completed", "failed", "completed"]
    failed = members_of(tmp_path)[1]
    assert failed.info["reason"] == "the process ended with exit status 3"
    assert "hydra.launcher.group_size=1" in ended.out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_reaches_the_members_and_ends_the_sweep_with_its_summary(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    long = ["-m", "model=mlp", "engine.max_steps=100000000", "engine.log_every=100", "seed=0,1,2,3", TOGETHER]
    process = start(tmp_path, *long, "hydra.launcher.workers=2")
    wait_for(lambda: len(list(tmp_path.glob("outputs/sweeps/*/*/*/metrics.jsonl"))) == 4, process)
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "")
    assert statuses(tmp_path) == ["interrupted"] * 4
    assert "4 interrupted" in out
    assert all((member.path / "checkpoints" / "last.json").exists() for member in members_of(tmp_path))


def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    long = ["-m", "model=mlp", "engine.max_steps=100000000", "engine.log_every=100", "seed=0,1", TOGETHER]
    process = start(tmp_path, *long)
    wait_for(lambda: len(list(tmp_path.glob("outputs/sweeps/*/*/*/metrics.jsonl"))) == 2, process)
    child = read_run(next(tmp_path.glob("outputs/sweeps/*/*/0*"))).info["process"]["pid"]
    process.kill()
    _, err = process.communicate(timeout=60)
    assert err == ""
    wait_for(lambda: not Path(f"/proc/{child}/stat").exists() or " Z " in Path(f"/proc/{child}/stat").read_text(), None)


def wait_for(condition: Any, process: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_reader_who_leaves_does_not_end_the_sweep(tmp_path: Path) -> None:
    process = start(tmp_path, *MLP, "seed=0,1,2,3", TOGETHER)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=120)
    assert statuses(tmp_path) == ["completed"] * 4


def test_without_forking_members_train_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU, which a forked child could not use."""
    monkeypatch.setattr("optexp.sweeps.fused.can_fork", lambda: False)
    before = torch.get_num_threads()
    ended = here(tmp_path, *OF_TWO_KINDS, "seed=0,1", TOGETHER, "optimizer.lr=0.1")
    torch.set_num_threads(before)
    assert (ended.status, ended.err) == (0, "")
    assert statuses(tmp_path) == ["completed"] * 4
    assert {member.info["process"]["pid"] for member in members_of(tmp_path)} == {os.getpid()}


@pytest.mark.parametrize(
    "launcher", [[TOGETHER], ["hydra.launcher.group_size=1", "hydra.launcher.workers=1"], ["hydra/launcher=basic"]]
)
def test_a_member_whose_directory_is_deleted_fails_and_makes_no_other(tmp_path: Path, launcher: list[str]) -> None:
    words = [*MLP, "seed=0,1,2", "hydra.sweep.dir=sweep", *launcher]
    ended = with_fault(tmp_path, "lose_a_directory", *words)
    assert (ended.status, ended.err) == (4, "")
    assert not (tmp_path / "sweep" / "1-seed=1").exists()
    members = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["members"]
    assert [member["status"] for member in members] == ["completed", "failed", "completed"]
    assert re.search(r"1-seed=1/.*: has been moved or deleted", members[1]["reason"])
    for member in (members[0], members[2]):
        run = read_run(tmp_path / "sweep" / member["directory"])
        assert (run.status, run.last_step) == ("completed", 30)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"])
def test_every_stacked_rule_is_tried_before_it_is_chosen(tmp_path: Path, optimizer: str) -> None:
    """Without a given size of the groups a single run of the same kind is measured, which needs a copy of it."""
    ended = here(tmp_path, *MLP, f"optimizer={optimizer}", "seed=range(8)")
    assert (ended.status, ended.err) == (0, "")
    assert "Error" not in ended.out
    assert "8 members fused" in ended.out
