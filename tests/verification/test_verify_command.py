"""`optexp diagnose RUN --verify`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import everything_in, here, in_a_process, only_run, runs_in, start

from optexp.records.reading import find_runs
from optexp.sweeps.record import SweepRecord

EXP2 = ("experiment=exp2_sgd_B32", "model=mlp", "model.hidden=[32]", "engine.max_steps=150", "engine.eval_every=30")

PACKAGE = '''
import torch


class Own(torch.optim.SGD):
    """SGD that cannot take learning rates above 0.5: after its third step it raises."""

    def __init__(self, params, lr: float = 1e-4, momentum: float = 0.9, dampening: float = 0.9):
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening)
        self.steps = 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps == 3 and self.param_groups[0]["lr"] > 0.5:
            raise ArithmeticError("planted")
        return super().step(closure)
'''


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exp2")
    assert here(folder, *EXP2).status == 0
    return only_run(folder).path


def test_from_the_command_line(original: Path, tmp_path: Path) -> None:
    """The repair is verified, recorded in diagnosis.json, and still there when the run is diagnosed again."""
    ended = here(tmp_path, "diagnose", str(original), "--verify", "--seeds", "2")
    assert ended.status == 0, ended.err
    out = ended.out
    assert "150 steps each: as many as the run has" in out
    assert "in outputs/verifications/" in out
    assert "\n1. step-too-small: helped: val/loss is lower, and the outcome better on all 2 seeds; improvement " in out
    assert "\nverified: step-too-small: val/loss 2.3" in out
    assert out.splitlines()[-1].startswith("   run  ")
    written = json.loads((original / "diagnosis.json").read_text())
    assert written["verified"][0]["verdict"] == "helped"
    assert written["findings"][0]["verified"]["after"]["outcomes"] == {"trained": 2}
    assert "verified" not in written["findings"][1]
    assert written["verification"]["command"] == out.splitlines()[-1].split("optexp ")[1].join(["optexp ", ""])
    again = here(tmp_path, "diagnose", str(original))
    assert "tried before  helped: val/loss is lower" in again.out
    assert json.loads((original / "diagnosis.json").read_text()) == written


def test_with_json_the_answer_alone_is_on_standard_output(original: Path, tmp_path: Path) -> None:
    ended = here(tmp_path, "diagnose", str(original), "--json", "--verify", "--seeds", "2", "--steps", "20")
    assert ended.status == 0
    assert ended.out == (original / "diagnosis.json").read_text()
    assert json.loads(ended.out)["verification"]["steps"] == 20
    assert "verification: original and repair on seeds 0, 1, 20 steps each: as asked for" in ended.err


def test_a_healthy_run_trains_nothing(tmp_path: Path) -> None:
    assert here(tmp_path, *EXP2, "optimizer.lr=0.03", "optimizer.dampening=0").status == 0
    ended = here(tmp_path, "diagnose", str(only_run(tmp_path).path), "--verify")
    assert ended.status == 0
    assert "nothing to report" in ended.out
    assert "nothing to verify: no cause was found" in ended.out
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["runs"]


def test_a_member_of_a_sweep(tmp_path: Path) -> None:
    assert here(tmp_path, "-m", *EXP2, "seed=4,5", "hydra.sweep.dir=sweep").status == 0
    ended = here(tmp_path, "diagnose", "sweep/1-seed=5", "--verify", "--seeds=2")
    assert ended.status == 0, ended.err
    assert "on seeds 5, 6," in ended.out
    assert "verified: step-too-small" in ended.out


def test_a_run_whose_directory_cannot_be_written(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("optexp.commands.diagnose.write_atomically", refuse)
    ended = here(tmp_path, "diagnose", str(original), "--verify", "--seeds=2")
    assert ended.status == 0
    assert "verified: step-too-small" in ended.out
    assert "diagnosis.json: not written (Permission denied)" in ended.err


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A folder with a package of the user's, and a run of its optimizer."""
    (tmp_path / "verified_package.py").write_text(PACKAGE)
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    node = "# own\n_target_: verified_package.Own\nlr: 1e-4\nmomentum: 0.9\ndampening: 0.9\n"
    (tmp_path / "conf" / "optimizer" / "own.yaml").write_text(node)
    words = [word for word in EXP2 if not word.startswith("experiment")]
    own = ("--config-dir", "conf", "optimizer=own", "schedule=constant", "trust=[verified_package]")
    assert here(tmp_path, *own, *words).status == 0
    yield tmp_path
    sys.modules.pop("verified_package", None)


def test_code_of_the_users_needs_to_be_trusted(own: Path) -> None:
    run = str(only_run(own).path)
    refused = here(own, "diagnose", run, "--verify")
    assert refused.status == 2
    assert "trust=[verified_package]" in refused.err
    assert [path for path in everything_in(own) if "verifications" in path] == []
    ended = here(own, "diagnose", run, "--verify", "--seeds=2", "trust=[verified_package]")
    assert ended.status == 0, ended.err
    assert "verified: step-too-small" in ended.out
    assert "run  " in ended.out.splitlines()[-1]
    assert "--config-dir conf" in ended.out.splitlines()[-1]


def test_members_that_fail_fail_once_and_are_said(own: Path) -> None:
    """A rate that this optimizer breaks at is prescribed where the recorded one is a ten-thousandth of that."""
    path = only_run(own).path
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.0001", "lr: 0.6"))
    ended = here(own, "diagnose", str(path), "--verify", "--seeds=2", "trust=[verified_package]")
    assert ended.status == 4, ended.err
    assert "0 of 2 seeds have the val/loss of both (failed: ArithmeticError: planted); it takes two" in ended.out
    assert "nothing verified" in ended.out
    (folder,) = (own / "outputs" / "verifications").glob("*/*")
    assert len(find_runs(folder)) == 4, "no other repair can be compared with an original that has come to nothing"
    assert {run.info["resumed"] for run in find_runs(folder)} == {0}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--seeds", "1", "--verify"], "--seeds 1: allowed is a number of at least 2"),
        (["--steps", "0", "--verify"], "--steps 0: allowed is a number of at least 1"),
        (["--seeds", "3"], "--seeds 3: is of a verification; add --verify"),
        (["--seeds", "many", "--verify"], "invalid int value"),
    ],
)
def test_what_is_refused(original: Path, tmp_path: Path, words: list[str], text: str) -> None:
    ended = here(tmp_path, "diagnose", str(original), *words)
    assert (ended.status, text in ended.err) == (2, True), ended.err
    assert everything_in(tmp_path) == []


@pytest.mark.slow
def test_an_interrupted_verification_says_where_its_runs_are(original: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "diagnose", str(original), "--verify", "--steps", "1000000")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob("outputs/verifications/*/*/*/metrics.jsonl")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted: nothing more was trained; what there is lies in outputs/verifications/" in out
    (folder,) = tmp_path.glob("outputs/verifications/*/*")
    assert SweepRecord.read(folder).status == "interrupted"
    assert json.loads((original / "diagnosis.json").read_text())["verification"]["interrupted"] is True


@pytest.mark.slow
def test_the_second_experiment_is_verified_at_95_percent(tmp_path: Path) -> None:
    """As it is shipped, on the residual network."""
    assert in_a_process(tmp_path, "experiment=exp2_sgd_B32").status == 0
    (run,) = runs_in(tmp_path)
    ended = in_a_process(tmp_path, "diagnose", str(run.path), "--verify", "--json")
    assert ended.status == 0, ended.err
    entry = json.loads(ended.out)["verified"][0]
    assert (entry["verdict"], entry["causes"]) == ("helped", ["step-too-small"])
    assert entry["after"]["val/accuracy"]["mean"] >= 0.95
    assert entry["before"]["val/accuracy"]["high"] < 0.3


@pytest.mark.slow
def test_a_rate_that_is_too_large_is_verified(tmp_path: Path) -> None:
    assert in_a_process(tmp_path, "experiment=lr_too_large").status in (0, 3)
    (run,) = runs_in(tmp_path)
    ended = in_a_process(tmp_path, "diagnose", str(run.path), "--verify", "--json")
    entry = json.loads(ended.out)["verified"][0]
    assert (entry["verdict"], entry["causes"]) == ("helped", ["step-too-large"])
    assert entry["after"]["val/accuracy"]["mean"] >= 0.95
