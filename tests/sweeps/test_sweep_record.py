"""sweep.json: written in one piece, read as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optexp.errors import BadInput, StorageError
from optexp.sweeps.record import MemberRecord, SweepRecord, member_directory


def record() -> SweepRecord:
    members = [
        MemberRecord(0, ["optimizer.lr=0.1"], "0-lr=0.1", {"optimizer.lr": 0.1}, "completed", None, {"val/loss": 0.5}),
        MemberRecord(1, ["optimizer.lr=größer"], "1-lr=gr-er", {"optimizer.lr": "größer"}),
    ]
    return SweepRecord(["optexp", "-m", "optimizer.lr=0.1,größer"], ["optimizer.lr"], members)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record().create(tmp_path)
    assert SweepRecord.read(tmp_path) == record()
    assert SweepRecord.read(tmp_path).members[1].status == "not started"
    assert "größer" in (tmp_path / "sweep.json").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]  # no temporary file is left


def test_a_record_from_before_programs_were_noted_can_be_read(tmp_path: Path) -> None:
    record().create(tmp_path)
    content = json.loads((tmp_path / "sweep.json").read_text())
    for member in content["members"]:
        del member["program"]
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    assert SweepRecord.read(tmp_path) == record()


def test_a_folder_belongs_to_one_sweep(tmp_path: Path) -> None:
    record().create(tmp_path)
    with pytest.raises(BadInput, match=r"^hydra\.sweep\.dir=.*: already holds a sweep; name another directory$"):
        SweepRecord(["optexp"], [], []).create(tmp_path)
    assert SweepRecord.read(tmp_path) == record()


def test_a_folder_with_runs_is_no_place_for_a_sweep(tmp_path: Path, make_run: Any) -> None:
    """Else what an earlier run left would count as the result of a member of the same name."""
    make_run(tmp_path / "0-lr=0.1")
    with pytest.raises(BadInput, match=r"already holds the run 0-lr=0\.1; name another directory"):
        record().create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0-lr=0.1"]


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*sweep\.json: Not a directory"):
        record().write(tmp_path / "file")
    with pytest.raises(StorageError, match=r"cannot write .*sweep\.json: Not a directory"):
        record().create(tmp_path / "file")


def test_directories_sort_by_number_and_show_what_was_swept() -> None:
    assert member_directory(7, ["model=mlp", "optimizer.lr=0.1"], ["optimizer.lr"]) == "7-lr=0.1"
    assert member_directory(0, ["model=mlp"], []) == "0-run"


def test_the_record_of_a_sweep_is_not_written_into_another_directory(tmp_path: Path) -> None:
    record = SweepRecord(["optexp"], [], [])
    record.create(tmp_path)
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(StorageError, match=r"sweep\.json: has been moved or deleted"):
        record.write(tmp_path)
    assert not list(tmp_path.iterdir())
