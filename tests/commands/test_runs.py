"""optexp runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from optexp.commands.runs import main
from optexp.errors import BadInput

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_runs_are_listed_with_their_main_numbers(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(Path("outputs/runs/a"), lr=0.1)
    make_run(Path("outputs/runs/b"), lr=1e-4, status="diverged")
    assert main([]) == 0
    heading, first, second, _, summary = capsys.readouterr().out.splitlines()
    names = ["run", "status", "dataset", "model", "optimizer", "lr", "steps", "val/loss", "val/acc", "time", "started"]
    assert heading.split() == names
    values = ["outputs/runs/a", "completed", "digits", "resnet", "sgd", "0.1", "100", "0.1500", "10.0", "s"]
    assert first.split()[:10] == values
    assert second.split()[:2] == ["outputs/runs/b", "diverged"]
    assert summary == "2 runs in outputs: 1 completed, 1 diverged"


def test_the_effective_learning_rate_stands_beside_lr_where_it_is_another(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(Path("outputs/a"), lr=1e-4, momentum=0.9, dampening=0.9)
    make_run(Path("outputs/b"), lr=1e-2, momentum=0.9, dampening=0.0)
    make_run(Path("outputs/c"), lr=1e-3, target="torch.optim.Adam")
    main([])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert "  lr  effective lr  steps" in heading
    assert [line.split()[5:-6] for line in lines[:3]] == [["0.0001"], ["0.01", "0.1"], ["0.001"]]
    main(["outputs/a"])
    assert "effective" not in capsys.readouterr().out


def test_an_unfinished_run_shows_how_far_it_is(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(Path("outputs/a"), status=None)
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(info | {"total_steps": 400}))
    main([])
    assert {"running", "100/400", "0.1500"} <= set(capsys.readouterr().out.splitlines()[1].split())


def test_runs_of_verifications_are_left_out_unless_their_folder_is_named(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(Path("outputs/runs/a"))
    for name in ("0-original,seed=0", "1-step-too-small,seed=0"):
        make_run(Path("outputs/verifications/2026-01-31/120000-a") / name)
    for words in ([], ["outputs"], ["."]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "original" not in out
        assert f"\n1 run in {'.' if words == ['.'] else 'outputs'}: 1 completed\n" in out
        assert out.splitlines()[-1] == "left out: 2 of verifications (optexp runs outputs/verifications)"
    main(["--json"])
    assert [record["path"] for record in json.loads(capsys.readouterr().out)] == ["outputs/runs/a"]
    for folder in ("outputs/verifications", "outputs/verifications/2026-01-31"):
        main([folder])
        out = capsys.readouterr().out
        assert f"2 runs in {folder}: 2 completed" in out
        assert "left out" not in out


def test_paths_stand_above_their_runs_when_there_is_little_room(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("runs/2026-01-31/12-00-00-a", "sweeps/2026-01-31/13-00-00-s/0-b", "sweeps/2026-01-31/13-00-00-s/1-c"):
        make_run(Path("outputs") / name)
    for module in ("optexp.report.tables", "optexp.records.console"):
        monkeypatch.setattr(f"{module}.is_live", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    main([])
    lines = capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [
        "outputs/runs/2026-01-31",
        "12-00-00-a",
        "outputs/sweeps/2026-01-31/13-00-00-s",
        "0-b",
        "1-c",
    ]
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "a wider terminal also shows: steps, time, started"


def test_json_has_everything(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(Path("outputs/a"), status="diverged", lr=0.5)
    assert main(["--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert record["path"] == "outputs/a"
    assert record["status"] == "diverged"
    assert record["metrics"]["train/loss"] is None
    assert record["config"]["optimizer"]["lr"] == 0.5
    assert main(["outputs", "--json"]) == 0


def test_nothing_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "no runs in outputs yet" in capsys.readouterr().out
    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_broken_run_costs_a_warning_and_not_the_list(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(Path("outputs/good"))
    (make_run(Path("outputs/bad")) / "run.json").write_text("{")
    assert main([]) == 0
    said = capsys.readouterr()
    assert "1 run in outputs: 1 completed" in said.out
    assert said.err.startswith("warning: left out outputs/bad/run.json: cannot be read")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "message"), [(["nope"], "nope: no such folder"), (["--jsn"], "--jsn")])
def test_bad_input(arguments: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        main(arguments)


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "usage: optexp runs" in (out := capsys.readouterr().out)
    assert "  optexp runs outputs/sweeps" in out
