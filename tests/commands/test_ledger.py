"""optexp ledger: of run directories whose factors are known, and of runs that were trained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from command_line import here
from step_directories import Group, write_steps

from optexp.commands.ledger import main
from optexp.errors import BadInput

EXP2 = {"lr": 1e-4, "momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-2}
FIXED = {"lr": 1e-2, "momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-4}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(list(words)) == 0
    return capsys.readouterr().out.splitlines()


def test_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    write_steps(Path("a"), [Group(10.0, 0.05, 0.5, 0.01, 1000)], **EXP2)
    assert printed(capsys, "a", "--step", "100") == [
        "a",
        "SGD: lr 0.0001, momentum 0.9, dampening 0.9, weight_decay 0.01",
        "step 100",
        "all parameters: 2 tensors, 1,000 numbers, weight decay 0.01",
        "",
        "factor                                   decades       ×",
        "base lr                                    −4.00  0.0001",
        "schedule and warm-up                        0.00       1",
        "1 − dampening                              −1.00     0.1",
        "1 / (1 − momentum)                         +1.00      10",
        "gradient / weight                          −1.00     0.1",
        "agreement of gradients and weight decay    −0.30     0.5",
        "= update / weight                          −5.30    5e-6",
        "weight decay / gradient                    −1.00     0.1",
        "",
        "each decade is rounded to 0.01; unrounded (--json) the factors sum to the update exactly",
        "effective lr: 0.0001 from settings, lr·(1 − dampening)/(1 − momentum)",
    ]


def test_groups_stand_side_by_side_and_means_say_over_what(capsys: pytest.CaptureFixture[str]) -> None:
    write_steps(Path("a"), [Group(weight_decay=0.1), Group(2.0, 0.3, 0.1, 0.0, 50)], clip_norm=0.1, weight_decay=0.1)
    lines = printed(capsys, "a")
    assert lines[2] == "geometric means of 5 logged steps, 10 to 50"
    assert lines[3] == "group 0: 2 tensors, 1,000 numbers, weight decay 0.1"
    assert lines[6].split() == ["factor", "all", "parameters", "×", "group", "0", "×", "group", "1", "×"]
    names = [line.partition("  ")[0] for line in lines[7:15]]
    assert names == [
        *("base lr", "schedule and warm-up", "clipping", "gradient / weight", "direction and weight decay"),
        *("= update / weight", "weight decay / gradient", "unexplained, at most"),
    ]
    assert len(lines[13].split()) == 8  # of all parameters as probed, and of the group that decays
    assert lines[14].split()[-2:] == ["1e-6", "2e-6"]


def test_an_old_run_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    write_steps(Path("a"), old=True, lr=0.01)
    assert printed(capsys, "a")[-1] == (
        "missing: ledger/group*/…: not logged by this run, so there is no account per parameter group"
    )


def test_two_runs(capsys: pytest.CaptureFixture[str]) -> None:
    write_steps(Path("120000-exp2_sgd_B32"), [Group(weight_decay=0.01)], **EXP2)
    write_steps(Path("120100-exp2_sgd_B32_fixed"), [Group(weight_decay=1e-4)], **FIXED)
    lines = printed(capsys, "120000-exp2_sgd_B32", "120100-exp2_sgd_B32_fixed")
    assert lines[7:9] == [
        "exp2_sgd_B32 is 3.0 decades below exp2_sgd_B32_fixed in effective learning rate: "
        "lr −2.0, dampening −1.0, weight decay 0.0",
        "measured: relative to the weights, the updates of exp2_sgd_B32 are 3.0 decades below those of "
        "exp2_sgd_B32_fixed: lr −2.0, dampening −1.0",
    ]
    table = {line.partition("  ")[0]: line.split()[-4:] for line in lines[10:19]}
    assert table["base lr"] == ["−4.00", "−2.00", "−2.00", "0.01"]
    assert table["1 − dampening"] == ["−1.00", "0.00", "−1.00", "0.1"]
    assert table["1 / (1 − momentum)"] == ["+1.00", "+1.00", "0.00", "1"]
    assert table["= update / weight"] == ["−5.49", "−2.49", "−3.00", "0.001"]
    assert table["weight decay / gradient"][2:] == ["+2.00", "100"]
    assert lines[-2:] == [
        "A  effective lr: 0.0001 from settings, lr·(1 − dampening)/(1 − momentum); 0.000101 measured there (one probe)",
        "B  effective lr: 0.1 from settings, lr·(1 − dampening)/(1 − momentum); 0.101 measured there (one probe)",
    ]


def test_a_group_of_two_runs_is_described_by_both(capsys: pytest.CaptureFixture[str]) -> None:
    for name, decay in (("a", 0.1), ("b", 0.01)):
        write_steps(Path(name), [Group(weight_decay=decay), Group(numbers=1)], weight_decay=decay)
    info = json.loads(Path("b/run.json").read_text())
    info["parameter_groups"][1]["tensors"] = 1
    Path("b/run.json").write_text(json.dumps(info))
    assert [line for line in printed(capsys, "a", "b") if line.startswith("group ")] == [
        "group 0: 2 tensors, 1,000 numbers, weight decay 0.1 in A, weight decay 0.01 in B",
        "group 1: 2 tensors in A, 1 tensor in B, 1 number, weight decay 0",
    ]


def test_a_rule_without_weight_decay_is_described_without(capsys: pytest.CaptureFixture[str]) -> None:
    write_steps(Path("a"), target="torch.optim.LBFGS")
    info = json.loads(Path("a/run.json").read_text())
    info["parameter_groups"] = [{"tensors": 1, "numbers": 1000, "weight_decay": None}]
    Path("a/run.json").write_text(json.dumps(info))
    assert printed(capsys, "a")[3] == "all parameters: 1 tensor, 1,000 numbers"


def test_adam_beside_sgd_compares_updates(capsys: pytest.CaptureFixture[str]) -> None:
    adam = [Group(direction=20.0, weight_decay=0.01)]
    write_steps(Path("adam"), adam, "torch.optim.AdamW", lr=1e-3, weight_decay=0.01, old=True)
    write_steps(Path("sgd"), [Group(weight_decay=1e-4)], **FIXED)
    lines = printed(capsys, "adam", "sgd")
    assert (
        "AdamW has no effective learning rate lr·(1 − dampening)/(1 − momentum): what compares is the update" in lines
    )
    assert any(line.split()[:3] == ["direction", "+1.30", "−0.30"] for line in lines)
    assert "direction: in A adaptive factor and weight decay; in B agreement of gradients and weight decay" in lines
    kinds = [line.split()[:4] for line in lines if line.startswith("weight decay /")]
    assert [words[3] for words in kinds] == ["update", "gradient"]
    assert [line[:1] for line in lines[-2:]] == ["A", "B"]
    assert lines[-2].startswith("A  missing: ledger/group*/…")


def test_two_runs_are_looked_at_over_the_same_steps(capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        write_steps(Path(name))
    lines = Path("b/metrics.jsonl").read_text().splitlines()
    Path("b/metrics.jsonl").write_text("\n".join(lines[:5]) + "\n")
    spans = [line.strip() for line in printed(capsys, "a", "b") if "geometric" in line]
    assert spans == ["geometric means of 2 logged steps, 10 to 20"] * 2


def test_json_is_unrounded_and_closes(capsys: pytest.CaptureFixture[str]) -> None:
    for name, lr in (("a", 0.1), ("b", 0.037)):
        write_steps(
            Path(name), [Group(weight_decay=0.1), Group(3.0, 0.2, 0.3, 0.0)], clip_norm=0.3, lr=lr, momentum=0.9
        )
    record = json.loads("\n".join(printed(capsys, "a", "b", "--json")), parse_constant=pytest.fail)
    for run in record["runs"]:
        assert len(run["accounts"]) == 3
        for account in run["accounts"]:
            assert sum(account["factors"].values()) == pytest.approx(account["update"], abs=1e-13)
    assert record["runs"][0]["effective_lr"]["measured"] == pytest.approx(1.01)
    apart = record["difference"]
    assert apart["effective_lr"]["decades"] == pytest.approx(math.log10(0.1 / 0.037))
    assert [account["name"] for account in apart["accounts"]] == ["all parameters", "group 0", "group 1"]
    for account in apart["accounts"]:
        assert sum(account["factors"].values()) == pytest.approx(account["update"], abs=1e-13)
    (one,) = json.loads("\n".join(printed(capsys, "a", "--json")))["runs"]
    assert one == record["runs"][0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--step", "7"], "--step 7: was not measured; the nearest logged steps are 1 and 10"),
        (["nope"], "nope: no such folder"),
        (["a", "nope"], "nope: no such folder"),
        (["sweep"], "sweep: is a sweep; name one of its members"),
        (["empty"], "empty: no step has been logged, so there is nothing to account for"),
        ([], "the following arguments are required: RUN"),
        (["a", "a", "a"], "unrecognized arguments: a"),
    ],
)
def test_bad_input(words: list[str], message: str) -> None:
    write_steps(Path("a"))
    (write_steps(Path("empty")) / "metrics.jsonl").write_text("")
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text("{}")
    with pytest.raises(BadInput, match=message):
        main(words)


def trained(folder: Path, *words: str) -> str:
    ended = here(
        folder, "model=mlp", "model.hidden=[16]", "engine.max_steps=80", "engine.checkpoint_every=null", *words
    )
    assert ended.status == 0, ended.err
    name = next(word.removeprefix("name=") for word in words if word.startswith("name="))
    (path,) = folder.glob(f"outputs/runs/*/*-{name}")
    return str(path.relative_to(folder))


def test_runs_that_were_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The post-mortem's pair: three decades by its settings, and by its measured steps."""
    exp2 = trained(tmp_path, "experiment=exp2_sgd_B32", "name=exp2")
    fixed = trained(tmp_path, "experiment=exp2_sgd_B32_fixed", "name=fixed")
    capsys.readouterr()
    record: dict[str, Any] = json.loads("\n".join(printed(capsys, exp2, fixed, "--json")))
    difference = record["difference"]
    assert difference["effective_lr"]["parts"] == pytest.approx({"lr": -2, "dampening": -1, "weight_decay": 0})
    assert difference["accounts"][0]["update"] == pytest.approx(-3, abs=0.5)
    for run, rate in zip(record["runs"], (1e-4, 1e-1), strict=True):
        (account,) = run["accounts"]
        assert abs(account["unexplained"]) < 1e-5
        assert run["effective_lr"]["settings"] == pytest.approx(rate)
        assert run["effective_lr"]["measured"] == pytest.approx(rate, rel=0.02)
        rows = [json.loads(line) for line in (tmp_path / run["path"] / "metrics.jsonl").read_text().splitlines()]
        logged = [row["ledger/group0/direction"] for row in rows if row["step"] in run["steps"]]
        assert account["factors"]["direction"] == pytest.approx(sum(logged) / len(logged), abs=1e-9)
        assert run["missing"] is None
