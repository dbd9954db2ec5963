"""`optexp task=optimizer_table` from the command line: a small table, its files, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import Ended, everything_in, here, only_run

SMALL = (
    "task=optimizer_table",
    "model.hidden=[8]",
    "engine.max_steps=20",
    "task.optimizers=['sgd momentum=0',adam]",
    "task.rates=3",
    "task.rates_per_decade=1",
    "task.widenings=1",
    "task.tuning_seeds=1",
    "task.seeds=2",
    "task.repeats=3",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small_table")


@pytest.fixture(scope="module")
def ended(folder: Path) -> Ended:
    return here(folder, *SMALL)


def test_a_table_is_measured(ended: Ended, folder: Path) -> None:
    assert ended.status == 0, ended.err
    run = only_run(folder)
    assert (run.status, run.info["task"]) == ("completed", "optimizer_table")
    table = json.loads((run.path / "result.json").read_text())
    sgd, adam = table["optimizers"]
    assert (sgd["optimizer"], adam["optimizer"]) == ("sgd momentum=0", "adam")
    assert sgd["state_bytes_per_parameter"] == 0
    assert adam["state_bytes_per_parameter"] == pytest.approx(8, abs=0.1)
    assert sgd["time_ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert sgd["final"]["n"] == adam["final"]["n"] == 2
    assert len(sgd["curve"]["rates"]) == len(adam["curve"]["rates"]) == table["rates"]
    assert table["setting"]["model"] == "mlp"
    assert table["runs"] == 2 * table["rates"] + 4
    assert run.info["metrics"]["adam/val/accuracy"] == pytest.approx(adam["final"]["estimate"])


def test_what_it_leaves(ended: Ended, folder: Path) -> None:
    path = only_run(folder).path
    files = {name for name in everything_in(path) if not name.startswith((".hydra", "tune", "final"))}
    assert {
        "table.csv",
        "table.md",
        "figures/optimizer_table.png",
        "figures/learning_rates.png",
        "result.json",
    } <= files
    rows = list(csv.DictReader((path / "table.csv").open()))
    assert [row["optimizer"] for row in rows] == ["sgd momentum=0", "adam"]
    assert json.loads((path / "final" / "sweep.json").read_text())["status"] == "completed"
    assert "time × SGD" in ended.out
    assert "table.csv" in ended.out


def test_what_fails_is_told_and_the_others_are_measured(tmp_path: Path) -> None:
    """At these learning rates SGD diverges throughout; the row says so and has no numbers."""
    words = [word for word in SMALL if not word.startswith(("task.optimizers", "task.widenings"))]
    ended = here(tmp_path, *words, "task.widenings=0", "task.optimizers=['sgd momentum=0 lr=1e12',adam]")
    assert ended.status == 0, ended.err
    table = json.loads((only_run(tmp_path).path / "result.json").read_text())
    wild, adam = table["optimizers"]
    assert wild["final"] is wild["lr"] is wild["time_ratio"] is None
    assert wild["remarks"][0] == "no learning rate of its grid brought all runs to an end"
    assert "3 of 3 tuning runs diverged" in wild["remarks"][1]
    assert adam["time_ratio"]["median"] > 0
    assert adam["final"]["n"] == 2


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("task.optimizers=[adma]", "adma: no such optimizer"),
        ("task.tolerance=1", "task.tolerance=1"),
        ("optimizer=adam", "does not use the group 'optimizer'"),
        ("dataset=line", "task.metric"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, word: str, text: str) -> None:
    others = [] if word.startswith("task.optimizers") else ["task.optimizers=[adam]"]
    others += ["task.metric=val/accuracy"] if word == "dataset=line" else []
    ended = here(tmp_path, "task=optimizer_table", *others, word)
    assert ended.status == 2
    assert text in ended.err
    assert ended.err.count("\n") == 1
    assert everything_in(tmp_path) == []
