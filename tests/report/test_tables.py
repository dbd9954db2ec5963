"""Tables: aligned, complete in a pipe, as wide as the terminal at most."""

from __future__ import annotations

import pytest

from optexp.records.numbers import measured
from optexp.report import tables
from optexp.report.tables import Column, columns_of, fitting, print_table, table_width

ROWS = [
    {"run": "a/first", "lr": 0.1, "val/loss": 0.5, "status": "completed"},
    {"run": "a/second", "lr": 1e-5, "status": "diverged"},
    {"run": "b/third", "lr": 1, "val/loss": 0.25, "status": "completed"},
]
COLUMNS = [
    Column("run"),
    Column("lr", numeric=True, optional=2),
    Column("val/loss", text=measured, numeric=True),
    Column("status", optional=1, style=lambda status: "red" if status == "diverged" else ""),
]


def test_a_pipe_gets_every_column_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_table(ROWS, COLUMNS) == []
    assert capsys.readouterr().out.splitlines() == [
        "run         lr  val/loss  status",
        "a/first    0.1    0.5000  completed",
        "a/second  1e-5            diverged",
        "b/third      1    0.2500  completed",
    ]


def test_columns_come_from_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert [(column.key, column.numeric) for column in columns_of(ROWS)] == [
        ("run", False),
        ("lr", True),
        ("val/loss", True),
        ("status", False),
    ]
    print_table([{"a": 1}, {"b": None}])
    assert capsys.readouterr().out.splitlines() == ["a  b", "1", "   null"]


def test_optional_columns_are_left_out_highest_first() -> None:
    def kept(width: float) -> list[str]:
        return [column.key for column in fitting(ROWS, COLUMNS, width)]

    assert table_width(ROWS, COLUMNS) == 8 + 4 + 8 + 9 + 3 * 2
    assert kept(35) == ["run", "lr", "val/loss", "status"]
    assert kept(34) == ["run", "val/loss", "status"]
    assert kept(28) == ["run", "val/loss"]
    assert kept(5) == ["run", "val/loss"]


def test_a_terminal_gets_colour_and_only_what_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("optexp.report.tables", "optexp.records.console"):
        monkeypatch.setattr(f"{module}.is_live", lambda: True)
    monkeypatch.setenv("COLUMNS", "34")
    monkeypatch.setenv("TERM", "xterm")
    left_out = print_table(ROWS, COLUMNS)
    out = capsys.readouterr().out
    assert [column.key for column in left_out] == ["lr"]
    assert "\x1b[31mdiverged" in out
    assert "completed" in out
    assert "\x1b[31mcompleted" not in out
    assert tables.terminal_width() == 34


def test_groups_stand_above_their_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"n": 1, "folder": "x"}, {"n": 2, "folder": "x"}, {"n": 3, "folder": "y"}]
    print_table(rows, [Column("n")], group_by="folder")
    assert capsys.readouterr().out.split() == ["n", "x", "1", "2", "y", "3"]
