"""What is made of a sweep's run directories: each member's end, a table, a file for a spreadsheet, a picture."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from optexp.errors import StorageError
from optexp.report.tables import fitting, table_width
from optexp.sweeps.record import MemberRecord, SweepRecord
from optexp.sweeps.summary import _columns, collect, summarize

LR, SEED, MODEL = "optimizer.lr", "seed", "model"


def swept(*keys: str, values: dict[str, list[Any]]) -> SweepRecord:
    """Return the record of a sweep that has not begun, over all combinations of values."""
    members = [
        MemberRecord(number, [], str(number), dict(zip(keys, point, strict=True)))
        for number, point in enumerate(itertools.product(*(values[key] for key in keys)))
    ]
    return SweepRecord(["optexp"], list(keys), members)


def summarized(folder: Path, record: SweepRecord) -> None:
    """Summarize as at the end of a sweep, whose record is on the disk."""
    (folder / "sweep.json").touch()
    record.write(folder)
    summarize(folder, record)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_members_end_as_their_run_directories_tell(tmp_path: Path, make_run: Any) -> None:
    make_run(tmp_path / "0")
    make_run(tmp_path / "1", "diverged", lr=1e30)
    make_run(tmp_path / "2", "failed")
    record = collect(tmp_path, swept(LR, values={LR: [0.1, 1e30, 0.3, 0.4]}))
    assert [member.status for member in record.members] == ["completed", "diverged", "failed", "not started"]
    assert record.members[0].metrics == {"train/loss": 0.1, "val/loss": 0.15}
    assert record.members[1].reason == "the loss of step 100 is not finite"
    assert record.members[1].metrics["train/loss"] is None
    assert (record.members[3].metrics, record.members[3].best) == ({}, None)


def test_the_record_stays_valid_json_whatever_was_measured(tmp_path: Path, make_run: Any) -> None:
    """A run that was killed has its metrics in its rows only, where null stands for what is not a number."""
    path = make_run(tmp_path / "0", None)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 110, "epoch": 22.0, "time": 11.0, "train/loss": null}\n')
    (tmp_path / "sweep.json").touch()  # there is one since the sweep began
    collect(tmp_path, swept(LR, values={LR: [0.1]})).write(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((tmp_path / "sweep.json").read_text(), parse_constant=refuse)
    assert record["members"][0]["metrics"] == {"train/loss": None, "val/loss": 0.15}


def test_a_best_value_that_is_no_number_is_no_best_value(tmp_path: Path) -> None:
    record = swept(LR, SEED, values={LR: [0.1, 0.2], SEED: [1]})
    for member, value in zip(record.members, (None, 0.5), strict=True):
        member.status, member.best = "completed", {"metric": "val/loss", "value": value, "step": 3}
    summarized(tmp_path, record)
    assert [row["best val/loss"] for row in rows_of(tmp_path)] == ["", "0.5"]


def test_members_of_a_foreign_sweeper_are_found_on_disk(tmp_path: Path, make_run: Any) -> None:
    make_run(tmp_path / "b" / "1")
    make_run(tmp_path / "a")
    record = collect(tmp_path, SweepRecord(["optexp"], [], []))
    assert sorted(member.directory for member in record.members) == ["a", "b/1"]
    assert [member.number for member in record.members] == [0, 1]


def test_the_csv_has_every_member_in_order(tmp_path: Path, make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "0")
    make_run(tmp_path / "2", "diverged")
    summarized(tmp_path, collect(tmp_path, swept(LR, SEED, values={LR: [0.1, 1e30], SEED: [1, 2]})))
    rows = rows_of(tmp_path)
    assert [(row["#"], row[LR], row[SEED], row["status"]) for row in rows] == [
        ("0", "0.1", "1", "completed"),
        ("1", "0.1", "2", "not started"),
        ("2", "1e+30", "1", "diverged"),
        ("3", "1e+30", "2", "not started"),
    ]
    assert [row["val/loss"] for row in rows] == ["0.15", "", "0.3", ""]
    assert [row["train/loss"] for row in rows] == ["0.1", "", "", ""]  # not a number is left empty
    out = capsys.readouterr().out
    assert "1 completed, 2 not started, 1 diverged" in out


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ({LR: [0.1, 0.2], "engine.epochs": [1, 2]}, True),
        ({LR: [0.1], "engine.epochs": [1]}, True),
        ({LR: [0.1, 0.2], SEED: [1, 2]}, False),  # seeds are averaged
        ({LR: [0.1, 0.2], MODEL: ["mlp", "linear"]}, False),
        ({LR: [0.1, 0.2], "optimizer.nesterov": [True, False]}, False),
        ({LR: [0.1, None], "engine.epochs": [1, 2]}, False),
        ({LR: [0.1, 0.2]}, False),
        ({LR: [0.1], SEED: [1], "engine.epochs": [1, 2]}, True),
        ({LR: [0.1], "engine.epochs": [1], "engine.log_every": [1, 2]}, False),
    ],
    ids=str,
)
def test_a_heat_map_is_drawn_for_two_numbers(
    tmp_path: Path, make_run: Any, capsys: pytest.CaptureFixture[str], values: dict[str, list[Any]], drawn: bool
) -> None:
    make_run(tmp_path / "0")
    summarized(tmp_path, collect(tmp_path, swept(*values, values=values)))
    assert (tmp_path / "figures" / "heat_map.png").exists() is drawn
    assert ("heat_map.png" in capsys.readouterr().out) is drawn


def test_the_metric_of_the_rank_is_the_first_of_the_means_and_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = swept(LR, SEED, values={LR: [0.1, 0.2], SEED: [1, 2, 3]})
    for member, value in zip(record.members, (0.4, 0.5, 0.6, 0.1, 0.2, 0.3), strict=True):
        member.status, member.metrics = "completed", {"val/loss": value, "val/accuracy": 1 - value}
        member.best = {"metric": "val/loss", "value": value, "step": 3}
    summarized(tmp_path, record)
    lines = capsys.readouterr().out.partition("means over seeds")[2].splitlines()
    assert "ranked by best val/loss, the lowest first (↓)" in lines[0]
    headings = [word for word in lines[1].split("  ") if word]
    assert [heading.strip() for heading in headings] == [
        "lr",
        "best val/loss ↓",
        "±",
        "val/accuracy",
        "±",
        "seeds",
        "lost",
    ]
    assert [line.split()[:2] for line in lines[2:4]] == [["0.2", "0.2000"], ["0.1", "0.5000"]]


def test_a_sweep_without_results_is_summarized_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summarized(tmp_path, swept(LR, SEED, values={LR: [0.1, 0.2], SEED: [1, 2]}))
    assert "4 not started" in capsys.readouterr().out
    assert [row["status"] for row in rows_of(tmp_path)] == ["not started"] * 4
    summarized(tmp_path, SweepRecord(["optexp"], [], []))  # a foreign sweeper that was interrupted at once
    assert rows_of(tmp_path) == []


def test_commands_to_go_on_are_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["optimizer.lr=0.1", "trust=[mine]"]
    members = [MemberRecord(0, words, "0-x", {}, "interrupted"), MemberRecord(1, words, "1-x", {})]
    summarized(tmp_path, SweepRecord(["optexp", "-m", "--config-dir", "my files", *words], [], members))
    lines = [
        line.split("optexp ")[-1]
        for line in capsys.readouterr().out.splitlines()
        if "  resume" in line or "  start" in line
    ]
    assert lines == [f"resume {tmp_path}/0-x 'trust=[mine]'", "--config-dir 'my files' optimizer.lr=0.1 'trust=[mine]'"]


def test_causes_stand_in_the_table_and_are_counted_below_it(
    tmp_path: Path, make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that says more is about the best member with a cause, though one without is better."""
    ends: list[tuple[str, list[str]]] = [
        ("slow", []),
        ("trained", []),
        ("stalled", ["step-too-small", "dampened-momentum"]),
        ("diverged", ["step-too-large"]),
        ("stalled", ["step-too-small"]),
        ("unknown", []),
    ]
    for number, (outcome, causes) in enumerate(ends):
        path = make_run(tmp_path / str(number), "diverged" if outcome == "diverged" else "completed")
        info = json.loads((path / "run.json").read_text()) | {"outcome": outcome, "causes": causes}
        (path / "run.json").write_text(json.dumps(info))
    summarized(tmp_path, collect(tmp_path, swept(LR, values={LR: [0.1, 0.2, 0.3, 1e5, 0.4, 0.5]})))
    first = ["", "", "step-too-small", "step-too-large", "step-too-small", ""]
    assert [row["cause"] for row in rows_of(tmp_path)] == first
    out = capsys.readouterr().out
    assert "outcome   cause           train/loss" in out
    assert "\n  4 did not train well: 2 step-too-small, 1 without a clear cause, 1 step-too-large\n" in out
    assert next(line.split() for line in out.splitlines() if "  why " in line)[2:] == ["diagnose", f"{tmp_path}/2"]
    assert json.loads((tmp_path / "sweep.json").read_text())["members"][2]["causes"] == ends[2][1]


def test_on_a_narrow_terminal_the_cause_is_left_out_after_the_training_loss() -> None:
    row = {"#": 1, LR: 0.1, "status": "completed", "outcome": "stalled", "cause": "step-too-small"}
    row |= {"train/loss": 2.3, "val/loss": 2.3, "val/accuracy": 0.1, "best val/loss": 2.3}
    columns = _columns([LR], [row])
    full = table_width([row], columns)
    widths = (full, full - 1, full - len("  train/loss") - 1)
    left_out = [{c.key for c in columns} - {c.key for c in fitting([row], columns, width)} for width in widths]
    assert left_out == [set(), {"train/loss"}, {"train/loss", "cause"}]


def test_where_all_is_well_nothing_is_said_of_causes(
    tmp_path: Path, make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path / "0")
    info = json.loads((path / "run.json").read_text()) | {"outcome": "trained", "causes": []}
    (path / "run.json").write_text(json.dumps(info))
    summarized(tmp_path, collect(tmp_path, swept(LR, values={LR: [0.1]})))
    assert "cause" not in rows_of(tmp_path)[0]
    out = capsys.readouterr().out
    assert not any(word in out for word in ("cause", "did not train", "  why "))


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the directory of the sweep is gone"):
        collect(tmp_path / "gone", swept(LR, values={LR: [0.1]}))
    with pytest.raises(StorageError, match="cannot write the summary"):
        summarize(tmp_path / "gone", swept(LR, values={LR: [0.1]}))
