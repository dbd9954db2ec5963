"""scripts/bench: it compares equal mathematics, its ratios are what they claim, and its table and JSON are whole.

How fast anything is, is not tested here: a test must not depend on what else the machine does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    import torch

    monkeypatch.syspath_prepend(REPO / "scripts")
    from benchmarks import __main__ as command_line

    threads = torch.get_num_threads()
    yield command_line
    torch.set_num_threads(threads)


def test_two_contests_make_a_table_and_a_file(
    benchmarks: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    assert benchmarks.main(["--repeats", "2", "--steps", "10", "--only", "sgd", "--quick", "--json", str(file)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1, "the columns are aligned"
    contests = json.loads(file.read_text())["contests"]
    assert [contest["name"] for contest in contests] == ["MLP, SGD", "ResNet-8, SGD"]
    assert len(rows) == 2 + sum(len(contest["contestants"]) for contest in contests)
    for contest in contests:
        assert 0 <= contest["largest_relative_difference_of_losses"] < 1e-4
        contestants = contest["contestants"]
        assert list(contestants) == ["optexp", "bare, .item() each step", "bare", "bare, tuned"]
        ours = contestants["optexp"]["costs"]
        for measured in contestants.values():
            assert len(measured["costs"]) == 2
            assert all(cost > 0 for cost in measured["costs"])
            ratios = [theirs / own for theirs, own in zip(measured["costs"], ours, strict=True)]
            assert measured["ratio"]["median"] == pytest.approx(sum(ratios) / 2)
            assert min(ratios) <= measured["ratio"]["lower_quartile"] <= measured["ratio"]["upper_quartile"]
        assert contestants["optexp"]["ratio"]["median"] == 1


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--steps=15", "15 is not a multiple of 10"),
        ("--repeats=0", "0 is not at least 1"),
        ("--step=20", "unrecognized"),
    ],
)
def test_bad_arguments(
    benchmarks: ModuleType, capsys: pytest.CaptureFixture[str], argument: str, complaint: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmarks.main([argument])
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def test_ratios_are_formed_within_a_repeat_and_the_start_rotates(benchmarks: ModuleType) -> None:
    from benchmarks.contest import Contest, Contestant, hold, table

    order: list[str] = []

    def costing(name: str, costs: list[float]) -> Contestant:
        left = iter(costs)

        def run() -> float:
            order.append(name)
            return next(left)

        return Contestant(name, run)

    # The machine is ten times slower in the second repeat: that must not move a ratio.
    contestants = [costing("optexp", [1, 10, 2]), costing("a", [2, 20, 8]), costing("b", [0.5, 5, 1])]
    outcome = hold(Contest("c", "s", contestants, counts="a", goal=1.5), 3, lambda text: None)
    assert "".join(name[0] for name in order) == "oab" + "abo" + "boa"
    assert outcome.ratios("a") == [2, 2, 4]
    assert outcome.ratios("b") == [0.5, 0.5, 0.5]
    assert table([outcome]).splitlines()[2:] == [
        "| c       | optexp     | 2 s    |                     |              |        |",
        "|         | a *        | 8 s    | 2.00                | 2.00 to 3.00 | ≥ 1.50 |",
        "|         | b          | 1 s    | 0.50                | 0.50 to 0.50 |        |",
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda problem: {"arguments": {**problem.arguments, "lr": 1.01 * problem.arguments["lr"]}},
        lambda problem: {"arguments": {**problem.arguments, "weight_decay": 0.01}},
        lambda problem: {"clip_norm": 0.1},
        lambda problem: {"targets": problem.targets.roll(1)},
    ],
    ids=["learning rate", "weight decay", "clipping", "data"],
)
def test_unequal_mathematics_is_noticed(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], dict[str, Any]]
) -> None:
    from benchmarks import training

    honest = training._Source.problem
    monkeypatch.setattr(
        training._Source, "problem", lambda self: dataclasses.replace(honest(self), **change(honest(self)))
    )
    with pytest.raises(AssertionError, match="the losses of optexp and"):
        training.largest_difference(training.CASES[1])


def test_a_whole_run_evaluates_and_saves_like_the_bare_one(benchmarks: ModuleType, tmp_path: Path) -> None:
    import torch
    from benchmarks import bare, training

    case = training.CASES[1]
    short = dataclasses.replace(case, words=(*case.words, "engine.epochs=1.5"))
    assert all(contestant.run() > 0 for contestant in training.run_contest(short).contestants)
    loop = bare.Loop(training._Source(short.words).problem())
    loop.train_and_save(tmp_path)
    saved = torch.load(tmp_path / "last.pt")
    assert saved["step"] == loop.problem.total_steps == 59
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "best.pt"}
    assert loop.evaluate()[1] > 0.5, "it has learned something"
