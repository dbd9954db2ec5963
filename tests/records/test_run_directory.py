"""The run directory: exclusive names, a record that is always whole, and its history over resumes."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from optexp.errors import BadInput, StorageError
from optexp.records.run_directory import RunRecord, claim


def strict(path: Path) -> dict[str, Any]:
    """Read JSON that allows no NaN or Infinity, as other languages do."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return dict(json.loads(path.read_text(), parse_constant=refuse))


def test_claims_of_one_name_get_numbered_directories(tmp_path: Path) -> None:
    root = tmp_path / "outputs" / "runs"
    assert [claim(root, "a").name for _ in range(3)] == ["a", "a-2", "a-3"]


def test_claims_at_the_same_moment_are_all_different(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: claim(tmp_path / "runs", "x"), range(40)))
    assert len(set(paths)) == 40
    assert all(path.is_dir() for path in paths)


def test_claim_in_a_place_that_cannot_be_written_names_output_dir(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"^output_dir: cannot create .*file/runs .*; set output_dir"):
        claim(tmp_path / "file" / "runs", "x")


def test_a_new_record_says_running_and_what_was_given(tmp_path: Path) -> None:
    command = ["optexp", "optimizer=sgd", "name=two words"]
    RunRecord.create(tmp_path, {"seed": 3}, command, {"seed": 3, "metrics": {"train/loss": math.nan}})
    info = strict(tmp_path / "run.json")
    assert info["status"] == "running"
    assert info["command"] == "optexp optimizer=sgd 'name=two words'"
    assert info["process"]["pid"] == os.getpid()
    assert info["seed"] == 3
    assert info["metrics"] == {"train/loss": None}
    assert info["finished"] is None


def test_config_file_holds_the_values_and_resolves_nothing(tmp_path: Path) -> None:
    betas = [0.9, 0.999]
    config = {
        "name": "1e-3",
        "text": "${oc.env:HOME}",
        "words": ["null", "1:30", "yes", "a: b", "# no", "größe", "", " x", "a\nb", "x" * 200],
        "optimizer": {"lr": 1e-3, "eps": 1e-8, "betas": betas, "again": betas, "nesterov": None, "limit": math.inf},
    }
    RunRecord.create(tmp_path, config, ["optexp"], {})
    text = (tmp_path / "config.yaml").read_text()
    assert text.startswith("# ")
    assert yaml.safe_load(text) == config
    assert "betas: [0.9, 0.999]\n  again: [0.9, 0.999]" in text
    assert "name: '1e-3'" in text  # text that YAML 1.2 would take for a number


def test_a_new_run_outlives_a_loss_of_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[int, int] = {}

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size

    monkeypatch.setattr(os, "fsync", fsync)
    RunRecord.create(tmp_path, {"seed": 1}, ["optexp"], {}).wait()
    for path in (tmp_path, tmp_path / "config.yaml", tmp_path / "run.json"):
        assert synced[path.stat().st_ino] == path.stat().st_size


def test_a_text_of_the_config_that_is_there_already_is_used(tmp_path: Path) -> None:
    RunRecord.create(tmp_path, {"seed": 1}, ["optexp"], {}, text="seed: 1  # one\n")
    assert (tmp_path / "config.yaml").read_text().endswith("resolved.\nseed: 1  # one\n")


def test_many_runs_can_finish_together(tmp_path: Path) -> None:
    records = []
    for index in range(20):
        (tmp_path / str(index)).mkdir()
        records.append(RunRecord.create(tmp_path / str(index), {"seed": index}, ["optexp"], {}))
    for index, record in enumerate(records):
        record.finish("completed", None, wait=False, last_step=index)
        record.info["last_step"] = -1  # what was handed over does not change
    for index, record in enumerate(records):
        record.wait()
        info = strict(tmp_path / str(index) / "run.json")
        assert (info["status"], info["last_step"]) == ("completed", index)


def test_a_directory_holds_one_run_only(tmp_path: Path) -> None:
    RunRecord.create(tmp_path, {"seed": 1}, ["optexp"], {})
    with pytest.raises(BadInput, match="already holds a run"):
        RunRecord.create(tmp_path, {"seed": 2}, ["optexp"], {})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"seed": 1}


def test_a_record_has_its_content_the_moment_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, seen = os.link, []

    def look(source: Path, target: Path) -> None:
        seen.append((strict(source)["seed"], target.exists()))
        link(source, target)

    monkeypatch.setattr(os, "link", look)
    RunRecord.create(tmp_path, {}, ["optexp"], {"seed": 3}).wait()
    assert seen == [(3, False)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "run.json"]


@pytest.mark.parametrize("links", [True, False])
def test_of_runs_that_begin_together_in_a_directory_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    def begin(number: int) -> int | None:
        try:
            RunRecord.create(tmp_path, {}, ["optexp"], {"seed": number}).wait()
        except BadInput:
            return None
        return number

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with ThreadPoolExecutor(8) as pool:
        owners = [number for number in pool.map(begin, range(16)) if number is not None]
    assert owners == [strict(tmp_path / "run.json")["seed"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "run.json"]


def test_finish_records_how_it_ended(tmp_path: Path) -> None:
    record = RunRecord.create(tmp_path, {}, ["optexp"], {"notes": ["a"]})
    record.finish("diverged", "the loss of step 7 is not finite", last_step=6, wall_time=1.5)
    info = strict(tmp_path / "run.json")
    assert (info["status"], info["last_step"], info["wall_time"]) == ("diverged", 6, 1.5)
    assert info["reason"] == "the loss of step 7 is not finite"
    assert info["finished"] >= info["started"]
    assert info["notes"] == ["a"]


def test_reopening_keeps_the_history(tmp_path: Path) -> None:
    record = RunRecord.create(tmp_path, {}, ["optexp", "seed=1"], {})
    record.finish("interrupted", "stopped by Ctrl-C", last_step=5)
    again = RunRecord.reopen(tmp_path, ["optexp", "resume", "x"])
    info = strict(tmp_path / "run.json")
    assert (info["status"], info["reason"], info["resumed"], info["finished"]) == ("running", None, 1, None)
    assert info["command"] == "optexp seed=1"
    again.finish("completed", None, last_step=9)
    sessions = strict(tmp_path / "run.json")["sessions"]
    assert [(s["command"], s["status"], s["last_step"]) for s in sessions] == [
        ("optexp seed=1", "interrupted", 5),
        ("optexp resume x", "completed", 9),
    ]


def test_reopening_forgets_the_verdict_of_the_earlier_session(tmp_path: Path) -> None:
    record = RunRecord.create(tmp_path, {}, ["optexp"], {})
    record.finish("diverged", "x", outcome="diverged", causes=["lr-too-large"])
    RunRecord.reopen(tmp_path)
    assert {"outcome", "causes"}.isdisjoint(strict(tmp_path / "run.json"))


def test_reopening_after_a_crash_calls_that_session_interrupted(tmp_path: Path) -> None:
    record = RunRecord.create(tmp_path, {}, ["optexp"], {})
    record.update(last_step=40, process={"pid": 1, "start": -1, "boot": record.info["process"]["boot"]})
    RunRecord.reopen(tmp_path)
    first = strict(tmp_path / "run.json")["sessions"][0]
    assert (first["status"], first["last_step"]) == ("interrupted", 40)


def test_a_run_that_is_alive_cannot_be_reopened(tmp_path: Path) -> None:
    RunRecord.create(tmp_path, {}, ["optexp"], {})
    with pytest.raises(BadInput, match=rf"still running \(process {os.getpid()}\)"):
        RunRecord.reopen(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{"])
def test_reopening_what_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(BadInput, match="no run to resume"):
        RunRecord.reopen(tmp_path)


def test_a_failing_disk_leaves_the_old_record_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RunRecord.create(tmp_path, {}, ["optexp"], {})
    before = (tmp_path / "run.json").read_text()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"run\.json: No space left on device$"):
        record.update(last_step=3)
    assert (tmp_path / "run.json").read_text() == before
    record.finish("failed", "x", wait=False)
    with pytest.raises(StorageError, match=r"run\.json: No space left on device$"):
        record.wait()
    record.wait()  # said once
    monkeypatch.undo()
    record.update(last_step=4)
    assert strict(tmp_path / "run.json")["last_step"] == 4


def test_a_record_is_not_written_anew_where_somebody_has_deleted_it(tmp_path: Path) -> None:
    record = RunRecord.create(tmp_path, {"seed": 1}, ["optexp"], {})
    record.wait()
    (tmp_path / "run.json").unlink()
    with pytest.raises(StorageError, match=r"run\.json: has been moved or deleted"):
        record.finish("failed", "planted")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
