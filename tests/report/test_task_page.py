"""The page of a task that is no training shows what the task has left: numbers, figures, tables."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path

import pytest
from command_line import here, only_run

from optexp.errors import BadInput
from optexp.report.html import write


def test_the_page_holds_numbers_pictures_and_tables(tmp_path: Path) -> None:
    ended = here(tmp_path, "task=show_schedule", "schedule=wsd", "engine.max_steps=100")
    assert ended.status == 0, ended.err
    path = only_run(tmp_path).path
    assert here(tmp_path, "report", str(path)).status == 0
    page = (path / "report.html").read_text()
    assert "Task show_schedule" in page
    assert "optexp task=show_schedule schedule=wsd engine.max_steps=100" in page
    for picture in (path / "figures").glob("*.png"):
        assert f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}" in page
    [table] = path.glob("*.csv")
    rows = list(csv.reader(table.open()))
    assert all(f">{cell}<" in page for cell in (*rows[0], *rows[5]))
    assert f"{len(rows) - 1 - 60} further rows are in the file." in page
    assert "Nothing was logged" not in page


def test_texts_are_escaped_and_a_failure_is_told(tmp_path: Path) -> None:
    assert here(tmp_path, "task=show_schedule", "engine.max_steps=10").status == 0
    path = only_run(tmp_path).path
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**info, "status": "failed", "reason": "<b>x</b>"}))
    page = write(path).read_text()
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b>x</b>" not in page


def test_an_answer_in_the_result_is_told_first_and_each_picture_once(tmp_path: Path) -> None:
    assert here(tmp_path, "task=show_schedule", "engine.max_steps=10").status == 0
    path = only_run(tmp_path).path
    [picture] = (path / "figures").glob("*.png")
    sections = [
        {"notes": ["mind <i>this</i>"]},
        {"heading": "Cells", "table": [["a", "b"], [["x", "1.5"]]], "caption": "measured twice"},
        {"commands": [["again", "optexp seed=1"]]},
        {"heading": "Seen", "picture": picture.name},
    ]
    (path / "result.json").write_text(json.dumps({"headline": "it is <b>so</b>", "sections": sections}))
    page = write(path).read_text()
    told = [
        "it is &lt;b&gt;so",
        "mind &lt;i&gt;this",
        "Cells",
        ">1.5<",
        "measured twice",
        "optexp seed=1",
        "data:image/",
    ]
    places = [page.index(text, page.index("<main")) for text in told]
    assert places == sorted(places)
    assert page.count("data:image/png") == 1
    [table] = path.glob("*.csv")
    assert f"Every digit is in {table.name} beside this page." in page
    (path / "result.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        write(path)


def test_a_sweep_of_audits_fails_when_one_does(tmp_path: Path) -> None:
    ended = here(tmp_path, "-m", "task=audit", "optimizer=asgd,rprop", "task.steps=20")
    assert (ended.status, ended.err) == (6, "")
    lines = ended.out.splitlines()
    [heading] = [line for line in lines if line.startswith("#")]
    assert "audit/failed" in heading
    assert "best val/loss" not in heading
    [sweep] = tmp_path.glob("outputs/sweeps/*/*/sweep.csv")
    rows = {row["optimizer"]: row for row in csv.DictReader(sweep.open())}
    assert (float(rows["asgd"]["audit/failed"]), float(rows["rprop"]["audit/failed"])) == (1, 0)
