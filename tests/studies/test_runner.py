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
from optexp.studies.runner import member_words
from optexp.studies.study import study_files

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


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("optimizer.lr=0.5", "this is what the study tunes; other keys can be set"),
        ("optimizer.momentum=0.5", "this is what the study compares; other keys can be set"),
        ("optimizer=adam", "arm still: optimizer.momentum=0: optimizer=adam takes no 'momentum'"),
        ("seed=3", "a study sets the seeds itself"),
    ],
)
def test_what_is_compared_cannot_be_set(own: Path, word: str, reason: str) -> None:
    ended = here(own, "study=learns", "--config-dir", "mine", word)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("optexp: study=learns: ")
    assert reason in ended.err
    assert not (own / "outputs").exists()


def test_a_study_without_runs_takes_no_words(own: Path) -> None:
    ended = here(own, "study=rare_tokens", "model=mlp")
    assert ended.status == 2
    assert ended.err == "optexp: study=rare_tokens: model=mlp: it trains nothing, so there is nothing to set\n"


def test_of_all_studies_those_that_words_do_not_fit_are_left_out(own: Path) -> None:
    ended = here(own, "study=all", "optimizer.weight_decay=0.25", "--dry-run")
    assert ended.status == 0
    lines = ended.out.splitlines()
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert any("which_fix: optimizer.weight_decay=0.25: this is what" in line for line in left_out)
    assert any(line.startswith("ok: study=") for line in lines)
    assert len(lines) == len(study_files())


def test_a_model_of_the_users_drops_what_was_set_for_another(own: Path) -> None:
    """`common` of the study says model.hidden, which a linear model does not have."""
    ended = here(own, "study=learns", "--config-dir", "mine", "model=linear", "--dry-run")
    assert (ended.status, ended.err) == (0, "")
    ended = here(own, "study=learns", "--config-dir", "mine", "model=linear", "model.hidden=[4]", "--dry-run")
    assert "model.hidden" in ended.err


def test_failed_members_are_trained_again_by_resume(own: Path) -> None:
    node = yaml.safe_load(STUDY)
    del node["tune"]
    node["arms"] = {"still": ["optimizer.lr=1e-9"], "moving": ["optimizer.lr=0.1"]}
    (own / "mine" / "study" / "learns.yaml").write_text(yaml.safe_dump(node))
    assert here(own, "study=learns", "--config-dir", "mine").status == 0
    path, whole = content(own)
    record = json.loads((path / "final" / "sweep.json").read_text())
    lost = record["members"][4]
    info = json.loads((path / "final" / lost["directory"] / "run.json").read_text())
    info["status"], info["last_step"] = "failed", 3
    (path / "final" / lost["directory"] / "run.json").write_text(json.dumps(info))
    (path / "study.json").write_text(json.dumps({**whole, "status": "failed", "answers": {}}))
    ended = here(own, "resume", str(path))
    assert (ended.status, ended.err) == (0, ""), ended.out
    _, again = content(own)
    assert (again["status"], again["answers"]) == ("completed", whole["answers"])


def test_a_study_that_cannot_be_tuned_fails_alone(own: Path) -> None:
    """Every rate diverges, so there is nothing to choose; the other study of the request is answered."""
    hopeless = yaml.safe_load(STUDY)
    hopeless["tune"]["arms"]["moving"]["optimizer.lr"] = [1.0e30, 1.0e31]
    (own / "mine" / "study" / "hopeless.yaml").write_text(yaml.safe_dump(hopeless, sort_keys=False))
    ended = here(own, "study=hopeless,learns", "--config-dir", "mine")
    assert ended.status == 4
    assert "hopeless: no combination of arm 'moving' came to an end on every seed while tuning" in ended.out
    [parent] = own.glob("outputs/studies/*/*-studies")
    assert json.loads((parent / "hopeless" / "study.json").read_text())["status"] == "failed"
    assert json.loads((parent / "learns" / "study.json").read_text())["status"] == "completed"
    page = (parent / "studies.md").read_text()
    assert "- hopeless: failed." in page
    assert "## learns" in page


def test_a_running_study_is_left_alone(own: Path) -> None:
    assert here(own, "study=learns", "--config-dir", "mine", "engine.max_steps=4").status == 0
    path, found = content(own)
    (path / "study.json").write_text(json.dumps({**found, "status": "running"}))  # this very process is alive
    ended = here(own, "resume", str(path))
    assert ended.status == 2
    assert "is still running (process " in ended.err
    assert json.loads((path / "study.json").read_text())["status"] == "running"


def test_a_threshold_that_nobody_reaches_is_no_draw(own: Path) -> None:
    node = yaml.safe_load(STUDY)
    del node["tune"]
    node["arms"] = {"one": ["optimizer.lr=1e-9"], "other": ["optimizer.lr=1e-8"]}
    node["measures"] = {
        "steps": {"of": "val/accuracy", "take": "first_step_at_least", "value": 0.99, "never": "total_steps"}
    }
    node["answers"] = {"faster": {**node["answers"]["learns"], "effect": "one.steps - other.steps", "unit": "steps"}}
    (own / "mine" / "study" / "never.yaml").write_text(yaml.safe_dump(node, sort_keys=False))
    assert here(own, "study=never", "--config-dir", "mine").status == 0
    _, found = content(own, "never")
    assert found["measured"]["one"]["steps"] == [20, 20, 20]
    assert found["answers"]["faster"]["verdict"] == "inconclusive"
    assert found["answers"]["faster"]["text"].startswith("3 of 3 seeds have no effect to measure.")


def test_a_choice_on_the_edge_of_its_grid_is_told(own: Path) -> None:
    node = yaml.safe_load(STUDY)
    node["tune"]["arms"] = {
        "still": {"optimizer.lr": [1.0e-9, 1.0e-8, 1.0e-7]},
        "moving": {"optimizer.lr": [1.0e-9, 0.1, 1.0e30]},
    }
    (own / "mine" / "study" / "learns.yaml").write_text(yaml.safe_dump(node))
    assert here(own, "study=learns", "--config-dir", "mine").status == 0
    _, found = content(own)
    assert found["edges"] == ["still: optimizer.lr=1e-07 is the last of the values tried"]


def test_the_words_of_a_member() -> None:
    assert member_words(["a.x=1", "b.y=2"], ["a.x=3"], ["+b.z=4"]) == ["b.y=2", "a.x=3", "+b.z=4"]
    assert (
        member_words(["model=mlp", "model.hidden=[8]", "engine.epochs=1"], [], ["engine.epochs=2"])[-1]
        == "engine.epochs=2"
    )
    # another model: what all arms set of the old one goes, what each arm sets stays
    assert member_words(["model=mlp", "model.hidden=[8]"], ["model.bias=false"], ["model.width=4", "model=resnet"]) == [
        "model=resnet",
        "model.bias=false",
        "model.width=4",
    ]


def test_studies_are_listed(own: Path) -> None:
    (own / "mine" / "study" / "broken.yaml").write_text("question: 1")
    ended = here(own, "studies", "--config-dir", "mine")
    assert ended.status == 0
    assert "Does a learning rate of 0.1 learn faster than none at all?" in ended.out
    assert "exp1_vs_exp2" in ended.out
    assert "not listed: study/broken.yaml: " in ended.out
