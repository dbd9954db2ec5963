"""Prescriptions: composed by optexp for every schedule, and run as printed for the run the project began with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import in_a_process

from optexp.config.check import check
from optexp.config.compose import Composer
from optexp.diagnosis import repairs
from optexp.diagnosis.account import account
from optexp.diagnosis.candidates import Case
from optexp.diagnosis.history import History, ScheduleFacts
from optexp.diagnosis.measures import Measures
from optexp.diagnosis.outcome import outcome
from optexp.diagnosis.values import nice
from optexp.records.reading import flat, read_run


@pytest.mark.parametrize(("value", "expected"), [(0.012, 0.01), (0.0151, 0.02), (0.9, 1.0), (7.2e-4, 1e-3), (31, 30)])
def test_nice_numbers(value: float, expected: float) -> None:
    assert nice(value) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step", "multi_step", "exponential", "plateau"])
def test_a_schedule_that_lasts_is_one_that_optexp_takes(schedule: str) -> None:
    composer = Composer()
    composed = composer.compose([f"schedule={schedule}"])
    name = composed.config["schedule"]["_target_"].rpartition(".")[2]
    rows = [{"step": step, "epoch": step / 40, "train/loss": 2.0} for step in range(10, 401, 10)]
    history = History(rows, total_steps=400, schedule=ScheduleFacts(name), config=flat(composed.config))
    measures = Measures(history)
    words = repairs.until_the_end(Case(history, measures, outcome(measures), account(measures)))
    keys = [word.partition("=")[0] for word in words]
    own = [f"schedule={schedule}"] if "schedule" not in keys else []
    repaired = composer.compose([*own, *words])
    check(repaired.config, repaired.choices)


@pytest.mark.slow
def test_the_command_printed_for_exp2_trains_it(tmp_path: Path) -> None:
    folder = tmp_path / "outputs/runs"
    assert in_a_process(tmp_path, "experiment=exp2_sgd_B32").status == 0
    (path,) = folder.glob("*/*")
    ended = in_a_process(tmp_path, "diagnose", str(path))
    assert ended.status == 0, ended.err
    printed = ended.out.splitlines()
    assert re.match(r"1[.] step-too-small \(99 %, (2[.][5-9]|3[.][0-5]) decades\)", printed[3])
    assert any("dampening exactly 1.0" in line for line in printed)
    command = next(line for line in printed if line.strip().startswith("try "))
    words = shlex.split(command)
    assert in_a_process(tmp_path, *words[2:]).status == 0
    (repaired,) = set(folder.glob("*/*")) - {path}
    assert read_run(repaired).metrics["val/accuracy"] >= 0.95
