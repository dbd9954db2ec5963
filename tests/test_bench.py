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


def costing(name: str, costs: list[float], order: list[str] | None = None) -> Any:
    """Return a contestant that costs what is given, repeat by repeat, and notes its turn in `order`."""
    from benchmarks.contest import Contestant, Cost

    left = iter(costs)

    def run() -> Cost:
        if order is not None:
            order.append(name)
        value = next(left)
        return Cost(value, {"peak MB": 100 * value} if name == "a" else {})

    return Contestant(name, run)


# ---- the command line


@pytest.mark.slow
def test_two_contests_make_a_table_and_a_file(
    benchmarks: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import lightning_loop

    file = tmp_path / "bench.json"
    flags = ["--repeats", "2", "--steps", "10", "--quick", "--json", str(file)]
    assert benchmarks.main(["--only", "step: mlp", *flags]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1, "the columns are aligned"
    contests = json.loads(file.read_text())["contests"]
    assert [contest["name"] for contest in contests] == ["step: MLP, AdamW, clip 1.0", "step: MLP, SGD"]
    assert len(rows) == 2 + sum(len(contest["contestants"]) for contest in contests)
    loops = ["bare, .item() each step", "bare", "bare, tuned", "bare, DataLoader, .item()"]
    for contest in contests:
        assert 0 <= contest["largest_relative_differences"]["first steps"] < 1e-4
        contestants = contest["contestants"]
        assert list(contestants) == ["optexp", *loops, *(["Lightning"] if lightning_loop.is_installed() else [])]
        ours = contestants["optexp"]["costs"]
        for measured in contestants.values():
            assert len(measured["costs"]) == 2
            assert all(cost > 0 for cost in measured["costs"])
            ratios = [theirs / own for theirs, own in zip(measured["costs"], ours, strict=True)]
            assert measured["ratio"]["median"] == pytest.approx(sum(ratios) / 2)
            assert min(ratios) <= measured["ratio"]["lower_quartile"] <= measured["ratio"]["upper_quartile"]
        assert contestants["optexp"]["ratio"]["median"] == 1
    goals = {name: measured["goal"] for name, measured in contests[0]["contestants"].items()}
    assert (goals["bare"], goals["optexp"]) == ("≥ 2.00", None)
    assert "largest relative difference of losses: first steps" in printed


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


def test_a_text_in_no_name_is_an_error(benchmarks: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main(["--only", "nothing"]) == 2
    assert "no contest has 'nothing' in its name" in capsys.readouterr().err


@pytest.mark.parametrize("quick", [False, True])
def test_every_contest_can_be_built_and_is_listed(
    benchmarks: ModuleType, capsys: pytest.CaptureFixture[str], quick: bool
) -> None:
    from benchmarks import lightning_loop
    from benchmarks.contest import Size

    contests = benchmarks.contests(Size(quick=quick))
    assert benchmarks.main(["--list", *(["--quick"] if quick else [])]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [contest.name for contest in contests]
    assert [line.split("  at most")[0] for line in lines if not line.startswith(" ")] == names
    assert len(set(names)) == len(names)
    assert all(name.startswith(tuple(benchmarks.FAMILIES)) for name in names)
    for contest in contests:
        known = {contestant.name for contestant in contest.contestants}
        assert len(known) == len(contest.contestants) >= 2
        left_out = set() if lightning_loop.is_installed() else {lightning_loop.NAME}
        assert contest.goals.keys() <= (known - {contest.contestants[0].name}) | left_out
        assert contest.repeats >= 5


def test_a_contest_that_goes_wrong_does_not_stop_the_others(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.contest import Contest

    def unequal() -> float:
        raise AssertionError("the losses differ")

    good = Contest("good", "s", [costing("optexp", [1, 1]), costing("b", [2, 3])])
    bad = dataclasses.replace(good, name="bad", check=unequal)
    monkeypatch.setattr(benchmarks, "contests", lambda size: [bad, good])
    assert benchmarks.main(["--repeats", "2", "--json", str(tmp_path / "bench.json")]) == 1
    output = capsys.readouterr()
    assert output.err == "1 of 2: bad\n2 of 2: good\nbad: not measured: the losses differ\n"
    assert "| good " in output.out
    measured = json.loads((tmp_path / "bench.json").read_text())
    assert measured["problems"] == ["bad: not measured: the losses differ"]
    assert [contest["name"] for contest in measured["contests"]] == ["good"]


# ---- how contestants are compared


def test_ratios_are_formed_within_a_repeat_and_the_start_rotates(benchmarks: ModuleType) -> None:
    from benchmarks.contest import Contest, hold, remarks, table

    order: list[str] = []
    # The machine is ten times slower in the second repeat: that must not move a ratio.
    given = {"optexp": [1.0, 10, 2], "a": [2.0, 20, 8], "b": [0.5, 5, 1]}
    contestants = [costing(name, costs, order) for name, costs in given.items()]
    contest = Contest("c", "s", contestants, goals={"a": 1.5, "b": 0.51}, limit=2, notes=["nobody is left out"])
    outcome = hold(dataclasses.replace(contest, check=lambda: 2e-7), 3, lambda text: None)
    assert "".join(name[0] for name in order) == "oab" + "abo" + "boa"
    assert outcome.ratios("a") == [2, 2, 4]
    assert outcome.ratios("b") == [0.5, 0.5, 0.5]
    assert table([outcome]).splitlines()[2:] == [
        "| c       | optexp     | 2 s    |                |              | ≤ 2 s met     |             |",
        "|         | a          | 8 s    | 2.00           | 2.00 to 3.00 | ≥ 1.50 met    | peak MB 800 |",
        "|         | b          | 1 s    | 0.50           | 0.50 to 0.50 | ≥ 0.51 missed |             |",
    ]
    assert remarks([outcome]) == ["c: largest relative difference of losses: first steps 2e-07", "nobody is left out"]
    assert outcome.as_json()["contestants"]["a"]["also"] == [{"peak MB": 200}, {"peak MB": 2000}, {"peak MB": 800}]


def test_what_the_first_repeat_left_behind_is_verified(benchmarks: ModuleType) -> None:
    from benchmarks.contest import Contest, hold

    order: list[str] = []

    def verify() -> dict[str, float]:
        order.append("verify")
        return {"at the end": 0.1}

    contestants = [costing("optexp", [1, 1], order), costing("b", [1, 1], order)]
    outcome = hold(Contest("c", "s", contestants, verify=verify), 2, lambda text: None)
    assert order == ["optexp", "b", "verify", "b", "optexp"]
    assert outcome.differences == {"at the end": 0.1}


# ---- training


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
    from benchmarks import optexp_loop, training

    honest = optexp_loop.Source.problem
    monkeypatch.setattr(
        optexp_loop.Source, "problem", lambda self: dataclasses.replace(honest(self), **change(honest(self)))
    )
    with pytest.raises(AssertionError, match="differ from those of optexp by"):
        training.largest_difference(training.CASES[1])


def test_unequal_mathematics_of_lightning_is_noticed(benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    from benchmarks import lightning_loop, training

    monkeypatch.setattr(lightning_loop, "cosine", lambda step, total_steps: 1.0)
    with pytest.raises(AssertionError, match="Lightning: its losses differ from those of optexp by"):
        training.largest_difference(training.CASES[1])


def test_without_lightning_the_others_compete_and_the_table_says_so(
    benchmarks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import lightning_loop, startup, training

    monkeypatch.setattr(lightning_loop, "find_spec", lambda name: None)
    for contest in (training.step_contest(training.CASES[0], 10), startup.first_step_contest()):
        assert lightning_loop.NAME not in [contestant.name for contestant in contest.contestants]
        assert contest.notes == [lightning_loop.MISSING]


def test_tokens_are_cut_into_the_same_windows(benchmarks: ModuleType) -> None:
    import torch
    from benchmarks import bare, training
    from benchmarks.optexp_loop import Source, rows_of

    source = Source(training.TRANSFORMER)
    run, problem = source.training(), source.problem()
    loop = bare.LoaderLoop(problem)
    for step, batch in zip(range(3), loop.batches(rows_of(run, 3)), strict=False):
        assert all(map(torch.equal, batch, run.batches.take(step)))
    inputs, targets = next(loop.batches())
    assert inputs.shape == targets.shape == (16, 64)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert training.largest_difference(training.CASES[4]) < 1e-4


def test_a_whole_run_evaluates_and_saves_like_the_bare_one(benchmarks: ModuleType, tmp_path: Path) -> None:
    import torch
    from benchmarks import bare, training
    from benchmarks.optexp_loop import Source

    case = training.CASES[1]
    short = dataclasses.replace(case, words=(*case.words, "engine.epochs=1.5"))
    assert all(contestant.run().value > 0 for contestant in training.run_contest(short).contestants)
    loop = bare.Loop(Source(short.words).problem())
    loop.train_and_save(tmp_path)
    saved = torch.load(tmp_path / "last.pt")
    assert saved["step"] == loop.problem.total_steps == 59
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "best.pt"}
    assert loop.evaluate()[1] > 0.5, "it has learned something"
