"""`optexp task=audit` from the command line: its verdict, what it leaves, its exit status, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import everything_in, here, only_run

from optexp.config.compose import Composer
from optexp.tasks import prepare

OWN = '''
import torch

class Mine(torch.optim.SGD):
    """SGD that forgets its momentum."""

    def step(self, closure=None):
        self.state.clear()
        return super().step(closure)

class LosesState(torch.optim.SGD):
    def load_state_dict(self, state_dict):
        raise KeyError("momentum_buffer")

class Right(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * (p.grad + group["weight_decay"] * p))
'''


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "audited_package.py").write_text(OWN)
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    for name in ("Mine", "Right", "LosesState"):
        lines = [f"# {name}", f"_target_: audited_package.{name}", "lr: 0.1"]
        lines += [] if name == "Right" else ["momentum: 0.9"]
        (tmp_path / "conf" / "optimizer" / f"{name.lower()}.yaml").write_text("\n".join(lines) + "\n")
    return tmp_path


def result(folder: Path) -> dict:
    return json.loads((only_run(folder).path / "result.json").read_text())


def test_a_shipped_optimizer_passes(tmp_path: Path) -> None:
    ended = here(tmp_path, "task=audit", "optimizer=nesterov", "task.steps=30")
    assert ended.status == 0, ended.err
    first, *lines = ended.out.splitlines()
    assert first.startswith("audit: SGD: all ")
    assert "torch docs, SGD" in first
    run, found = only_run(tmp_path), result(tmp_path)
    assert run.status == "completed"
    assert run.info["metrics"]["audit/failed"] == 0
    assert found["rule"]["name"] == "sgd"
    assert found["precision"] == "float64"
    assert found["settings"]["nesterov"] is True
    shown = [check for check in found["checks"] if check["verdict"] == "pass"]
    assert first.split()[3] == str(len(shown)) == str(found["counts"]["passed"])
    assert all(any(line.startswith(check["name"]) for line in lines) for check in shown)
    table = list(csv.DictReader((run.path / "checks.csv").open()))
    assert [row["check"] for row in table] == [check["name"] for check in found["checks"]]


def test_a_wrong_one_of_the_users_own_fails_with_the_first_deviating_step(own_package: Path) -> None:
    words = ("--config-dir", "conf", "task=audit", "optimizer=mine", "trust=[audited_package]", "task.steps=30")
    ended = here(own_package, *words)
    assert ended.status == 6, ended.err
    assert ended.out.startswith("audit: Mine: ")
    assert "alive: momentum" in ended.out.splitlines()[0]
    checks = {check["name"]: check for check in result(own_package)["checks"]}
    assert checks["alive: momentum"]["verdict"] == "fail"
    assert (checks["rule: quadratic"]["verdict"], checks["rule: quadratic"]["step"]) == ("fail", 2)
    assert checks["first step"]["verdict"] == "pass"  # without a memory, the first step is right
    assert only_run(own_package).status == "completed"


def test_one_that_crashes_fails_with_what_it_raises(own_package: Path) -> None:
    words = ("--config-dir", "conf", "task=audit", "optimizer=losesstate", "trust=[audited_package]", "task.steps=30")
    ended = here(own_package, *words)
    assert ended.status == 6, ended.out
    assert "save and load" in ended.out.splitlines()[0]
    assert "raises KeyError: 'momentum_buffer'" in ended.out


def test_what_diverges_is_told_without_warnings(tmp_path: Path) -> None:
    ended = here(tmp_path, "task=audit", "optimizer=sgd", "optimizer.lr=1e60")
    assert "Warning" not in ended.err
    rules = {c["name"]: c for c in result(tmp_path)["checks"] if c["name"].startswith("rule")}
    assert {check["verdict"] for check in rules.values()} == {"not applicable"}
    assert "after step 1" in rules["rule: quadratic"]["explanation"]


def test_a_class_without_a_rule_gets_every_other_check(own_package: Path) -> None:
    words = ("--config-dir", "conf", "task=audit", "optimizer=right", "trust=[audited_package]")
    ended = here(own_package, *words)
    assert ended.status == 0, ended.out
    assert "no published rule is known here for Right" in ended.out
    assert {c["verdict"] for c in result(own_package)["checks"] if c["name"].startswith("rule")} == {"not applicable"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["task.steps=5"], "task.steps=5: allowed is"),
        (["task.rule=adm"], "did you mean 'adam'?"),
        (["task.rule=adam"], "SGD has no argument"),
        (["optimizer.lr=0"], "optimizer.lr=0"),
        (["optimizer.momentun=0.9"], "momentun"),
        (["model=mlp"], "does not use the group 'model'"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, words: list[str], told: str) -> None:
    ended = here(tmp_path, "task=audit", *words)
    assert ended.status == 2
    assert told in ended.err
    assert ended.err.count("\n") == 1
    assert everything_in(tmp_path) == []


def test_a_member_of_a_sweep_tells_its_verdict_and_only_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = prepare(Composer().compose(["task=audit", "optimizer=asgd", "task.steps=20"]))
    (tmp_path / "0").mkdir()
    result = task.run(tmp_path / "0", ["optexp"], [], member="0 asgd")
    assert (result.status, result.objective, result.exit_status) == ("completed", 1.0, 6)
    verdict, heading, failure, where = capsys.readouterr().out.splitlines()
    assert verdict.startswith("audit: ASGD: 1 of ")
    assert heading.startswith("check")
    assert failure.startswith("lr changes  fail")
    assert "pytorch/pytorch#74884" in failure
    assert "1 of them known upstream" in verdict
    assert where.startswith("in ")
