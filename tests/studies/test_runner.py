"""A study from the command line: what it trains, what it measures, and how it goes on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import here
from scipy import stats

from optexp.records.reading import read_run
from optexp.studies.runner import latest

STUDY = """
question: Does a learning rate of 0.1 learn faster than none at all?
claim: [C1]
source: "000"
limits: Twenty steps of a tiny network, to test the machinery of studies.
seeds: 3
common: [model=mlp, "model.hidden=[8]", optimizer=sgd, schedule=constant, engine.max_steps=20, engine.eval_every=10]
arms:
  still: [optimizer.momentum=0]
  moving: [optimizer.momentum=0.9]
tune:
  seeds: 2
  arms:
    still: {optimizer.lr: [0.0, 1.0e-9]}
    moving: {optimizer.lr: [1.0e-9, 0.1]}
measures:
  loss: {of: val/loss, take: last}
answers:
  learns:
    statement: the loss is lower with a learning rate
    effect: still.loss - moving.loss
    unit: nats
    supported_if: above
    smallest: 0.05
    if_supported: It learns.
    if_refuted: It does not learn.
    if_inconclusive: More seeds would tell.
  two_buffers:
    statement: Adam keeps two numbers for each parameter
    probe: state_per_parameter
    arguments: {optimizer: {name: Adam}}
    unit: numbers per parameter
    supported_if: above
    smallest: 1.5
    interval: exact
    if_supported: It does.
    if_refuted: It does not.
    if_inconclusive: This is not a matter of seeds.
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a study of one's own."""
    (tmp_path / "mine" / "study").mkdir(parents=True)
    (tmp_path / "mine" / "study" / "learns.yaml").write_text(STUDY)
    return tmp_path


def content(folder: Path, name: str = "learns") -> tuple[Path, dict[str, Any]]:
    [file] = folder.glob(f"outputs/studies/*/*{name}/study.json")
    return file.parent, json.loads(file.read_text())


def test_a_study_tunes_trains_measures_and_answers(own: Path) -> None:
    ended = here(own, "study=learns", "--config-dir", "mine")
    assert (ended.status, ended.err) == (0, "")
    path, found = content(own)
    assert found["status"] == "completed"
    assert found["chosen"]["moving"] == ["optimizer.lr=0.1"]
    assert found["runs"] == {"tune": {"completed": 8}, "final": {"completed": 6}}
    members = json.loads((path / "final" / "sweep.json").read_text())["members"]
    losses = {arm: [0.0] * 3 for arm in ("still", "moving")}
    for member in members:
        run = read_run(path / "final" / member["directory"])
        losses[member["swept"]["arm"]][member["swept"]["seed"]] = run.rows[-1]["val/loss"]
        assert run.config["seed"] == member["swept"]["seed"]
        assert run.config["optimizer"]["lr"] == (
            0.1 if member["swept"]["arm"] == "moving" else run.config["optimizer"]["lr"]
        )
    assert found["measured"]["moving"]["loss"] == losses["moving"]
    answer = found["answers"]["learns"]
    expected = stats.ttest_rel(losses["still"], losses["moving"]).confidence_interval(0.975)  # two answers share 5 %
    assert answer["interval"]["low"] == pytest.approx(expected.low)
    assert answer["interval"]["high"] == pytest.approx(expected.high)
    assert (answer["verdict"], answer["text"]) == ("supported", "It learns.")
    assert found["answers"]["two_buffers"]["interval"] == {
        "estimate": 2.0,
        "low": 2.0,
        "high": 2.0,
        "level": 0.975,
        "n": 1,
        "method": "exact",
    }
    tuned = json.loads((path / "tune" / "sweep.json").read_text())["members"]
    assert {member["swept"]["seed"] for member in tuned} == {1000, 1001}
    assert "supported" in ended.out


def test_words_of_the_command_line_go_to_all_arms(own: Path) -> None:
    ended = here(own, "study=learns", "--config-dir", "mine", "engine.max_steps=4", "model.hidden=[4]")
    assert ended.status == 0
    path, found = content(own)
    for member in json.loads((path / "final" / "sweep.json").read_text())["members"]:
        config = read_run(path / "final" / member["directory"]).config
        assert (config["engine"]["max_steps"], config["model"]["hidden"]) == (4, [4])
    assert found["words"] == ["engine.max_steps=4", "model.hidden=[4]"]


def test_nothing_is_created_when_some_member_is_wrong(own: Path) -> None:
    for words in (["study=learns", "optimizer.lr=much"], ["study=learn"], ["study=learns", "seed=1,2"]):
        ended = here(own, *words, "--config-dir", "mine")
        assert ended.status == 2
        assert len(ended.err.splitlines()) == 1
    assert not (own / "outputs").exists()


def test_a_dry_run_says_how_many_runs_there_are(own: Path) -> None:
    ended = here(own, "study=learns,exp1_vs_exp2", "--config-dir", "mine", "--dry-run")
    assert ended.out.splitlines() == ["ok: study=learns, 14 runs to begin with", "ok: study=exp1_vs_exp2, 24 runs"]
    assert not (own / "outputs").exists()


def test_a_study_goes_on_with_what_is_missing(own: Path) -> None:
    """By the rule that it began with, though the file has changed."""
    assert here(own, "study=learns", "--config-dir", "mine").status == 0
    path, whole = content(own)
    record = json.loads((path / "final" / "sweep.json").read_text())
    lost = record["members"][2]
    shutil.rmtree(path / "final" / lost["directory"])
    lost.update(status="not started", metrics={}, best=None)
    (path / "final" / "sweep.json").write_text(json.dumps(record))
    (path / "study.json").write_text(json.dumps({**whole, "status": "interrupted", "answers": {}}))
    untouched = {file: file.stat().st_mtime_ns for file in path.glob("*/*/run.json")}
    (own / "mine" / "study" / "learns.yaml").write_text(STUDY.replace("0.05", "100"))
    ended = here(own, "resume", str(path))
    assert (ended.status, ended.err) == (0, "")
    _, again = content(own)
    assert again["measured"] == whole["measured"]
    assert again["answers"] == whole["answers"]
    assert {file: file.stat().st_mtime_ns for file in untouched} == untouched


def test_several_studies_are_one_request(own: Path) -> None:
    (own / "mine" / "study" / "again.yaml").write_text(STUDY)
    ended = here(own, "study=learns,again", "--config-dir", "mine", "engine.max_steps=4")
    assert ended.status == 0
    [parent] = own.glob("outputs/studies/*/*-studies")
    assert {file.parent.name for file in parent.glob("*/study.json")} == {"learns", "again"}
    assert here(own, "resume", str(parent)).status == 0


def test_factors_are_ranked_by_what_they_do(own: Path) -> None:
    """Against the numbers of the eight runs: sign tables of a 2² design."""
    node = yaml.safe_load(STUDY)
    del node["tune"], node["arms"]
    node["factors"] = {
        "lr": {"from": ["optimizer.lr=1e-9"], "to": ["optimizer.lr=0.1"]},
        "decay": {"from": ["optimizer.weight_decay=0"], "to": ["optimizer.weight_decay=1e-9"]},
    }
    node.update(seeds=2, effects_on=["loss", "log10(rate)"])
    node["measures"]["rate"] = {"of": "optim/effective_lr", "take": "last"}
    node["answers"] = {"lr": {**node["answers"]["learns"], "effect": "-main(lr, loss)"}}
    (own / "mine" / "study" / "factorial.yaml").write_text(yaml.safe_dump(node, sort_keys=False))
    ended = here(own, "study=factorial", "--config-dir", "mine")
    assert (ended.status, ended.err) == (0, "")
    path, found = content(own, "factorial")
    assert found["effects"]["loss"][0]["factors"] == ["lr"]
    measured = found["measured"]
    for row in found["effects"]["loss"]:
        signs = {arm: math.prod(1 if factor in arm.split("_") else -1 for factor in row["factors"]) for arm in measured}
        by_hand = [sum(signs[arm] * measured[arm]["loss"][seed] for arm in measured) / 2 for seed in (0, 1)]
        assert row["per_seed"] == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
        # two differences: the interval of the paired t test, at the level that three of them share
        error = stats.sem(by_hand) or 1e-300  # without any difference a point
        low, high = stats.t.interval(1 - 0.05 / 3, 1, loc=sum(by_hand) / 2, scale=error)
        assert (row["interval"]["low"], row["interval"]["high"]) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    [rate] = [row for row in found["effects"]["log10(rate)"] if row["factors"] == ["lr"]]
    assert rate["interval"]["estimate"] == pytest.approx(8)
    told = ended.out[ended.out.index("main effects and interactions, largest first") :]
    assert [line.split()[:2] for line in told.splitlines()[3:4]] == [["loss", "lr"]]
    assert "Main effects and interactions" in (path / "report.html").read_text()


def test_a_failed_arm_makes_the_answer_inconclusive(own: Path) -> None:
    """An effect that some seed does not have is not the mean over the others."""
    node = yaml.safe_load(STUDY)
    del node["tune"]
    node["arms"]["moving"] = ["optimizer.momentum=0.9", "optimizer.lr=1e30"]
    node["arms"]["still"] += ["optimizer.lr=0.0"]
    (own / "mine" / "study" / "learns.yaml").write_text(yaml.safe_dump(node))
    ended = here(own, "study=learns", "--config-dir", "mine")
    assert ended.status == 0
    _, found = content(own)
    answer = found["answers"]["learns"]
    assert answer["verdict"] == "inconclusive"
    assert answer["text"].startswith("3 of 3 seeds have no effect to measure.")
    assert answer["interval"] is None


def test_of_equal_keys_the_last_word_stays() -> None:
    assert latest(["model=a", "x=1", "model=b", "+y=2", "x=3"]) == ["model=b", "+y=2", "x=3"]


def test_studies_are_listed(own: Path) -> None:
    (own / "mine" / "study" / "broken.yaml").write_text("question: 1")
    ended = here(own, "studies", "--config-dir", "mine")
    assert ended.status == 0
    assert "Does a learning rate of 0.1 learn faster than none at all?" in ended.out
    assert "exp1_vs_exp2" in ended.out
    assert "not listed: study/broken.yaml: " in ended.out
