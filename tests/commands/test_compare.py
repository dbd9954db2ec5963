"""optexp compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from optexp.commands.compare import letters, main
from optexp.errors import BadInput

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compare(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, list[str]]:
    """Return the lines that were printed, split into words, under their first word."""
    assert main(list(arguments)) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    return {words[0]: words[1:] for words in lines}


def test_differences_and_metrics_side_by_side(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(Path("a"), lr=0.1, momentum=0.9)
    make_run(Path("b"), lr=0.001, target="torch.optim.AdamW", momentum=0.9)
    lines = compare(capsys, "a", "b")
    assert lines["A"] == ["a", "completed"]
    assert lines["config"] == ["A", "B"]
    assert lines["optimizer"] == ["SGD", "AdamW"]
    assert lines["optimizer.lr"] == ["0.1", "0.001"]
    assert not {"optimizer.momentum", "seed", "model.depth"} & set(lines)  # the same in both
    assert lines["val/loss"] == ["0.1500", "0.1500", "A", "B"]
    assert lines["train/accuracy"] == ["0.9000", "0.9000", "A", "B"]
    assert lines["curves:"] == ["comparison.png"]
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_diverged_run_is_never_best(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(Path("a"), lr=0.1)
    path = make_run(Path("b"), lr=9.0, status="diverged")
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(info | {"metrics": {"train/loss": None, "val/loss": 0.01}}))
    lines = compare(capsys, "a", "b", "--png", "c.png")
    assert lines["train/loss"] == ["0.1000", "nan", "A"]
    assert lines["val/loss"] == ["0.1500", "0.0100", "A"]
    assert lines["B"] == ["b", "diverged", "the", "loss", "of", "step", "100", "is", "not", "finite"]
    assert lines["curves:"] == ["c.png"]


def test_equal_configs_from_different_code(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for name, dirty in (("a", False), ("b", True)):
        path = make_run(Path(name))
        info = json.loads((path / "run.json").read_text())
        git = {"commit": "0123456789abcdef", "dirty": dirty}
        (path / "run.json").write_text(json.dumps(info | {"git": git}))
    assert compare(capsys, "a", "b")["(code)"] == ["01234567", "01234567+changes"]
    make_run(Path("c"))
    make_run(Path("d"))
    assert "the configs are the same" in (main(["c", "d"]), capsys.readouterr().out)[1]


def test_a_folder_stands_for_its_runs_and_none_counts_twice(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        make_run(Path(f"sweep/{number}-x"), lr=0.1 * (number + 1))
    lines = compare(capsys, "sweep", "sweep/1-x")
    assert lines["optimizer.lr"] == ["0.1", "0.2", "0.3"]


@pytest.mark.parametrize("width", [60, 80])
def test_many_runs_become_one_line_each(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    for number in range(12):
        make_run(Path(f"sweep/{number}"), lr=0.1 * (number + 1))
    for module in ("optexp.report.tables", "optexp.records.console"):
        monkeypatch.setattr(f"{module}.is_live", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    main(["sweep"])
    lines = capsys.readouterr().out.splitlines()
    heading = next(index for index, line in enumerate(lines) if line.split()[:1] == ["optimizer.lr"])
    table = lines[heading : heading + 14]
    assert max(map(len, table)) <= width
    columns = table[0].split()
    assert "val/loss" in columns
    assert [line.split()[:2] for line in table[1:4]] == [["A", "0.1"], ["B", "0.2"], ["C", "0.3"]]
    assert table[-1].split()[0] == "best"
    assert lines[heading + 14].startswith("a wider terminal also shows:")
    assert "train/accuracy" in lines[heading + 14]


def test_letters() -> None:
    assert [letters(index) for index in (0, 25, 26, 27, 52, 701, 702)] == ["A", "Z", "AA", "AB", "BA", "ZZ", "AAA"]


def test_bad_input(make_run: MakeRun) -> None:
    make_run(Path("a"))
    for arguments, message in (
        (["a", "nope"], "nope: no such folder"),
        (["a"], "found 1 run in a, needs at least two"),
        ([], "DIR"),
        (["a", "a"], "found 1 run"),
    ):
        with pytest.raises(BadInput, match=message):
            main(arguments)
    make_run(Path("b"))
    with pytest.raises(BadInput, match=r"--png no/c\.png: there is no folder no"):
        main(["a", "b", "--png", "no/c.png"])
