"""Two ledgers side by side: what configs promise, and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from step_directories import Group, write_steps

from optexp.records.reading import Run, read_run
from optexp.report.ledger import chosen_steps, ledger, measured_rows
from optexp.report.ledger_pair import comparable, headline, measured_headline, names, promise, signed

EXP2 = {"lr": 1e-4, "momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-2}
FIXED = {"lr": 1e-2, "momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-4}


def two(tmp_path: Path, first: dict[str, Any], second: dict[str, Any], **shared: Any) -> tuple[Run, Run]:
    paths = (
        write_steps(tmp_path / "120000-exp2_sgd_B32", **shared, **first),
        write_steps(tmp_path / "120105-exp2_sgd_B32_fixed", **shared, **second),
    )
    return read_run(paths[0]), read_run(paths[1])


def test_the_second_experiment_beside_its_repair(tmp_path: Path) -> None:
    runs = two(tmp_path, EXP2, FIXED)
    assert headline(*runs) == [
        "exp2_sgd_B32 is 3.0 decades below exp2_sgd_B32_fixed in effective learning rate: "
        "lr −2.0, dampening −1.0, weight decay 0.0"
    ]
    assert headline(*reversed(runs))[0].endswith(
        "fixed is 3.0 decades above exp2_sgd_B32 in effective learning rate: lr +2.0, dampening +1.0, weight decay 0.0"
    )
    found = promise(*runs)
    assert found is not None
    assert found.decades == pytest.approx(-3)
    assert found.parts == pytest.approx({"lr": -2, "dampening": -1, "weight_decay": 0})


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            {"lr": 1e-3, "momentum": 0.8, "dampening": 0.5},
            {"lr": 1e-3, "momentum": 0.8, "dampening": 0.0},
            "is 0.3 decades below exp2_sgd_B32_fixed in effective learning rate: dampening −0.3",
        ),
        (
            {"lr": 0.1, "momentum": 0.0},
            {"lr": 0.01, "momentum": 0.9},
            "and exp2_sgd_B32_fixed have the same effective learning rate, 0.1: lr +1.0, momentum −1.0",
        ),
        (  # without momentum dampening is ignored: it differs in effect though not in value
            {"lr": 0.1, "momentum": 0.0, "dampening": 0.9},
            {"lr": 0.1, "momentum": 0.9, "dampening": 0.9},
            "have the same effective learning rate, 0.1: dampening +1.0, momentum −1.0",
        ),
        ({"lr": 0.1}, {"lr": 0.1, "foreach": False}, "have the same effective learning rate, 0.1"),
    ],
)
def test_other_pairs_have_their_own_numbers(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], said: str
) -> None:
    (line,) = headline(*two(tmp_path, first, second))
    assert line.endswith(said)


def test_rules_of_different_kinds_have_no_common_rate(tmp_path: Path) -> None:
    sgd = read_run(write_steps(tmp_path / "sgd", **FIXED))
    adam = read_run(write_steps(tmp_path / "adam", target="torch.optim.Adam", lr=1e-3))
    adamw = read_run(write_steps(tmp_path / "adamw", target="torch.optim.AdamW", lr=1e-3))
    rmsprop = read_run(write_steps(tmp_path / "rmsprop", target="torch.optim.RMSprop", lr=1e-3, momentum=0.9))
    none = "no effective learning rate lr·(1 − dampening)/(1 − momentum): what compares is the update"
    assert headline(adam, sgd) == headline(sgd, adam) == [f"Adam has {none}"]
    assert headline(adam, adamw) == [f"Adam and AdamW have {none}"]
    kinds = "the learning rates of SGD and RMSprop are of different kinds: what compares is the update"
    assert headline(sgd, rmsprop) == [kinds]
    path = write_steps(tmp_path / "broken", lr=0.1, momentum=0.5)
    (path / "config.yaml").write_text((path / "config.yaml").read_text().replace("momentum: 0.5", "momentum: 1.0"))
    broken = read_run(path)
    assert headline(sgd, broken) == ["these settings have no effective learning rate: what compares is the update"]


def test_what_else_differs_is_named(tmp_path: Path) -> None:
    runs = (
        read_run(write_steps(tmp_path / "a", clip_norm=1.0, lr=0.1)),
        read_run(write_steps(tmp_path / "b", schedule={10: 0.5}, lr=0.1)),
    )
    assert headline(*runs)[1] == "what also differs: engine.clip_norm, schedule._target_"


def test_the_measured_headline_has_the_factors_that_count(tmp_path: Path) -> None:
    runs = (
        read_run(write_steps(tmp_path / "a", [Group(gradient=0.2, direction=0.1)], momentum=0.9, lr=0.001)),
        read_run(write_steps(tmp_path / "b", [Group(gradient=0.05, direction=0.11)], clip_norm=0.05, lr=0.1)),
    )
    ledgers = [ledger(run, chosen_steps(measured_rows(run), None)) for run in runs]
    # 10 · 0.05 · 1.3 is clipped to 0.05, by 1.1 decades; the directions differ by 0.04 only
    assert measured_headline(*ledgers) == (
        "measured: relative to the weights, the updates of a are 0.7 decades above those of b: "
        "lr −2.0, clipping +1.1, momentum +1.0, gradient/weight +0.6"
    )


def test_updates_of_one_size_are_said_to_be(tmp_path: Path) -> None:
    runs = [
        read_run(write_steps(tmp_path / name, lr=lr, momentum=mu))
        for name, lr, mu in (("a", 1.0, 0.0), ("b", 0.1, 0.9))
    ]
    found = measured_headline(*(ledger(run, (40,)) for run in runs))
    assert found == "measured: relative to the weights, the updates of a and b are of one size: lr +1.0, momentum −1.0"


def test_groups_are_compared_where_they_are_of_one_size(tmp_path: Path) -> None:
    groups = [Group(numbers=100), Group(numbers=7)]
    ledgers = []
    for name, of_run in (("a", groups), ("b", groups), ("c", [groups[0], Group(numbers=8)]), ("d", groups[:1])):
        run = read_run(write_steps(tmp_path / name, of_run))
        ledgers.append(ledger(run, (40,)))
    pairs = [[ours.name for ours, _ in comparable(ledgers[0], other)] for other in ledgers[1:]]
    assert pairs == [["all parameters", "group 0", "group 1"], ["all parameters"], ["all parameters"]]


def test_names_are_short_where_that_tells_runs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [read_run(write_steps(Path(name))) for name in ("120000-a", "130000-a", "0-lr=0.1")]
    assert names(runs[:2]) == ["120000-a", "130000-a"]
    assert names(runs[1:]) == ["a", "0-lr=0.1"]


@pytest.mark.parametrize(
    ("value", "text"), [(-2.0, "−2.0"), (0.96, "+1.0"), (0.04, "0.0"), (-0.04, "0.0"), (-0.05001, "−0.1")]
)
def test_signed_decades(value: float, text: str) -> None:
    assert signed(value) == text
