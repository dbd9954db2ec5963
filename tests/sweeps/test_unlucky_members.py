"""What the launchers record of members to which something happens; planted in this process, from which they fork."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Ended, here

from optexp.config.compose import Composer
from optexp.records.reading import read_run
from optexp.sweeps import fused, member
from optexp.sweeps.children import can_fork
from optexp.sweeps.fused import FusedLauncher
from optexp.sweeps.plan import Entry
from optexp.sweeps.record import MemberRecord

ALONE, TOGETHER = "hydra.launcher.group_size=1", "hydra.launcher.group_size=64"

pytestmark = pytest.mark.skipif(not can_fork(), reason="children are forked on Linux only")


def sweep(folder: Path, *words: str, seeds: int = 3) -> tuple[Ended, list[dict[str, Any]]]:
    """Sweep over seeds in `folder`; return how that ended and what sweep.json has of the members."""
    seed = "seed=" + ",".join(map(str, range(seeds)))
    ended = here(folder, "-m", *TINY, seed, "hydra.sweep.dir=sweep", "hydra.launcher.workers=1", *words)
    return ended, json.loads((folder / "sweep" / "sweep.json").read_text())["members"]


def of(members: list[dict[str, Any]], key: str) -> list[Any]:
    return [member[key] for member in members]


def when_alone(monkeypatch: pytest.MonkeyPatch, do: Callable[[FusedLauncher, Entry, Callable[[], Any]], Any]) -> None:
    """Have `do` called in place of the training of the member alone with seed 1, which it is given."""
    train = FusedLauncher._train_single

    def training(self: FusedLauncher, entry: Entry) -> Any:
        if entry.config["seed"] == 1:
            return do(self, entry, lambda: train(self, entry))
        return train(self, entry)

    monkeypatch.setattr(FusedLauncher, "_train_single", training)


def test_a_signal_while_measuring_ends_the_sweep_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(20)

    monkeypatch.setattr(fused, "group_size", interrupted)
    ended, members = sweep(tmp_path)
    assert (ended.status, ended.err) == (143, "")
    assert "one by one" not in ended.out
    assert of(members, "status") == ["not started"] * 3


def test_a_measurement_that_fails_costs_no_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> None:
        raise ArithmeticError("planted\nwith details")

    monkeypatch.setattr(fused, "group_size", failing)
    ended, members = sweep(tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert "3 members train one by one: ArithmeticError: planted\n" in ended.out
    assert of(members, "status") == ["completed"] * 3


@pytest.mark.parametrize(
    ("error", "text"), [(ArithmeticError("planted"), "ArithmeticError: planted"), (SystemExit(7), "SystemExit: 7")]
)
def test_what_a_program_raises_costs_no_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, text: str
) -> None:
    def failing(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(fused, "fuse", failing)
    ended, members = sweep(tmp_path, TOGETHER)
    assert (ended.status, ended.err) == (0, "")
    assert f"3 members go on one by one: {text}\n" in ended.out
    assert of(members, "status") == ["completed"] * 3
    assert of(members, "program") == [None] * 3


def test_a_program_that_died_before_it_began_is_begun_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuse = fused.fuse

    def hungry(trainings: Any) -> Any:
        if len(trainings) > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return fuse(trainings)

    monkeypatch.setattr(fused, "fuse", hungry)
    ended, members = sweep(tmp_path, TOGETHER, seeds=4)
    assert (ended.status, ended.err) == (0, "")
    assert "4 members go on in two programs: the process was ended by SIGKILL\n" in ended.out
    assert "one by one" not in ended.out
    assert of(members, "status") == ["completed"] * 4
    assert of(members, "program") == [1, 1, 2, 2]


def test_a_process_that_dies_after_the_end_of_its_member_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_at_the_end(launcher: FusedLauncher, entry: Entry, train: Callable[[], Any]) -> None:
        train()
        os._exit(3)

    when_alone(monkeypatch, die_at_the_end)
    ended, members = sweep(tmp_path, ALONE)
    assert (ended.status, ended.err) == (0, "")
    assert of(members, "status") == ["completed"] * 3
    assert read_run(tmp_path / "sweep" / "1-seed=1").status == "completed"


def test_code_that_exits_fails_its_member_with_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, parent = fused.prepare, os.getpid()

    def exiting(composed: Any) -> Any:
        if composed.config["seed"] == 1 and os.getpid() != parent:
            raise SystemExit("planted")
        return prepare(composed)

    monkeypatch.setattr(fused, "prepare", exiting)
    ended, members = sweep(tmp_path, ALONE)
    assert (ended.status, ended.err) == (4, "")
    assert of(members, "status") == ["completed", "failed", "completed"]
    assert members[1]["reason"] == "SystemExit: planted"
    assert "1-seed=1 (2 of 3)  failed  SystemExit: planted\n" in ended.out
    assert "Traceback" in (tmp_path / "sweep" / "1-seed=1" / "optexp.log").read_text()


def test_code_that_exits_fails_its_member_under_hydras_launchers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = member.prepare

    def exiting(composed: Any) -> Any:
        if composed.config["seed"] == 1:
            raise SystemExit(0)
        return prepare(composed)

    monkeypatch.setattr(member, "prepare", exiting)
    ended = here(tmp_path, "-m", *TINY, "seed=0,1,2", "hydra.sweep.dir=sweep", "hydra/launcher=basic")
    assert (ended.status, ended.err) == (4, "")
    members = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["members"]
    assert of(members, "status") == ["completed", "failed", "completed"]
    assert members[1]["reason"] == "SystemExit: 0"


def test_a_record_cut_short_costs_one_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die_while_writing(launcher: FusedLauncher, entry: Entry, train: Callable[[], Any]) -> None:
        path = launcher.folder / entry.record.directory
        path.mkdir()
        (path / "run.json").touch()
        os._exit(3)

    when_alone(monkeypatch, die_while_writing)
    ended, members = sweep(tmp_path, ALONE)
    assert ended.status == 4
    assert of(members, "status") == ["completed", "failed", "completed"]
    assert "run.json: cannot be read" in members[1]["reason"]


def test_results_of_an_earlier_sweep_are_not_taken_for_new_ones(tmp_path: Path) -> None:
    assert sweep(tmp_path, ALONE)[0].status == 0
    (tmp_path / "sweep" / "sweep.json").unlink()
    ended = here(tmp_path, "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep", "optimizer.lr=7")
    assert ended.status == 2
    assert "hydra.sweep.dir=sweep: already holds the run " in ended.err
    assert not (tmp_path / "sweep" / "sweep.json").exists()


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        (range(32), "members 0-31"),
        ([0, 1, 8, 9, 11], "members 0-1, 8-9, 11"),
        (range(0, 64, 2), "32 members of 0-62"),
    ],
)
def test_members_of_a_program_are_named_by_their_numbers(numbers: Any, name: str) -> None:
    composed = Composer().compose([])
    entries = [Entry(composed, MemberRecord(number, [], str(number), {})) for number in numbers]
    assert fused._named(entries) == name


def test_no_more_processes_than_cores_one_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
    assert fused._cores() == 3
