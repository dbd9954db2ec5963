"""Monitor as it is used: a script, a context, a decorator, files, and mistakes in one line."""

from __future__ import annotations

import copy
import gc
import json
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import here
from loops import batches, hooks, network, sgd, train
from torch import Tensor, nn
from torch.optim import SGD, Adam

from optexp import Monitor
from optexp.config.schema import Interval
from optexp.engine.loop import Plan
from optexp.errors import BadInput
from optexp.monitor.looks import looks

PAGE = Path(__file__).parents[2] / "docs" / "monitor.md"


def script() -> str:
    """Return the script of docs/monitor.md."""
    return PAGE.read_text().split("```python\n")[1].split("```")[0]


@pytest.mark.slow
def test_the_documented_script_names_the_cause(tmp_path: Path) -> None:
    """Exp2's settings in a plain script: the step is three decades too small, and one of them is dampening's."""
    text = script()
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    (tmp_path / "script.py").write_text(
        text.replace("print(monitor.report())", "import json; print(json.dumps(monitor.diagnose().as_dict()))")
    )
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    causes = {finding["cause"]: finding for finding in found["findings"]}
    assert found["findings"][0]["cause"] == "step-too-small"
    assert causes["step-too-small"]["decades"] == pytest.approx(-3, abs=0.5)
    assert causes["dampened-momentum"]["decades"] == pytest.approx(-1)
    assert "optimizer.dampening=0" in found["findings"][0]["prescription"]


def watched(**options: Any) -> tuple[nn.Module, Any, Monitor]:
    model = network()
    optimizer = sgd(model, lr=1e-4)
    return model, optimizer, Monitor(model, optimizer, **options)


def test_the_report_says_what_the_diagnosis_does() -> None:
    model, optimizer, monitor = watched(baseline=math.log(3))
    train(model, optimizer, batches(200), monitor.step)
    found, lines = monitor.diagnose(), monitor.report().splitlines()
    assert lines[0] == f"{found.outcome}  {found.summary}"
    assert [line.split()[1] for line in lines if line[:2] in ("1.", "2.")] == [f.cause for f in found.findings][:2]
    assert f"   try  {' '.join(found.findings[0].prescription)}" in lines
    assert all(f"   {sentence}" in lines for finding in found.findings for sentence in finding.evidence)


def test_a_training_that_went_well_has_nothing_to_report() -> None:
    model = network()
    optimizer = Adam(model.parameters(), lr=0.01)
    monitor = Monitor(model, optimizer, baseline=math.log(3))
    train(model, optimizer, batches(300), monitor.step)
    assert monitor.report().splitlines()[1] == "nothing to report"


def test_a_loss_that_is_no_number_any_more_has_diverged() -> None:
    model, optimizer, monitor = watched(baseline=math.log(3))
    data = batches(40)
    train(model, optimizer, data[:23], monitor.step)
    train(model, optimizer, [(inputs * math.nan, targets) for inputs, targets in data[23:]], monitor.step)
    found = monitor.diagnose()
    assert found.outcome == "diverged"
    assert "train/loss is nan at step 24" in found.summary


def test_as_a_decorator() -> None:
    model, optimizer, monitor = watched(every=1)

    @monitor.watch
    def train_step(inputs: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    losses = [train_step(*batch).item() for batch in batches(4)]
    assert [row["train/loss"] for row in monitor.history().rows] == pytest.approx(losses)
    assert train_step.__name__ == "train_step"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no more data"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_exception_leaves_no_hooks_behind(error: BaseException, status: str) -> None:
    model, optimizer, monitor = watched(every=1)

    def interrupted() -> None:
        with monitor:
            train(model, optimizer, batches(2), monitor.step)
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert hooks(model, optimizer) == 0
    assert monitor.history().status == status
    with pytest.raises(BadInput, match="closed"):
        train(model, optimizer, batches(1), monitor.step)


def test_a_monitor_that_is_dropped_takes_its_hooks_with_it() -> None:
    model, optimizer, monitor = watched()
    assert hooks(model, optimizer) > 0
    del monitor
    gc.collect()
    assert hooks(model, optimizer) == 0


def test_a_watched_model_can_be_copied_and_pickled() -> None:
    model, optimizer, monitor = watched()
    twin = copy.deepcopy(model)
    again = pickle.loads(pickle.dumps(model))
    for other in (twin, again):
        other(batches(1)[0][0])
    assert monitor.history().inputs is None
    train(model, optimizer, batches(1), monitor.step)
    assert monitor.history().inputs is not None


def test_the_verbs_read_its_directory(tmp_path: Path) -> None:
    model, optimizer, monitor = watched(log_dir=tmp_path / "run", batch_size=16, baseline=math.log(3))
    with monitor:
        for _ in range(4):
            train(model, optimizer, batches(50), monitor.step)
            monitor.validation(1.1, 0.3)
    verb, own = here(tmp_path, "diagnose", "run").out.splitlines()[1:], monitor.report().splitlines()
    assert verb[0].startswith(own[0])
    assert [line for line in verb if line[:1].isdigit()] == [line for line in own if line[:1].isdigit()] != []
    for words in (["ledger", "run"], ["runs", "."], ["report", "run"]):
        ended = here(tmp_path, *words)
        assert (ended.status, ended.err) == (0, ""), words
    ended = here(tmp_path, "rerun", "run")
    assert (ended.status, len(ended.err.splitlines())) == (2, 1), ended


def test_a_directory_that_cannot_be_written_any_more_costs_a_warning(tmp_path: Path) -> None:
    model, optimizer, monitor = watched(every=1, log_dir=tmp_path / "run")
    train(model, optimizer, batches(2), monitor.step)
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.warns(RuntimeWarning, match="records no further"):
        monitor.close()
    assert monitor.history().rows


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"every": 0}, "every=0: allowed are whole numbers from 1"),
    ({"every": 1.5}, "every=1.5: "),
    ({"probe_every": -1}, "probe_every=-1: allowed are whole numbers from 1, and None"),
    ({"total_steps": 0}, "total_steps=0: "),
    ({"batch_size": True}, "batch_size=True: "),
    ({"baseline": 0}, "baseline=0: "),
    ({"scaler": 1}, "scaler: is a int"),
    ({"optimizer": "sgd"}, "optimizer: is a str"),
    ({"model": "resnet"}, "model: is a str"),
    ({"optimizer": SGD(network(1).parameters(), lr=0.1)}, "optimizer: holds none of the model's parameters"),
    ({"model": nn.LazyLinear(3)}, "model: has parameters without a shape"),
]


@pytest.mark.parametrize(("change", "complaint"), MISTAKES)
def test_mistakes_are_told_in_one_line(change: dict[str, Any], complaint: str) -> None:
    model = change.get("model", network())
    given: dict[str, Any] = {"model": model, **change}
    if "optimizer" not in given:
        given["optimizer"] = sgd(model if isinstance(model, nn.Module) else network())
    with pytest.raises(BadInput) as raised:
        Monitor(**given)
    assert str(raised.value).startswith(complaint)
    assert "\n" not in str(raised.value)


def test_a_second_run_in_a_directory_is_refused(tmp_path: Path) -> None:
    watched(log_dir=tmp_path)[2].close()
    with pytest.raises(BadInput, match="already holds a run"):
        watched(log_dir=tmp_path)


@pytest.mark.parametrize("loss", [torch.ones(32), torch.ones(0), "1.0 or so", None])
def test_a_loss_must_be_one_number(loss: Any) -> None:
    model, optimizer, monitor = watched()
    with pytest.raises(BadInput, match=r"^monitor.step\(loss\): .*allowed is one number"):
        train(model, optimizer, batches(1), lambda _: monitor.step(loss))


def test_an_accuracy_is_no_percentage() -> None:
    with pytest.raises(BadInput, match="allowed are shares"):
        watched()[2].validation(1.0, 93.2)


def test_a_step_that_was_not_taken_is_refused() -> None:
    model, optimizer, monitor = watched()
    with pytest.raises(BadInput, match="has taken no step since the last call"):
        monitor.step(1.0)
    train(model, optimizer, batches(3))
    with pytest.raises(BadInput, match="has taken 3 steps since the last call"):
        monitor.step(1.0)


def test_looks_are_the_engines_in_the_beginning_and_become_rarer() -> None:
    chosen: dict[int, Any] = {}
    for step, look in looks(10, 200, None):
        if step > 100_000:
            break
        chosen[step] = look
    plan = Plan(400, 40, 32, 10, Interval(10**6, "step"), None, None, 200)
    early = {
        step: replace(look, accuracy=False) for step, look in plan.looks.items() if 1 <= step <= 280 and look.looks
    }
    assert {step: look for step, look in chosen.items() if step <= 280} == early
    measured = [step for step, look in chosen.items() if look.sizes]
    assert len(measured) < 120
    assert all(later - step <= step / 10 + 10 for step, later in pairwise(measured[1:]))
    probed = [step for step, look in chosen.items() if look.probe]
    assert all(chosen[step - 1].remember for step in probed)
    assert all(later - step <= max(200, step / 3) + later / 10 + 10 for step, later in pairwise(probed))


def test_the_last_planned_step_is_measured_and_probed() -> None:
    chosen = [next_look for next_look, _ in zip(looks(10, 200, 57), range(12), strict=False)]
    found = dict(chosen)
    assert found[57].probe
    assert found[57].sizes
    assert found[56].remember
