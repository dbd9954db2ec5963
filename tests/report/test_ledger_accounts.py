"""The account of steps whose factors are known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from step_directories import STEPS, Group, write_steps

from optexp.errors import BadInput
from optexp.records.reading import read_run
from optexp.report.ledger import ALL, Ledger, chosen_steps, decay_name, ledger, measured_rows, summary

TWO = (Group(10.0, 0.05, 0.5, 0.01, 1000), Group(2.0, 0.3, 0.1, 0.0, 50))


def looked_at(path: Path, *steps: int) -> Ledger:
    return ledger(read_run(path), steps or chosen_steps(measured_rows(read_run(path)), None))


def test_every_factor_is_the_one_the_step_was_made_of(tmp_path: Path) -> None:
    settings = {"lr": 1e-4, "momentum": 0.8, "dampening": 0.5, "weight_decay": 0.01}
    path = write_steps(tmp_path / "a", TWO, schedule={30: 0.25}, clip_norm=0.1, **settings)
    overall, first, second = looked_at(path, 30).accounts
    assert [account.name for account in (overall, first, second)] == [ALL, "group 0", "group 1"]
    norm = math.hypot(10 * 0.05 * 1.3, 2 * 0.3 * 1.3)
    shared = {"lr": 1e-4, "schedule": 0.25, "dampening": 0.5, "momentum": 5.0, "clipping": 0.1 / norm}
    for account, group in zip((first, second), TWO, strict=True):
        expected = {**shared, "gradient": 1.3 * group.gradient, "direction": group.direction}
        assert {name: 10**value for name, value in account.factors.items()} == pytest.approx(expected, rel=1e-9)
        assert 10**account.update == pytest.approx(math.prod(expected.values()), rel=1e-9)
    assert 10 ** overall.factors["gradient"] == pytest.approx(norm / math.hypot(10, 2), rel=1e-9)
    moved = math.hypot(10 * 0.05 * 0.5, 2 * 0.3 * 0.1) / math.hypot(10 * 0.05, 2 * 0.3)
    assert 10 ** overall.factors["direction"] == pytest.approx(moved, rel=1e-9)


@pytest.mark.parametrize("old", [False, True])
def test_factors_sum_to_the_update_exactly_and_are_geometric_means(tmp_path: Path, old: bool) -> None:
    schedule = {step: 1 / (1 + step) for step in STEPS}
    path = write_steps(tmp_path / "a", TWO, schedule=schedule, clip_norm=0.7, momentum=0.9, old=old)
    found = looked_at(path)
    assert found.steps == (10, 20, 30, 40, 50)
    for account in found.accounts:
        assert math.fsum(account.factors.values()) == pytest.approx(account.update, abs=1e-14)
        assert account.rows == 5
        rate = math.fsum(math.log10(schedule[step]) for step in found.steps) / 5
        assert account.factors["schedule"] == pytest.approx(rate, abs=1e-12)
    gradient = math.fsum(math.log10(1 + step / 100) for step in found.steps) / 5
    base = math.log10(math.hypot(0.5, 0.6) / math.hypot(10, 2))
    assert found.accounts[0].factors["gradient"] == pytest.approx(base + gradient, abs=1e-12)
    assert (found.missing is not None) == old
    assert len(found.accounts) == (1 if old else 3)


def test_an_old_run_has_the_same_account_of_all_parameters(tmp_path: Path) -> None:
    now, old = (
        looked_at(write_steps(tmp_path / str(old), TWO, clip_norm=0.7, momentum=0.9, old=old)) for old in (False, True)
    )
    assert old.accounts[0].factors == pytest.approx(now.accounts[0].factors, abs=1e-12)


def test_a_single_group_is_all_parameters(tmp_path: Path) -> None:
    (account,) = looked_at(write_steps(tmp_path / "a", momentum=0.9)).accounts
    assert (account.name, account.parameters) == (ALL, {"tensors": 2, "numbers": 1000, "weight_decay": 0.0})
    assert account.unexplained == pytest.approx(1e-6)
    assert account.factors["direction"] == pytest.approx(math.log10(0.5))


def test_unexplained_is_the_largest_residual_of_each_group(tmp_path: Path) -> None:
    overall, first, second = looked_at(write_steps(tmp_path / "a", TWO)).accounts
    assert (overall.unexplained, first.unexplained, second.unexplained) == (None, 1e-6, 2e-6)


def test_weight_decay_beside_the_gradient(tmp_path: Path) -> None:
    """‖wd · w‖/‖g‖ of each group from its own numbers; of all parameters as probed, where groups differ."""
    overall, first, second = looked_at(write_steps(tmp_path / "a", TWO, weight_decay=0.01), 40).accounts
    assert overall.decay == pytest.approx(0.25)
    assert first.decay == pytest.approx(0.01 / (0.05 * 1.4))
    assert second.decay is None
    (account,) = looked_at(write_steps(tmp_path / "b", weight_decay=0.01, old=True), 40).accounts
    assert account.decay == pytest.approx(0.01 / (0.05 * 1.4))


def test_decoupled_weight_decay_beside_the_update(tmp_path: Path) -> None:
    path = write_steps(tmp_path / "a", [Group(weight_decay=0.02)], "torch.optim.AdamW", lr=1e-3, weight_decay=0.02)
    (account,) = looked_at(path, 40).accounts
    assert decay_name(read_run(path)) == "weight decay / update"
    assert account.decay == pytest.approx(1e-3 * 0.02 / (1e-3 * 0.05 * 1.4 * 0.5))


@pytest.mark.parametrize(
    ("target", "settings", "decay", "name"),
    [
        ("torch.optim.SGD", {"momentum": 0.9}, 0.0, "agreement of gradients"),
        ("torch.optim.SGD", {"momentum": 0.9}, 0.1, "agreement of gradients and weight decay"),
        ("torch.optim.SGD", {}, 0.0, "direction"),
        ("torch.optim.NAdam", {}, 0.0, "adaptive factor"),
        ("torch.optim.Adagrad", {}, 0.1, "adaptive factor and weight decay"),
        ("pytorch_optimizer.Lion", {}, 0.0, "sign of the momentum"),
        ("optexp.optimizers.muon.Muon", {"momentum": 0.9}, 0.0, "direction"),
    ],
)
def test_the_direction_is_named_by_what_it_is(
    tmp_path: Path, target: str, settings: dict[str, Any], decay: float, name: str
) -> None:
    path = write_steps(tmp_path / "a", [Group(weight_decay=decay)], target, weight_decay=decay, **settings)
    assert looked_at(path).accounts[0].direction == name


def test_effective_rates_of_settings_schedule_and_probes(tmp_path: Path) -> None:
    path = write_steps(
        tmp_path / "a", schedule={40: 0.5, 50: 0.25, 30: 1.0}, probed=(30, 40, 50), lr=0.01, momentum=0.9
    )
    rates = looked_at(path).rates
    found = (rates.settings, rates.scheduled, rates.measured, rates.probes)
    assert found == pytest.approx((0.1, 0.05, 0.0505, 3))
    rates = looked_at(path, 20).rates
    assert (rates.scheduled, rates.measured, rates.probes) == (pytest.approx(0.1), None, 0)
    assert looked_at(write_steps(tmp_path / "b", target="torch.optim.Adam")).rates.settings is None


def test_the_steps_looked_at() -> None:
    rows: dict[int, Any] = {step: {} for step in STEPS}
    assert chosen_steps(rows, None) == (10, 20, 30, 40, 50)
    assert chosen_steps(rows, None, end=40) == (10, 20)
    assert chosen_steps(rows, None, end=10) == (1,)
    assert chosen_steps({7: {}}, None) == (7,)
    assert chosen_steps(rows, 100) == (100,)
    with pytest.raises(BadInput, match=r"^--step 5: was not measured; the nearest logged steps are 1 and 10$"):
        chosen_steps(rows, 5)
    with pytest.raises(BadInput, match=r"the nearest logged step is 100$"):
        chosen_steps(rows, 500)


def rewrite(path: Path, **values: float | None) -> Path:
    file = path / "metrics.jsonl"
    rows = [
        json.loads(line) | {k.replace("_", "/", 1): v for k, v in values.items()}
        for line in file.read_text().splitlines()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_runs_of_which_nothing_can_be_said(tmp_path: Path) -> None:
    empty = write_steps(tmp_path / "empty")
    (empty / "metrics.jsonl").write_text("")
    with pytest.raises(BadInput, match="empty: no step has been logged, so there is nothing"):
        measured_rows(read_run(empty))
    (empty / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0, "optim/lr": 0.1}\n')
    with pytest.raises(BadInput, match="no step has logged optim/grad_norm, optim/weight_norm, optim/update_ratio, so"):
        measured_rows(read_run(empty))
    with pytest.raises(BadInput, match=r"at every logged step optim/update_ratio is zero or not finite"):
        measured_rows(read_run(rewrite(write_steps(tmp_path / "still"), optim_update_ratio=0.0)))
    nothing = rewrite(write_steps(tmp_path / "nan"), optim_grad_norm=None, optim_update_ratio=0.0)
    with (nothing / "metrics.jsonl").open("a") as file:
        file.write('{"step": 101, "val/loss": 1.0}\n')
    with pytest.raises(BadInput, match="step optim/grad_norm or optim/update_ratio is zero or not finite"):
        measured_rows(read_run(nothing))
    forever = write_steps(tmp_path / "forever", momentum=0.5)
    (forever / "config.yaml").write_text((forever / "config.yaml").read_text().replace("0.5", "1.0"))
    with pytest.raises(BadInput, match=r"optimizer.lr=0.1, optimizer.momentum=1.0: no step can be accounted for"):
        measured_rows(read_run(forever))
    damped = write_steps(tmp_path / "damped", momentum=0.5, dampening=0.25)
    (damped / "config.yaml").write_text((damped / "config.yaml").read_text().replace("0.25", "1.0"))
    with pytest.raises(BadInput, match=r"optimizer.momentum=0.5, optimizer.dampening=1.0: no step can be accounted"):
        measured_rows(read_run(damped))
    task = write_steps(tmp_path / "task")
    (task / "run.json").write_text(json.dumps(json.loads((task / "run.json").read_text()) | {"task": "surface"}))
    with pytest.raises(BadInput, match="is a task=surface; allowed is a training"):
        measured_rows(read_run(task))


def test_steps_that_were_not_finite_are_left_out(tmp_path: Path) -> None:
    path = write_steps(tmp_path / "a")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {"optim/update_ratio": None})
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert 20 in measured_rows(read_run(path))
    assert 30 not in measured_rows(read_run(path))


def test_a_rule_without_a_learning_rate_in_its_config(tmp_path: Path) -> None:
    path = write_steps(tmp_path / "a", target="mine.Rule")
    config = (path / "config.yaml").read_text().replace("lr: 0.1", "shrink: 0.1")
    (path / "config.yaml").write_text(config)
    (account,) = looked_at(path).accounts
    assert (account.factors["lr"], account.factors["schedule"]) == (pytest.approx(-1.0), 0.0)


def test_a_summary_has_what_makes_the_step(tmp_path: Path) -> None:
    path = write_steps(tmp_path / "a", clip_norm=1.0, lr=1e-5, momentum=0.9, dampening=0.0, nesterov=True, foreach=None)
    assert summary(read_run(path)) == "SGD: lr 1e-5, momentum 0.9, nesterov true, gradients clipped at norm 1"
