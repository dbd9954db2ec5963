"""Reading run directories: what is whole, what is dead, what is broken."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optexp.errors import BadInput
from optexp.records.reading import ABSENT, Run, differences, find_runs, flat, read_run

MakeRun = Callable[..., Path]


def edit(path: Path, **fields: Any) -> None:
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(info | fields))


def test_a_finished_run(make_run: MakeRun, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "2026" / "a", lr=0.3))
    assert (run.name, run.status, run.last_step, run.wall_time) == ("a", "completed", 100, 10.0)
    assert run.config["optimizer"]["lr"] == 0.3
    assert run.settings["optimizer.lr"] == 0.3
    assert "output_dir" not in run.settings
    assert run.metrics == {"train/loss": 0.1, "train/accuracy": 0.9, "val/loss": 0.15}
    assert run.series("val/loss") == ([50, 100], [0.3, 0.15])
    assert len(run.rows) == 12


def test_null_is_nan(make_run: MakeRun, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", status="diverged"))
    steps, values = run.series("train/loss")
    assert steps[-1] == 100
    assert math.isnan(values[-1])
    assert run.metrics["train/loss"] is None


def test_choices_are_the_recorded_names_or_the_classes(make_run: MakeRun, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a"))
    assert [run.choice(group) for group in ("model", "dataset", "optimizer", "schedule")] == [
        "resnet",
        "digits",
        "sgd",
        "",
    ]


def test_a_run_whose_process_is_alive_is_running(make_run: MakeRun, tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", status=None))
    assert run.status == "running"
    assert (run.last_step, run.wall_time) == (100, 10.5)  # from the rows: run.json does not know yet
    assert run.metrics == {"train/loss": 0.1, "train/accuracy": 0.9, "val/loss": 0.15}


def test_a_run_whose_process_is_gone_is_interrupted(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", status=None)
    process = json.loads((path / "run.json").read_text())["process"]
    edit(path, process=process | {"start": -1})
    assert read_run(path).status == "interrupted"


def test_a_run_elsewhere_lives_as_long_as_it_writes(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", status=None)
    edit(path, process={"pid": 1, "start": 1, "boot": "elsewhere"})
    assert read_run(path).status == "running"
    long_ago = time.time() - 600
    os.utime(path / "run.json", (long_ago, long_ago))
    assert read_run(path).status == "running"  # metrics.jsonl is fresh
    os.utime(path / "metrics.jsonl", (long_ago, long_ago))
    assert read_run(path).status == "interrupted"


def test_runs_are_found_at_any_depth_in_the_order_they_started(make_run: MakeRun, tmp_path: Path) -> None:
    starts = {
        "sweeps/s/10-b": "2026-01-01T12:00:00+00:00",
        "sweeps/s/9-a": "2026-01-01T12:00:00+00:00",
        "runs/z": "2026-01-01T12:30:00+02:00",  # half past ten, Greenwich time
        "runs/y": "2026-01-02T00:00:00+00:00",
    }
    for name, started in starts.items():
        edit(make_run(tmp_path / name), started=started)
    make_run(tmp_path / "runs" / "z" / "copies" / "inside")
    found = [str(run.path.relative_to(tmp_path)) for run in find_runs(tmp_path)]
    assert found == ["runs/z", "sweeps/s/9-a", "sweeps/s/10-b", "runs/y"]


def test_what_cannot_be_read_is_left_out_with_one_warning_each(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    (make_run(tmp_path / "no-config") / "config.yaml").unlink()
    (make_run(tmp_path / "bad-config") / "config.yaml").write_text("a: [")
    (make_run(tmp_path / "empty") / "run.json").write_text("")
    (make_run(tmp_path / "list") / "run.json").write_text("[]")
    edit(make_run(tmp_path / "undated"), started="yesterday")
    (tmp_path / "nothing").mkdir()
    warnings: list[str] = []
    assert [run.name for run in find_runs(tmp_path, warnings.append)] == ["good"]
    assert len(warnings) == 5
    assert all("\n" not in warning for warning in warnings)
    assert any("no-config/config.yaml: cannot be read (No such file or directory)" in text for text in warnings)


def test_torn_and_binary_lines_are_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 110, "train/l\n\xff\xfe\n{"step": 120, "train/loss": 5}')
    run = read_run(path)
    assert len(run.rows) == 13
    assert run.rows[-1] == {"step": 120, "train/loss": 5}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "is not a run directory"),
        (lambda path: path.touch(), "a: is a file; name its folder, "),
    ],
)
def test_what_is_no_run_is_bad_input(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "a")
    with pytest.raises(BadInput, match=message):
        read_run(tmp_path / "a")


def test_flat() -> None:
    nested = {"seed": 1, "optimizer": {"lr": 0.1, "betas": [1, 2], "none": None}, "empty": {}}
    assert flat(nested) == {"seed": 1, "optimizer.lr": 0.1, "optimizer.betas": [1, 2], "optimizer.none": None}


def test_differences_tell_absent_from_null(make_run: MakeRun, tmp_path: Path) -> None:
    runs: list[Run] = [
        read_run(make_run(tmp_path / "a", lr=0.1, momentum=0.9, foreach=None)),
        read_run(make_run(tmp_path / "b", lr=0.2, momentum=0.9)),
    ]
    assert differences(runs) == {"optimizer.lr": [0.1, 0.2], "optimizer.foreach": [None, ABSENT]}
    assert differences(runs[:1]) == {}
