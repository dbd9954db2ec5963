"""Verifications of runs that are trained here: small networks on digits, a few hundred steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import everything_in, here

from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.findings import Diagnosis, Finding
from optexp.diagnosis.history import History
from optexp.errors import BadInput
from optexp.records.reading import Run, find_runs, read_run
from optexp.sweeps.record import SweepRecord
from optexp.verification.text import answer, as_dict, marked
from optexp.verification.verify import Verification, verify

SMALL = ("model=mlp", "model.hidden=[32]", "engine.max_steps=150", "engine.eval_every=30")
REPAIR = ("optimizer.lr=0.03", "optimizer.dampening=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the settings of the second experiment."""
    folder = tmp_path_factory.mktemp("original")
    assert here(folder, "experiment=exp2_sgd_B32", *SMALL, "seed=3").status == 0
    (run,) = find_runs(folder)
    return run.path


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run at another place than it was trained at, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    return read_run(Path(shutil.copytree(trained, "moved")))


def planted(*prescriptions: Sequence[str]) -> Diagnosis:
    """Return a diagnosis that prescribes these."""
    findings = [Finding("step-too-small", 0.9, ("made up",), tuple(words)) for words in prescriptions]
    return Diagnosis("stalled", "made up", tuple(findings))


def verified(run: Run, diagnosis: Diagnosis, seeds: int = 2, steps: int | None = None) -> Verification:
    found = verify(run, diagnosis, seeds, steps)
    assert found is not None
    return found


def folder_of(found: Verification) -> Path:
    assert found.folder is not None
    return found.folder


def test_the_prescription_of_its_own_diagnosis_helps(run: Run) -> None:
    found = verified(run, diagnose(History.of_run(run)), seeds=3)
    assert [trial.judgement.verdict for trial in found.trials] == ["helped"]
    assert found.seeds == [3, 4, 5]
    assert (found.budget.steps, found.exit_status) == (150, 0)
    entry = as_dict(found)["verified"][0]
    assert entry["before"]["outcomes"] == {"stalled": 3}
    assert entry["after"]["outcomes"] == {"trained": 3}
    assert entry["after"]["val/accuracy"]["mean"] > 0.8


def test_the_original_is_the_run_as_recorded(run: Run) -> None:
    """Seed 3 is the run itself, step for step; the folder is a sweep of run directories that everybody can read."""
    found = verified(run, planted(REPAIR))
    record = SweepRecord.read(folder_of(found))
    assert (record.status, len(record.members)) == ("completed", 4)
    assert folder_of(found).parts[:2] == ("outputs", "verifications")
    for member in record.members:
        again = read_run(folder_of(found) / member.directory)
        assert again.info["total_steps"] == 150
        assert again.settings["optimizer.weight_decay"] == run.settings["optimizer.weight_decay"]
    first, repaired = (read_run(folder_of(found) / record.members[number].directory) for number in (0, 2))
    assert first.settings | {"engine.checkpoint_every": None} == run.settings | {"engine.checkpoint_every": None}
    assert first.metrics["val/loss"] == pytest.approx(run.metrics["val/loss"], rel=1e-4)
    changed = {key for key, value in first.settings.items() if repaired.settings[key] != value}
    assert changed == {"optimizer.lr", "optimizer.dampening"}


def test_advice_that_does_not_help_is_shown_and_the_next_is_tried(run: Run) -> None:
    """Useless, harmful, right: in this order."""
    diagnosis = planted(["optimizer.weight_decay=0"], ["optimizer.lr=1e4", "optimizer.dampening=0"], REPAIR)
    found = verified(run, diagnosis)
    assert [trial.judgement.verdict for trial in found.trials] == ["did not help", "did not help", "helped"]
    assert found.helped is found.trials[2]
    content = marked(diagnosis.as_dict(), found)
    assert [finding["verified"]["verdict"] for finding in content["findings"]] == [
        "did not help",
        "did not help",
        "helped",
    ]
    assert content["verification"]["helped"] == list(REPAIR)
    assert (
        f"verified: step-too-small: val/loss {found.original[0].loss:.1f}"[:32] in answer(found, History.of_run(run))[0]
    )
    assert len({end.seed for trial in found.trials for end in trial.ends}) == 2
    assert len(find_runs(folder_of(found))) == 8, "the original is trained once"


def test_two_that_help_only_together_are_tried_together(run: Run) -> None:
    """Each is half a repair: a larger rate, and no dampening."""
    found = verified(run, planted(["optimizer.lr=5e-3"], ["optimizer.dampening=0"]))
    assert len(found.trials) == 3
    assert found.helped is not None
    assert found.helped.prescription.words == ("optimizer.lr=5e-3", "optimizer.dampening=0")
    assert "helped" not in [trial.judgement.verdict for trial in found.trials[:2]]


def test_nothing_that_helps_is_a_result(run: Run) -> None:
    found = verified(run, planted(["optimizer.weight_decay=0"], ["optimizer.weight_decay=1e-6"]))
    assert found.helped is None
    assert found.exit_status == 0
    assert [trial.prescription.words for trial in found.trials] == [
        ("optimizer.weight_decay=0",),
        ("optimizer.weight_decay=1e-6",),
    ], "together they are the first"
    assert answer(found, History.of_run(run)) == ["nothing verified: no repair was found to help"]


def test_a_repair_that_cannot_be_trained_did_not_help(run: Run) -> None:
    unable = (["optimizer.nesterov=true"], ["optimizer.no_such=1"], ["engine.init_from=nowhere"])
    found = verified(run, planted(*unable, REPAIR))
    assert [trial.judgement.verdict for trial in found.trials] == [*["did not help"] * 3, "helped"]
    assert "needs optimizer.dampening=0" in found.trials[0].judgement.reason
    assert len(find_runs(folder_of(found))) == 4


def test_repairs_none_of_which_can_be_trained_leave_nothing(run: Run) -> None:
    before = everything_in(Path())
    found = verified(run, planted(["optimizer.no_such=1"]))
    assert (found.helped, found.folder, found.exit_status) == (None, None, 0)
    assert as_dict(found)["verified"][0]["before"] == {"outcomes": {}, "statuses": {}}
    assert everything_in(Path()) == before


def test_a_run_with_nothing_prescribed_trains_nothing(run: Run) -> None:
    before = everything_in(Path())
    assert verify(run, Diagnosis("trained", "fine")) is None
    assert verify(run, planted([])) is None
    assert everything_in(Path()) == before


def test_a_run_that_cannot_be_trained_again_leaves_nothing(run: Run) -> None:
    run.config["optimizer"]["_target_"] = "somebody.Elses"
    before = everything_in(Path())
    with pytest.raises(BadInput, match=r"moved: cannot be trained again: .*somebody"):
        verify(run, planted(REPAIR))
    assert everything_in(Path()) == before


def test_an_original_that_is_trained_ends_it(run: Run) -> None:
    run.config["optimizer"] |= {"lr": 0.03, "dampening": 0.0}
    found = verified(run, planted(["optimizer.weight_decay=0"], ["optimizer.lr=0.1"]))
    assert found.nothing_to_repair
    assert len(found.trials) == 1
    assert "the original is trained itself" in answer(found, History.of_run(run))[0]


def test_fewer_steps_as_asked_for(run: Run) -> None:
    found = verified(run, planted(REPAIR), steps=40)
    runs = find_runs(folder_of(found))
    assert {each.info["total_steps"] for each in runs} == {40}
    assert [row["step"] for row in runs[0].rows if "val/loss" in row] == [8, 16, 24, 32, 40]


def test_a_place_that_cannot_be_written_gives_way_to_one_here(run: Run) -> None:
    run.config["output_dir"] = "moved/run.json"  # a file
    assert folder_of(verified(run, planted(REPAIR), steps=4)).parts[:2] == ("outputs", "verifications")


def test_the_record_is_plain(run: Run) -> None:
    found = verified(run, planted(REPAIR))
    text = json.dumps(marked(planted(REPAIR).as_dict(), found), allow_nan=False)
    assert json.loads(text)["verification"]["seeds"] == [3, 4]
