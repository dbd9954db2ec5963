"""optexp export."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from optexp.commands.export import main
from optexp.errors import BadInput, StorageError

MakeRun = Callable[..., Path]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_becomes_one_line_per_step(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = make_run(tmp_path / "a", status="diverged"), tmp_path / "a.csv"
    assert main([str(run), "--csv", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: 10 lines from 1 run\n"
    lines = read(file)
    assert list(lines[0]) == ["step", "epoch", "time", "train/accuracy", "train/loss", "val/loss"]
    assert [float(line["step"]) for line in lines] == [10.0 * i for i in range(1, 11)]
    assert float(lines[6]["train/loss"]) == 1 / 7  # exact
    assert [line["val/loss"] for line in lines] == ["", "", "", "", "0.3", "", "", "", "", ""]
    assert lines[9]["train/loss"] == ""  # not a number


def test_a_folder_of_runs_becomes_one_file_that_names_them(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("sweep/0-a", "sweep/1-b"):
        make_run(tmp_path / name)
    assert main([str(tmp_path), "--csv", str(tmp_path / "s.csv")]) == 0
    lines = read(tmp_path / "s.csv")
    assert next(iter(lines[0])) == "run"
    assert [line["run"] for line in lines] == ["sweep/0-a"] * 10 + ["sweep/1-b"] * 10


def test_bad_input(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["nope", "--csv", "x.csv"], "nope: no such folder"),
        ([str(tmp_path / "empty"), "--csv", "x.csv"], "holds no runs"),
        ([str(run)], "--csv"),
        ([str(run), "--csv", str(tmp_path)], r"--csv .*: is a folder; name a file"),
        ([str(run), "--csv", str(tmp_path / "no" / "x.csv")], r"x\.csv: there is no folder .*no"),
    ):
        with pytest.raises(BadInput, match=message):
            main(arguments)


def test_a_full_disk(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"--csv /dev/full: cannot be written \(No space left on device\)"):
        main([str(make_run(tmp_path / "a")), "--csv", "/dev/full"])
