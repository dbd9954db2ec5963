"""optexp diagnose."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from optexp.commands.diagnose import main
from optexp.commands.rerun import main as rerun
from optexp.commands.resume import main as resume
from optexp.diagnosis.causes import CAUSES
from optexp.errors import BadInput
from optexp.records.metrics_file import MetricsFile

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stalled(make_run: MakeRun) -> Path:
    """A run whose updates are a millionth of the weights."""
    path = make_run(Path("outputs/runs/stalled"), lr=1e-4, momentum=0.9, dampening=0.9)
    (path / "metrics.jsonl").unlink()
    file = MetricsFile(path / "metrics.jsonl")
    for step in [1, *range(10, 101, 10)]:
        row = {"step": step, "epoch": step / 20, "time": step / 10, "train/loss": 2.3 + 1e-3 * (step % 3)}
        row |= {"val/loss": 2.31, "val/accuracy": 0.1} if step % 20 == 0 else {}
        file.log(
            row | {"optim/update_ratio": 2e-6, "optim/weight_norm": 20.0, "optim/grad_norm": 1.0, "optim/lr": 1e-4}
        )
    file.close({})
    edit(path, overrides=["experiment=exp2_sgd_B32", "optimizer.lr=1e-4"])
    return path


def edit(path: Path, **fields: object) -> None:
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(info | fields))


def test_outcome_evidence_and_command_are_printed_and_written(
    stalled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(stalled)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "outputs/runs/stalled"
    assert out.splitlines()[1].startswith("stalled  The loss hardly fell: train/loss 2.30")
    assert re.search(r"^1[.] step-too-small \(99 %, 3[.]\d decades\)", out, re.MULTILINE)
    assert re.search(r"^2[.] dampened-momentum \(\d\d %, 1[.]0 decade\)", out, re.MULTILINE)
    assert "dampening exactly 1.0" in out
    assert "experiment=exp2_sgd_B32 optimizer.lr=0.03 optimizer.dampening=0" in out
    written = json.loads((stalled / "diagnosis.json").read_text())
    assert [finding["cause"] for finding in written["findings"]] == ["step-too-small", "dampened-momentum"]
    assert written["findings"][0]["command"].startswith("optexp experiment=exp2_sgd_B32 ")


def test_json_is_what_is_written(stalled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(stalled), "--json"]) == 0
    out = capsys.readouterr().out
    assert out == (stalled / "diagnosis.json").read_text()
    assert json.loads(out)["outcome"] == "stalled"


def test_a_healthy_run_gets_nothing_to_report(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_run(Path("outputs/runs/good")))]) == 0
    assert "\nnothing to report\n" in capsys.readouterr().out


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "diverged", "early_stopped"])
def test_every_status_is_diagnosed(
    make_run: MakeRun, stalled: Path, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(stalled, status=status, reason=None, process=None)
    assert main([str(stalled)]) == 0
    assert capsys.readouterr().out.count("stalled") >= (1 if status == "diverged" else 2)


def test_a_run_that_failed_before_its_first_step(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(Path("outputs/runs/a"))
    (path / "metrics.jsonl").unlink()
    edit(path, status="failed", reason="RuntimeError: out of memory")
    assert main([str(path)]) == 0
    assert "no training loss: RuntimeError: out of memory" in capsys.readouterr().out


def test_the_last_row_is_told_from_the_mean_that_the_outcome_names(
    stalled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The losses of the last two rows, steps 90 and 100, are 2.3 and 2.301."""
    assert main([str(stalled)]) == 0
    outcome = capsys.readouterr().out.splitlines()[1]
    assert "→ 2.3005 (mean of the last rows) in 100 steps" in outcome


def test_a_run_that_is_too_short_gets_one_statement(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(Path("outputs/runs/short"))
    rows = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join(rows[:3]) + "\n")
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].startswith("unknown  Too short to judge: ")
    assert "no cause stands out" not in out


@pytest.mark.parametrize(("verb", "run"), [("diagnose", main), ("resume", resume), ("rerun", rerun)])
def test_a_second_directory_is_named_as_what_is_wrong(
    make_run: MakeRun, verb: str, run: Callable[[list[str]], int]
) -> None:
    """As a glob of the shell gives it."""
    for name in "ab":
        make_run(Path(name))
    with pytest.raises(BadInput, match=f"^{verb} takes one directory; got 2: a b; see optexp {verb} --help$"):
        run(["a", "b"])
    with pytest.raises(BadInput, match=f"^{verb} takes one directory; got 3: a b nope;"):
        run(["a", "trust=[mine]", "b", "nope"])


def test_a_directory_that_cannot_be_written_costs_a_warning(
    stalled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("optexp.commands.diagnose.write_atomically", refuse)
    assert main([str(stalled)]) == 0
    said = capsys.readouterr()
    assert "step-too-small" in said.out
    assert said.err == "warning: outputs/runs/stalled/diagnosis.json: not written (Permission denied)\n"


def test_what_is_no_run_of_training_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nope: no such folder"):
        main(["nope"])
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(BadInput, match="is a sweep"):
        main(["."])
    path = make_run(Path("outputs/runs/task"))
    edit(path, task="audit")
    with pytest.raises(BadInput, match="task=audit"):
        main([str(path)])


def test_help_has_the_vocabulary(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(f"  {cause} " in out for cause in CAUSES)


def test_importing_the_verb_imports_nothing_heavy() -> None:
    code = (
        "import sys, optexp.commands.diagnose\n"
        "print(*({'torch', 'numpy', 'rich', 'hydra', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
