"""One test per documented command that is not a sweep: through the real command line, or in this process."""

from __future__ import annotations

import csv
import json
import math
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Ended, everything_in, here, in_a_process, only_run, runs_in

from optexp.errors import StorageError
from optexp.records.reading import read_run
from optexp.records.run_directory import RunRecord


class Default:
    """The default run with fewer steps, made by `python -m optexp` and piped."""

    words = ("engine.max_steps=21", "engine.eval_every=10", "engine.log_every=5")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: Ended = in_a_process(folder, *self.words)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Default:
    return Default(tmp_path_factory.mktemp("default"))


def test_the_default_run_leaves_a_complete_run_directory(default: Default) -> None:
    assert (default.ended.status, default.ended.err) == (0, "")
    run = only_run(default.folder)
    assert (run.status, run.last_step, run.choice("model"), run.choice("dataset")) == (
        "completed",
        21,
        "resnet",
        "digits",
    )
    assert {path.name for path in run.path.iterdir()} == {
        ".hydra",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "run.json",
        "tensorboard",
    }
    assert run.info["overrides"] == list(Default.words)
    assert run.info["command"] == "optexp " + " ".join(Default.words)
    assert [row["step"] for row in run.rows] == [1, 5, 10, 15, 20, 21]
    assert [row["step"] for row in run.rows if "val/loss" in row] == [10, 20, 21]
    assert run.info["best"]["value"] == min(row["val/loss"] for row in run.rows if "val/loss" in row)


def test_piped_output_is_plain_and_says_what_came_out(default: Default) -> None:
    out, run = default.ended.out, only_run(default.folder)
    assert "\x1b" not in out
    assert "\r" not in out
    where = run.path.relative_to(default.folder)
    for expected in (
        f"  in {where}",
        "digits: 1,257, 270, 270 samples (train, validation, test), batch 32",
        "completed  21 of 21 steps",
        f"  results      {where}",
        f" --logdir {where}",
    ):
        assert expected in out
    val_loss = run.metrics["val/loss"]
    assert f"{val_loss:.4f}" in next(line for line in out.splitlines() if line.split()[:1] == ["val"])


def test_the_documented_run_takes_its_arguments(tmp_path: Path) -> None:
    words = ["optimizer=sgd", "optimizer.dampening=0", "model=mlp", "engine.max_steps=2"]
    ended = here(tmp_path, *words)
    assert (ended.status, ended.err) == (0, "")
    run = only_run(tmp_path)
    assert run.config["optimizer"]["dampening"] == 0
    assert run.config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert run.path.name.endswith("-digits-mlp-sgd")


def test_a_language_model_is_compared_with_a_bigram_model(tmp_path: Path) -> None:
    words = ["model=transformer", "dataset=pydocs", "optimizer=adamw", "schedule=cosine", "engine.max_steps=2"]
    ended = here(tmp_path, *words)
    assert (ended.status, ended.err) == (0, "")
    run = only_run(tmp_path)
    (_, tokens), (name, bigram) = run.info["baselines"].items()
    assert "bigram" in name
    assert bigram < tokens < math.log(256)
    assert 2.1 < bigram < 2.6
    assert 3 < (run.metrics["val/loss"] or 0) < math.log(256) + 1  # untrained: about the entropy of the alphabet
    line = next(line for line in ended.out.splitlines() if name in line)
    assert f"{bigram:.4f}" in line


def test_a_run_that_diverges_is_a_result(tmp_path: Path) -> None:
    ended = here(tmp_path, *TINY, "optimizer.lr=1e30")
    assert (ended.status, ended.err) == (3, "")
    run = only_run(tmp_path)
    assert run.status == "diverged"
    assert run.last_step == 1
    assert "step 2" in run.info["reason"]
    assert run.info["reason"] in ended.out


def test_a_dry_run_checks_and_makes_nothing(tmp_path: Path) -> None:
    ended = here(tmp_path, "optimizer.lr=0.3", "name='my run'", "--dry-run")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("ok: optexp optimizer.lr=0.3 ")
    assert everything_in(tmp_path) == []


def test_flags_and_experiments_in_the_middle(tmp_path: Path) -> None:
    ended = here(tmp_path, "seed=4", "--dry-run", "+experiment=exp2_sgd_B32", "name=x")
    assert (ended.status, ended.out) == (0, "ok: optexp seed=4 experiment=exp2_sgd_B32 name=x\n")


@pytest.mark.parametrize(("words", "ending"), [(["name='my first run!'"], "-my-first-run"), ([], "-digits-mlp-sgd")])
def test_a_run_is_named_as_asked(tmp_path: Path, words: list[str], ending: str) -> None:
    assert here(tmp_path, *TINY, *words).status == 0
    assert only_run(tmp_path).path.name.endswith(ending)


class Noon(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Noon:
        return cls(2026, 1, 31, 12)


def test_runs_of_one_second_get_directories_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra.core.utils.datetime", Noon)
    for seed in range(3):
        assert here(tmp_path, *TINY, f"seed={seed}").status == 0
    runs = sorted(runs_in(tmp_path), key=lambda run: run.info["seed"])
    assert [run.path.name for run in runs] == [f"120000-digits-mlp-sgd{suffix}" for suffix in ("", "-2", "-3")]
    for _ in range(2):
        assert here(tmp_path, *TINY, "-m", "seed=7,8").status == 0
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/sweep.json"))) == 2
    assert len(runs_in(tmp_path)) == 7


def test_output_goes_where_it_is_asked_to_go(tmp_path: Path) -> None:
    assert here(tmp_path, *TINY, "output_dir=elsewhere/deep").status == 0
    assert here(tmp_path, *TINY, "hydra.run.dir=here").status == 0
    assert len(list(tmp_path.glob("elsewhere/deep/runs/*/*/run.json"))) == 1
    assert read_run(tmp_path / "here").status == "completed"
    assert not (tmp_path / "outputs").exists()
    before = everything_in(tmp_path)
    again = here(tmp_path, *TINY, "hydra.run.dir=here")
    assert (again.status, again.err) == (
        2,
        "optexp: hydra.run.dir=here: already holds results; name another directory\n",
    )
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("sweep", [False, True])
def test_a_disk_that_fails_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: bool) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageError("run.json: No space left on device")

    writer = "optexp.sweeps.record.rewrite" if sweep else "optexp.recording.RunRecord.create"
    monkeypatch.setattr(writer, full)
    ended = here(tmp_path, *TINY, *(["-m", "seed=1,2"] if sweep else []))
    assert (ended.status, ended.err) == (5, "optexp: run.json: No space left on device\n")


# Verbs that read ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs: two seeds, and one that diverged."""
    folder = tmp_path_factory.mktemp("three")
    for words in (["seed=1"], ["seed=2"], ["seed=1", "optimizer.lr=1e30"]):
        here(folder, *TINY, "engine.log_every=1", *words)
    return folder


def directories(folder: Path) -> list[str]:
    return [str(run.path.relative_to(folder)) for run in runs_in(folder)]


def test_runs_are_listed(three: Path) -> None:
    ended = in_a_process(three, "runs")
    assert (ended.status, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    rows = [line for line in ended.out.splitlines() if "-digits-mlp-sgd" in line]
    assert [("completed" in row, "diverged" in row) for row in rows] == [(True, False), (True, False), (False, True)]
    assert "3 runs in outputs: 2 completed, 1 diverged" in ended.out
    listed = json.loads(here(three, "runs", "--json").out)
    assert [run["path"] for run in listed] == directories(three)
    assert [run["seed"] for run in listed] == [1, 2, 1]


def test_metrics_are_exported(three: Path) -> None:
    run = runs_in(three)[0]
    ended = here(three, "export", directories(three)[0], "--csv", "run.csv")
    assert (ended.status, ended.err) == (0, "")
    with (three / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["train/loss"]) for row in rows] == run.series("train/loss")[1]


def test_runs_are_compared(three: Path) -> None:
    ended = here(three, "compare", *directories(three), "--png", "curves.png")
    assert (ended.status, ended.err) == (0, "")
    assert (three / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    lines = ended.out.splitlines()
    assert any("seed" in line and "1" in line and "2" in line for line in lines)
    assert any("optimizer.lr" in line and "1e30" in line for line in lines)
    assert not any("model.hidden" in line for line in lines)  # what is the same in all runs is not a difference


# Verbs that continue -----------------------------------------------------------------------------------------------


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{tag: value for tag, value in row.items() if not tag.startswith("time")} for row in rows]


def test_a_repetition_is_equal_bit_for_bit(three: Path, tmp_path: Path) -> None:
    shutil.copytree(three / "outputs", tmp_path / "outputs")
    first = runs_in(tmp_path)[1]
    ended = here(tmp_path, "rerun", str(first.path.relative_to(tmp_path)))
    assert (ended.status, ended.err) == (0, "")
    repetition = runs_in(tmp_path)[-1]
    assert repetition.path != first.path
    assert "-rerun-" in repetition.name
    assert without_times(repetition.rows) == without_times(first.rows)
    assert repetition.info["config_hash"] == first.info["config_hash"]
    assert "last train/loss of the original and the repetition: the same" in ended.out


def test_a_completed_run_needs_no_resuming(three: Path) -> None:
    before = everything_in(three)
    ended = here(three, "resume", directories(three)[0])
    assert (ended.status, ended.out) == (0, "nothing to resume: the run is completed after 4 steps\n")
    assert everything_in(three) == before


def test_a_run_that_is_still_running_is_not_resumed(three: Path, tmp_path: Path) -> None:
    path = tmp_path / "running"
    path.mkdir()
    RunRecord.create(path, runs_in(three)[0].config, ["optexp"], {"total_steps": 4})
    ended = here(tmp_path, "resume", "running")
    assert ended.status == 2
    assert "is still running (process" in ended.err


def test_what_ended_badly_resumes_from_its_last_good_checkpoint(three: Path, tmp_path: Path) -> None:
    """A diverged run diverges again: the same steps lead to the same end."""
    source = runs_in(three)[2]
    shutil.copytree(source.path, tmp_path / "run")
    ended = here(tmp_path, "resume", "run")
    run = read_run(tmp_path / "run")
    assert (ended.status, run.status) == (3, "diverged")
    assert run.info["reason"] == source.info["reason"]
    assert run.info["resumed"] == 1
    assert without_times(run.rows)[:1] == without_times(source.rows)[:1]
