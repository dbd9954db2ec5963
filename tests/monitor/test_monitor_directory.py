"""The directory of a watched training: what the verbs make of its settings, and what they refuse to do with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from loops import batches, network, sgd
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from optexp import Monitor
from optexp.attribution.sides import read_side
from optexp.commands import diagnose, ledger, rerun, resume
from optexp.config.compose import Composer
from optexp.curvature.of_run import Measuring, load_checkpoint
from optexp.errors import BadInput
from optexp.monitor.rows import group_facts
from optexp.records.reading import Run, read_run
from optexp.report.effective_rate import differing_effective_lr
from optexp.report.ledger import chosen_steps, measured_rows
from optexp.report.ledger import ledger as account_of
from optexp.report.ledger_pair import headline, promise
from optexp.verification.verify import verify

STEPS = 60
TWO = ({"lr": 0.1, "momentum": 0.9}, {"lr": 1e-3, "momentum": 0.0})


def recorded(
    path: Path,
    optimizer_of: Callable[[Any], Optimizer],
    scheduler_of: Callable[[Optimizer], LRScheduler] | None = None,
) -> tuple[Run, dict[int, list[dict[str, Any]]]]:
    """Train and record; return the run and the settings of every group at every step."""
    model = network()
    optimizer = optimizer_of(model)
    scheduler = None if scheduler_of is None else scheduler_of(optimizer)
    settings: dict[int, list[dict[str, Any]]] = {}
    with Monitor(model, optimizer, log_dir=path, baseline=math.log(3)) as monitor:
        for step, (inputs, targets) in enumerate(batches(STEPS), 1):
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            settings[step] = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            optimizer.step()
            monitor.step(loss)
            if scheduler is not None:
                scheduler.step()
    return read_run(path), settings


def two_groups(model: Any) -> Optimizer:
    return SGD([{"params": model[0].parameters(), **TWO[0]}, {"params": model[2].parameters(), **TWO[1]}])


def cycled(path: Path) -> tuple[Run, dict[int, list[dict[str, Any]]]]:
    return recorded(
        path, lambda model: sgd(model, lr=0.1, dampening=0.5), lambda own: OneCycleLR(own, 0.1, total_steps=STEPS)
    )


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_the_account_of_a_group_has_its_own_settings(tmp_path: Path, decay: float) -> None:
    """Also under a schedule: the learning rate of the second group is logged nowhere but in its direction."""
    run, settings = recorded(tmp_path / "a", two_groups, lambda own: LambdaLR(own, lambda step: decay**step))
    steps = chosen_steps(measured_rows(run), None)
    overall, *groups = account_of(run, steps).accounts
    for index, account in enumerate(groups):
        lr, momentum = TWO[index]["lr"], TWO[index]["momentum"]
        rates = [math.log10(settings[step][index]["lr"] / lr) for step in steps]
        expected = {"lr": math.log10(lr), "schedule": math.fsum(rates) / len(steps), "dampening": 0.0}
        expected |= {"momentum": -math.log10(1 - momentum), "clipping": 0.0}
        assert {name: account.factors[name] for name in expected} == pytest.approx(expected, abs=1e-6)
        assert math.fsum(account.factors.values()) == pytest.approx(account.update)
    assert groups[1].factors["direction"] == pytest.approx(0, abs=1e-3)  # plain gradient descent, in float32
    assert (groups[0].direction, groups[1].direction) == ("agreement of gradients", "direction")
    assert overall.factors.keys() == {"schedule", "dampening", "clipping", "gradient"}
    assert run.info["parameter_groups"][1] == {"tensors": 2, "numbers": 27, "weight_decay": 0.0, **TWO[1]}


def test_no_rate_is_claimed_where_groups_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = recorded(tmp_path / "groups", two_groups)
    one, _ = recorded(tmp_path / "one", sgd)
    assert differing_effective_lr(run) is None
    assert promise(run, one) is None
    assert headline(run, one)[0].startswith("in groups the parameter groups differ in lr and momentum")
    assert ledger.main([str(run.path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == "SGD: lr and momentum by group"
    base = next(line for line in shown if line.startswith("base lr"))
    assert base.split() == ["base", "lr", "−1.00", "0.1", "−3.00", "0.001"]
    assert shown[-1].startswith("effective lr: 1 in group 0, 0.001 in group 1 from settings")
    assert ledger.main([str(run.path), str(one.path)]) == 0
    assert not any(line.startswith("base lr") for line in capsys.readouterr().out.split("group 0")[0].splitlines())


def test_the_diagnosis_says_that_groups_differ(tmp_path: Path) -> None:
    """A step too small, and dampening in the first group alone: no rate of that group stands for all."""
    small = {"lr": 1e-6, "momentum": 0.9, "dampening": 0.9}

    def optimizer(model: Any) -> Optimizer:
        return SGD([{"params": model[0].parameters(), **small}, {"params": model[2].parameters(), "lr": 1e-7}])

    model = network()
    watched = optimizer(model)
    monitor = Monitor(model, watched, baseline=math.log(3))
    for inputs, targets in batches(STEPS):
        loss = F.cross_entropy(model(inputs), targets)
        watched.zero_grad()
        loss.backward()
        watched.step()
        monitor.step(loss)
    found = monitor.diagnose()
    assert [finding.cause for finding in found.findings][:1] == ["step-too-small"]
    assert "dampened-momentum" not in [finding.cause for finding in found.findings]
    said = " ".join(sentence for finding in found.findings for sentence in finding.evidence)
    assert "effective learning rate" not in said
    names = "lr and dampening and momentum"
    assert found.unknown[-1] == f"an effective learning rate of all parameters (their groups differ in {names})"


def test_a_momentum_that_moves_is_that_of_each_step(tmp_path: Path) -> None:
    run, settings = cycled(tmp_path / "a")
    steps = chosen_steps(measured_rows(run), None)
    found = account_of(run, steps)
    moved = [-math.log10(1 - settings[step][0]["momentum"]) for step in steps]
    factors = found.accounts[0].factors
    assert factors["momentum"] == pytest.approx(math.fsum(moved) / len(steps), abs=1e-9)
    assert factors["dampening"] == pytest.approx(math.log10(0.5))
    logged = [row["ledger/group0/direction"] for row in run.rows if row["step"] in steps]
    assert factors["direction"] == pytest.approx(math.fsum(logged) / len(steps), abs=1e-6)
    rates = [settings[step][0]["lr"] * 0.5 / (1 - settings[step][0]["momentum"]) for step in steps]
    assert found.rates.settings is None
    assert found.rates.span == pytest.approx((min(rates), max(rates)))


def test_a_rate_of_the_last_momentum_alone_is_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = cycled(tmp_path / "cycled")
    one, _ = recorded(tmp_path / "one", sgd)
    assert differing_effective_lr(run) is None
    assert headline(one, run)[0].startswith("in cycled the momentum moved")
    assert ledger.main([str(run.path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("effective lr: ")
    assert "as the momentum moved" in line


def test_group_facts_have_settings_only_where_groups_differ() -> None:
    model = network()
    both = [{"params": [parameter], "lr": 0.01} for parameter in model.parameters()]
    optimizer = SGD(both, momentum=0.9)
    assert all(facts.keys() == {"tensors", "numbers", "weight_decay"} for facts in group_facts([], both_of(optimizer)))
    optimizer.param_groups[1]["lr"] = 0.001
    # Without a scheduler's note: the first was ten times as large at its highest, so the second is taken to have been.
    rates = [facts["lr"] for facts in group_facts([{"step": 1, "optim/lr": 0.1}], both_of(optimizer))]
    assert rates == pytest.approx([0.1, 0.01, 0.1, 0.1])


def both_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    return optimizer.param_groups


def test_what_needs_a_configuration_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run, _ = recorded(tmp_path / "mine", lambda model: sgd(model, lr=1e-6))
    before = sorted(tmp_path.rglob("*"))
    refusal = "was recorded by Monitor; optexp has no configuration to train it again"
    attempts: list[Callable[[], object]] = [
        lambda: diagnose.main(["mine", "--curvature"]),
        lambda: diagnose.main(["mine", "--verify"]),
        lambda: rerun.main(["mine"]),
        lambda: resume.main(["mine"]),
        lambda: load_checkpoint(run.path, Measuring()),
        lambda: verify(run, None),  # type: ignore[arg-type]
        lambda: read_side(Composer(), "task.failing", "mine", []),
    ]
    for attempt in attempts:
        with pytest.raises(BadInput, match=refusal) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert diagnose.main(["mine"]) == 0
