"""`optexp task=attribute` from the command line: a small attribution, its files, and what is refused."""

from __future__ import annotations

import csv
import html
import json
import shlex
from pathlib import Path

import pytest
from command_line import Ended, everything_in, here, only_run, runs_in

from optexp.records.reading import read_run

SMALL = (
    "task=attribute",
    "task.failing=exp2_sgd_B32",
    "task.working=exp2_sgd_B32_fixed",
    "task.seeds=4",
    "model=linear",
    "engine.max_steps=40",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small_attribution")


@pytest.fixture(scope="module")
def ended(folder: Path) -> Ended:
    return here(folder, *SMALL)


def test_exp2_is_attributed(ended: Ended, folder: Path) -> None:
    """Two decades of lr and one of dampening, from the members' own steps; nothing else moves the rate."""
    assert ended.status == 0, ended.err
    run = only_run(folder)
    assert (run.status, run.info["task"]) == ("completed", "attribute")
    answer = json.loads((run.path / "result.json").read_text())
    decades = {key["key"]: key["contribution"]["estimate"] for key in answer["decades"]["keys"]}
    assert decades == pytest.approx(
        {"optimizer.lr": 2, "optimizer.dampening": 1, "optimizer.weight_decay": 0}, abs=0.01
    )
    assert all(abs(pair["contribution"]["estimate"]) < 0.01 for pair in answer["decades"]["interactions"])
    assert sum(key["share"]["estimate"] for key in answer["shares"]["keys"]) == pytest.approx(1)
    assert answer["necessary"]["optimizer.lr"] is True
    assert run.info["metrics"]["decades/optimizer.lr"] == pytest.approx(decades["optimizer.lr"])
    assert answer["headline"] in ended.out


def test_the_shares_are_those_of_the_recorded_losses(ended: Ended, folder: Path) -> None:
    """From the members' own directories, by the closed form for three keys."""
    path = only_run(folder).path
    answer = json.loads((path / "result.json").read_text())
    members = json.loads((path / "runs" / "sweep.json").read_text())["members"]
    losses: dict[tuple[bool, ...], float] = {}
    for member in members:
        swept = member["swept"]
        on = (swept["optimizer.lr"] == 1e-2, swept["optimizer.dampening"] == 0, swept["optimizer.weight_decay"] == 1e-4)
        losses[on] = losses.get(on, 0.0) + read_run(path / "runs" / member["directory"]).metrics["val/loss"] / 4
    no, yes = False, True
    lr = (losses[no, no, no] - losses[yes, no, no]) / 3 + (losses[no, yes, yes] - losses[yes, yes, yes]) / 3
    lr += (losses[no, yes, no] - losses[yes, yes, no] + losses[no, no, yes] - losses[yes, no, yes]) / 6
    found = answer["shares"]["keys"][0]
    assert found["contribution"]["estimate"] == pytest.approx(lr)
    assert found["share"]["estimate"] == pytest.approx(lr / (losses[no, no, no] - losses[yes, yes, yes]))


def test_what_it_leaves(ended: Ended, folder: Path) -> None:
    path = only_run(folder).path
    files = {name for name in everything_in(path) if not name.startswith((".hydra", "runs"))}
    assert {"keys.csv", "combinations.csv", "figures/attribution.png", "result.json", "run.json"} <= files
    rows = list(csv.DictReader((path / "combinations.csv").open()))
    assert len(rows) == 32
    sweep = json.loads((path / "runs" / "sweep.json").read_text())
    assert sweep["status"] == "completed"
    assert {member["swept"]["seed"] for member in sweep["members"]} == {0, 1, 2, 3}
    assert len({member["program"] for member in sweep["members"]}) <= 2, "they train together"
    pairs = list(csv.DictReader((path / "interactions.csv").open()))
    assert [(pair["key"], pair["other"]) for pair in pairs] == [
        ("optimizer.lr", "optimizer.dampening"),
        ("optimizer.lr", "optimizer.weight_decay"),
        ("optimizer.dampening", "optimizer.weight_decay"),
    ]


def test_it_writes_its_page_at_the_end(ended: Ended, folder: Path) -> None:
    """Nobody has asked for it with the verb; the page knows how the task ended, and says the answer first."""
    path = only_run(folder).path
    assert ended.out.splitlines()[-1] == f"report  {path.relative_to(folder) / 'report.html'}"
    page = html.unescape((path / "report.html").read_text())
    answer = json.loads((path / "result.json").read_text())
    assert '<section class="verdict completed"' in page
    told = [
        answer["headline"],
        "What each key brings",
        "lr × dampening",
        "Necessary and sufficient",
        *(f'<pre class="command">{shlex.join(found["command"])}</pre>' for found in answer["minimal_sets"]),
        "data:image/png",
        "taken from working",
        "all 8 combinations on the same 4 seeds; intervals: 95%, Student's t, paired by seed",
        "combinations.csv, interactions.csv, keys.csv",
    ]
    places = [page.index(text, page.index("<main")) for text in told]
    assert places == sorted(places)
    written = (path / "report.html").read_bytes()
    assert here(folder, "report", str(path)).status == 0
    assert (path / "report.html").read_bytes() == written


def test_of_another_pair_the_decades_are_its_own(tmp_path: Path) -> None:
    """Run directories: momentum 0.8 with dampening 0.5 to 0.9 with 0, lr 1e-3 to 1e-2: log10 of 2, 2 and 10."""
    common = ("model=linear", "engine.max_steps=20", "optimizer=sgd", "optimizer.weight_decay=0", "schedule=constant")
    failing = ("optimizer.lr=1e-3", "optimizer.momentum=0.8", "optimizer.dampening=0.5")
    working = ("optimizer.lr=1e-2", "optimizer.momentum=0.9", "optimizer.dampening=0")
    for words in (failing, working):
        assert here(tmp_path, *common, *words).status == 0
    one, other = (str(run.path) for run in runs_in(tmp_path))
    ended = here(tmp_path, "task=attribute", f"task.failing={one}", f"task.working={other}", "task.seeds=2")
    assert ended.status == 0, ended.err
    answer = json.loads(next(tmp_path.glob("outputs/runs/*/*attribute*/result.json")).read_text())
    decades = {key["key"]: key["contribution"]["estimate"] for key in answer["decades"]["keys"]}
    expected = {"optimizer.lr": 1, "optimizer.momentum": 0.30103, "optimizer.dampening": 0.30103}
    assert decades == pytest.approx(expected, abs=0.01)


def test_another_optimizer_has_no_decades(tmp_path: Path) -> None:
    ended = here(tmp_path, *(word for word in SMALL if "working" not in word), "task.working=exp1_adam_B32")
    assert ended.status == 0, ended.err
    answer = json.loads((only_run(tmp_path).path / "result.json").read_text())
    assert answer["decades"] is None
    assert [key["key"] for key in answer["keys"]] == ["optimizer"]
    assert "effective learning rate: left out" in ended.out
    assert not (only_run(tmp_path).path / "interactions.csv").exists(), "one key has no pair"
    assert "effective learning rate: left out" in (only_run(tmp_path).path / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["task.failing=exp2"], "task.failing=exp2: neither an experiment nor a run directory"),
        (["task.working=exp2_sgd_B32"], "no key differs"),
        (["task.working=transformer_adamw", "model=linear"], "a combination cannot be trained"),
        (["task.seeds=1"], "task.seeds=1: allowed is an integer ≥ 2"),
        (["task.recovery=1"], "task.recovery=1"),
        (["task.metric=train/loss"], "task.metric=train/loss"),
        (["experiment=exp1_adam_B32"], "an attribution has two sides"),
        (["optimizer.nesterov=true"], "optimizer.nesterov=true: needs optimizer.dampening=0"),
        (
            ["task.failing=line_fit_sgd", "task.working=line_fit_adamw", "task.metric=val/accuracy"],
            "task.metric=val/accuracy: line is a regression",
        ),
        (["task.failing="], "task.failing=: neither"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, words: list[str], text: str) -> None:
    given = {word.partition("=")[0] for word in words}
    others = [word for word in SMALL if word.partition("=")[0] not in given]
    ended = here(tmp_path, *others, *words)
    assert ended.status == 2
    assert text in ended.err
    assert ended.err.count("\n") == 1
    assert everything_in(tmp_path) == []


def test_both_sides_must_be_named(tmp_path: Path) -> None:
    ended = here(tmp_path, "task=attribute", "task.failing=exp2_sgd_B32")
    assert (ended.status, everything_in(tmp_path)) == (2, [])
    assert "task.working=null: allowed is the name of an experiment, or a run directory" in ended.err
