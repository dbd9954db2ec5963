"""optexp compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

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
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"], "a verb that reads leaves no files behind"


def test_curves_are_drawn_where_they_are_asked_for(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        make_run(Path(name))
    assert compare(capsys, "a", "b")["curves:"] == ["--png", "FILE", "draws", "them"]
    assert compare(capsys, "a", "b", "--png", "lr.png")["curves:"] == ["lr.png"]
    assert Path("lr.png").read_bytes().startswith(b"\x89PNG")


def test_outcomes_stand_beside_the_status(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for name, outcome in (("a", "trained"), ("b", "stalled"), ("c", None)):
        path = make_run(Path(name))
        info = json.loads((path / "run.json").read_text()) | ({"outcome": outcome} if outcome else {})
        (path / "run.json").write_text(json.dumps(info))
    lines = compare(capsys, "a", "b", "c")
    assert lines["run"] == ["status", "outcome"]
    assert [lines[label] for label in "ABC"] == [
        ["a", "completed", "trained"],
        ["b", "completed", "stalled"],
        ["c", "completed"],
    ]
    make_run(Path("d"))
    assert "outcome" not in compare(capsys, "c", "d")["run"]


def test_the_effective_learning_rate_is_compared_where_it_is_another_than_lr(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(Path("a"), lr=1e-4, momentum=0.9, dampening=0.9)
    make_run(Path("b"), lr=1e-2, momentum=0.9, dampening=0.0)
    make_run(Path("c"), lr=1e-3, target="torch.optim.Adam")
    make_run(Path("d"), lr=1e-1)
    assert compare(capsys, "a", "b")["(effective"] == ["lr)", "0.0001", "0.1"]
    assert compare(capsys, "b", "c")["(effective"] == ["lr)", "0.1"]
    assert "(effective" not in compare(capsys, "c", "d")  # where lr says it all
    assert "(effective" not in compare(capsys, "b", "d")  # 0.1 both


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
    below = lines[heading + 15 :]
    assert "train/accuracy" in " ".join(below)
    assert max(map(len, below)) <= width
    assert any(line.split()[:1] == ["L"] for line in below)


def test_a_pipe_has_lines_that_can_be_read(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(24):
        make_run(Path(f"sweep/{number}"), lr=0.1 * (number + 1))
    main(["sweep"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    for word in ("val/loss", "train/loss", "train/accuracy", "optimizer.lr"):
        assert word in out  # nothing is left out


def test_many_runs_are_averaged_over_their_seeds(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    losses = {0.1: (0.1, 0.2, 0.4), 0.2: (0.3, 0.3, 0.6), 0.3: (0.01, 0.01, 0.01)}
    for lr, values in losses.items():
        for seed, loss in enumerate(values):
            status = "diverged" if (lr, seed) == (0.3, 2) else "completed"
            path = make_run(Path(f"sweep/{lr},{seed}"), status=status, lr=lr, seed=seed)
            info = json.loads((path / "run.json").read_text())
            (path / "run.json").write_text(json.dumps(info | {"metrics": {"val/loss": loss}}))
    assert main(["sweep"]) == 0
    out = capsys.readouterr().out
    lines = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert lines["optimizer.lr"] == ["0.1", "0.2", "0.3"]
    assert "seed" not in lines
    assert lines["seeds"] == ["3", "3", "3"]
    assert lines["lost"] == ["0", "0", "1"]
    means = [sum(values[:3]) / 3 for values in losses.values()]
    half = stats.t.interval(0.95, 2, loc=means[0], scale=stats.sem(losses[0.1]))[1] - means[0]
    assert lines["val/loss"][:3] == [f"{means[0]:.4f}", "±", f"{half:.4f}"]
    assert lines["val/loss"][-2:] == ["0.0100", "A"]  # two survivors have no interval, and are not the best
    assert "means over seeds" in out


def test_few_runs_are_shown_one_by_one(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(6):
        make_run(Path(f"sweep/{seed}"), seed=seed)
    assert compare(capsys, "sweep")["seed"] == ["0", "1", "2", "3", "4", "5"]


def test_a_remark_is_no_setting(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    for name, remark in (("a", "some words that are long"), ("b", "null")):
        with (make_run(Path(name)) / "config.yaml").open("a") as file:
            file.write(f"remark: {remark}\n")
    lines = compare(capsys, "a", "b")
    assert "remark" not in lines
    assert lines["the"] == ["configs", "are", "the", "same"]
    assert lines["remarks"] == []
    assert lines["A"] == ["some", "words", "that", "are", "long"]


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
