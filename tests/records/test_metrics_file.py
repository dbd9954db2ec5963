"""metrics.jsonl: valid lines, soon on the disk, cut back for a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from optexp.errors import StorageError
from optexp.records.metrics_file import MetricsFile, parse_row


def test_rows_are_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    row = {"step": 1, "train/loss": 0.1, "optim/grad_norm": math.inf}
    file.log(row)
    row |= {"step": 2, "train/loss": math.nan, "optim/grad_norm": -math.inf, "big": 1e308}
    file.log(row)
    row.clear()  # it is the caller's again
    file.close({})
    assert [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()] == [
        {"step": 1, "train/loss": 0.1, "optim/grad_norm": None},
        {"step": 2, "train/loss": None, "optim/grad_norm": None, "big": 1e308},
    ]


def test_values_come_back_exactly(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m")
    file.log({"step": 7, "train/loss": 0.1 + 0.2})
    file.close({})
    assert parse_row((tmp_path / "m").read_text()) == {"step": 7, "train/loss": 0.1 + 0.2}


def test_truncation_drops_later_steps_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in (1, 2, 2, 3):
        file.log({"step": step})
    file.close({})
    with path.open("a") as torn:
        torn.write('{"step": 1, "tra')
    resumed = MetricsFile(path)
    resumed.truncate_after(2)
    assert len(path.read_text().splitlines()) == 3
    resumed.log({"step": 3, "train/loss": 1.0})
    resumed.close({})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"step": 1}, {"step": 2}, {"step": 2}, {"step": 3, "train/loss": 1.0}]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Is a directory"):
        MetricsFile(tmp_path)
    file = MetricsFile(Path("/dev/full"))
    with pytest.raises(StorageError, match="/dev/full: No space left on device"):
        file.log({"step": 1})
    file.close({})


@pytest.mark.parametrize("line", ["", "{", "[1]", '{"epoch": 1}', '{"step": "1"}'])
def test_what_is_no_row_is_none(line: str) -> None:
    assert parse_row(line) is None
