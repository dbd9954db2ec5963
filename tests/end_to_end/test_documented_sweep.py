"""The documented sweep, run once as a user runs it and looked at from all sides; then what can happen in a sweep."""

from __future__ import annotations

import csv
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Ended, everything_in, here, in_a_process
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.util.tensor_util import make_ndarray

from optexp.records.reading import Run, read_run

LR, DECAY = "optimizer.lr", "optimizer.weight_decay"
# 1e30 overflows float32 in its second step: the two members with it diverge, and the sweep is a success
SWEEP = ["-m", f"{LR}=0.1,1e30", f"{DECAY}=0,1e-2", "engine.log_every=2", "engine.evaluate_test=true"]
MEMBERS = [(0.1, 0.0), (0.1, 0.01), (1e30, 0.0), (1e30, 0.01)]
STATUSES = ["completed", "completed", "diverged", "diverged"]


class Sweep:
    """A sweep that has ended: how, and where."""

    def __init__(self, ended: Ended, folder: Path) -> None:
        self.ended = ended
        (self.path,) = (folder / "outputs" / "sweeps").glob("*/*")
        self.record: dict[str, Any] = json.loads((self.path / "sweep.json").read_text())

    def runs(self) -> list[Run]:
        return [read_run(self.path / member["directory"]) for member in self.record["members"]]

    def statuses(self) -> list[str]:
        return [member["status"] for member in self.record["members"]]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweep")
    return Sweep(in_a_process(folder, *TINY, *SWEEP), folder)


def test_a_sweep_whose_members_diverged_is_done(sweep: Sweep) -> None:
    assert (sweep.ended.status, sweep.ended.err) == (0, "")
    assert sweep.record["status"] == "completed"
    assert sweep.statuses() == STATUSES


def test_the_record_says_what_was_asked_and_what_came_out(sweep: Sweep) -> None:
    record = sweep.record
    assert record["command"] == ["optexp", "-m", *TINY, *SWEEP[1:]]
    assert record["swept"] == [LR, DECAY]
    assert [(member["swept"][LR], member["swept"][DECAY]) for member in record["members"]] == MEMBERS
    for number, (member, run) in enumerate(zip(record["members"], sweep.runs(), strict=True)):
        assert member["number"] == number
        assert member["overrides"][:3] == list(TINY)
        assert member["reason"] == run.info["reason"]
        assert member["metrics"].get("val/loss") == run.metrics.get("val/loss")
    assert "train/loss is" in record["members"][2]["reason"]
    assert "step 2" in record["members"][2]["reason"]


def test_every_member_has_a_run_directory_named_by_what_differs(sweep: Sweep) -> None:
    names = [path.name for path in sweep.path.iterdir() if path.is_dir() and path.name != "figures"]
    assert sorted(names) == [
        "0-lr=0.1,weight_decay=0",
        "1-lr=0.1,weight_decay=0.01",
        "2-lr=1e+30,weight_decay=0",
        "3-lr=1e+30,weight_decay=0.01",
    ]
    for run, (lr, decay), status in zip(sweep.runs(), MEMBERS, STATUSES, strict=True):
        assert (run.config["optimizer"]["lr"], run.config["optimizer"]["weight_decay"]) == (lr, decay)
        assert run.status == status
        assert (run.path / "metrics.jsonl").stat().st_size > 0
        assert f"optimizer.lr={lr:g}" in run.info["command"]


def test_members_with_one_value_of_a_key_start_alike(sweep: Sweep) -> None:
    """All members have the same seed, so the same weights and first batch: the first loss does not know of lr."""
    assert len({run.rows[0]["train/loss"] for run in sweep.runs()}) == 1


def test_the_table_for_a_spreadsheet_has_one_line_per_member(sweep: Sweep) -> None:
    with (sweep.path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(float(row[LR]), float(row[DECAY]), row["status"]) for row in rows] == [
        (lr, decay, status) for (lr, decay), status in zip(MEMBERS, STATUSES, strict=True)
    ]
    for row, run in zip(rows, sweep.runs(), strict=True):
        assert row["#"] == run.name.partition("-")[0]
        if run.status == "completed":
            assert float(row["val/loss"]) == run.metrics["val/loss"]
            assert float(row["test/accuracy"]) == run.metrics["test/accuracy"]
            assert float(row["best val/loss"]) == run.info["best"]["val/loss"]
        else:
            assert row["best val/loss"] == row["test/accuracy"] == ""


def test_the_heat_map_is_a_picture(sweep: Sweep) -> None:
    picture = (sweep.path / "figures" / "heat_map.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    assert 400 <= width <= 4000
    assert 300 <= height <= 4000
    assert len(picture) > 10_000  # not an empty canvas


def test_the_screen_shows_members_results_and_where_they_are(sweep: Sweep) -> None:
    out = sweep.ended.out
    lines = out.splitlines()
    where = str(sweep.path.relative_to(sweep.path.parents[3]))
    assert lines[0] == f"sweep of 4 members in {where}"
    assert lines[1] == "  4 members fused"
    assert any("2-lr=1e+30,weight_decay=0 (3 of 4)  diverged" in line for line in lines)
    table = [line.split() for line in lines[lines.index("") :] if re.match(r"\s*\d ", line)]
    best = [row[-1] for row in table if row[3] == "completed"]
    assert best == sorted(best)
    assert [row[3] for row in table[2:4]] == ["diverged", "diverged"]  # the worst come last
    assert "  2 completed, 2 diverged" in lines
    assert f"--logdir {where}" in out
    assert f"{where}/figures/heat_map.png" in out
    assert "\x1b" not in out


def multiplexer_of(folder: Path) -> EventMultiplexer:
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    return multiplexer


def test_tensorboard_finds_the_curves_of_every_member(sweep: Sweep) -> None:
    found = multiplexer_of(sweep.path)
    assert sorted(found.Runs()) == [f"{run.name}/tensorboard" for run in sweep.runs()]
    trained = {"train/loss", "train/accuracy", "optim/lr", "optim/grad_norm", "optim/update_ratio"}
    evaluated = {"val/loss", "val/accuracy", "test/loss", "test/accuracy", "time/samples_per_second"}
    for run in sweep.runs():
        name = f"{run.name}/tensorboard"
        expected = trained | (evaluated if run.status == "completed" else set())
        assert expected <= set(found.Runs()[name]["tensors"])
        events = found.Tensors(name, "train/loss")
        steps, losses = run.series("train/loss")
        assert [event.step for event in events] == steps
        assert [float(make_ndarray(event.tensor_proto)) for event in events] == pytest.approx(losses, nan_ok=True)


def test_the_hparams_table_has_one_row_per_run(sweep: Sweep) -> None:
    provider = MultiplexerDataProvider(multiplexer_of(sweep.path), str(sweep.path))
    backend = Context(base_plugin.TBContext(data_provider=provider))
    statuses = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    request = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=100, allowed_statuses=statuses)
    for key in (LR, DECAY):
        request.col_params.add(hparam=key)
    groups = list_session_groups.Handler(context.RequestContext(), backend, "", request).run().session_groups
    rows = {(group.hparams[LR].number_value, group.hparams[DECAY].number_value): group for group in groups}
    assert sorted(rows) == MEMBERS
    assert [len(group.sessions) for group in groups] == [1, 1, 1, 1]
    for run, point in zip(sweep.runs(), MEMBERS, strict=True):
        metrics = {value.name.tag: value.value for value in rows[point].metric_values}
        if run.status == "completed":
            assert metrics["val/loss"] == pytest.approx(run.metrics["val/loss"], rel=1e-6)
            assert rows[point].sessions[0].status == api_pb2.STATUS_SUCCESS
        else:
            assert rows[point].sessions[0].status == api_pb2.STATUS_FAILURE


def test_a_member_is_the_run_it_would_be_alone(sweep: Sweep, tmp_path: Path) -> None:
    alone = [word for word in SWEEP[3:] if not word.startswith("-")]
    assert here(tmp_path, *TINY, f"{LR}=0.1", f"{DECAY}=1e-2", *alone).status == 0
    (run_file,) = tmp_path.glob("outputs/runs/*/*/run.json")
    run, member = read_run(run_file.parent), sweep.runs()[1]
    for tag in ("train/loss", "optim/grad_norm", "val/loss", "test/loss"):
        (steps, values), (member_steps, member_values) = run.series(tag), member.series(tag)
        assert steps == member_steps
        assert values == pytest.approx(member_values, rel=1e-5)
    assert run.info["config_hash"] == member.info["config_hash"]


def test_a_dry_run_checks_every_member_and_makes_nothing(tmp_path: Path) -> None:
    ended = here(tmp_path, *TINY, *SWEEP, "--dry-run")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith(f"ok: optexp {TINY[0]} ") for line in lines[:4])
    assert lines[4] == "4 members, nothing trained; 4 members fused"
    assert everything_in(tmp_path) == []
    for line in lines[:4]:  # each line is a command that runs this member alone
        assert here(tmp_path, *line.removeprefix("ok: optexp ").replace("'", "").split(), "--dry-run").status == 0


def test_groups_and_experiments_can_be_swept(tmp_path: Path) -> None:
    words = ["-m", *TINY, "experiment=exp2_sgd_B32,exp2_sgd_B32_fixed", "schedule=constant,linear"]
    sweep = Sweep(here(tmp_path, *words), tmp_path)
    assert sweep.ended.status == 0
    assert [member["directory"] for member in sweep.record["members"]] == [
        "0-experiment=exp2_sgd_B32,schedule=constant",
        "1-experiment=exp2_sgd_B32,schedule=linear",
        "2-experiment=exp2_sgd_B32_fixed,schedule=constant",
        "3-experiment=exp2_sgd_B32_fixed,schedule=linear",
    ]
    assert [member["swept"]["schedule"] for member in sweep.record["members"]] == ["constant", "linear"] * 2
    runs = sweep.runs()
    assert [run.config["optimizer"]["dampening"] for run in runs] == [0.9, 0.9, 0.0, 0.0]
    assert [run.choice("schedule") for run in runs] == ["constant", "linear"] * 2
    assert not (sweep.path / "figures").exists()  # no two numbers were swept


def test_a_file_of_the_users_can_ask_for_a_sweep(tmp_path: Path) -> None:
    grid = tmp_path / "mine" / "experiment" / "grid.yaml"
    grid.parent.mkdir(parents=True)
    grid.write_text(
        "# @package _global_\n# a grid\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      optimizer.lr: 0.1,0.2\n      seed: range(2)\n"
    )
    words = [*TINY, "--config-dir", "mine"]
    sweep = Sweep(here(tmp_path, *words, "experiment=grid"), tmp_path)
    assert sweep.ended.status == 0
    swept = [(member["swept"][LR], member["swept"]["seed"]) for member in sweep.record["members"]]
    assert swept == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    assert sweep.path.name.endswith("-grid")
    assert (sweep.path / "report.html").exists()
    replaced = here(tmp_path, *words, "experiment=grid", "optimizer.lr=0.5", "--dry-run").out
    assert replaced.splitlines()[-1] == "2 members, nothing trained; 2 members fused"
    single = here(tmp_path, *words, "experiment=grid", "hydra.mode=RUN", "--dry-run").out
    assert single.startswith("ok: optexp")
    assert len(single.splitlines()) == 1


def test_a_sweep_of_one_member_is_a_sweep(tmp_path: Path) -> None:
    sweep = Sweep(here(tmp_path, "-m", *TINY), tmp_path)
    assert sweep.ended.status == 0
    assert sweep.statuses() == ["completed"]
    assert "sweep of 1 member in" in sweep.ended.out


def test_the_value_of_a_run_is_its_best_validation_loss(sweep: Sweep) -> None:
    for run, member in zip(sweep.runs(), sweep.record["members"], strict=True):
        losses = run.series("val/loss")[1]
        best = member["best"]["val/loss"] if member["best"] else math.inf
        assert best == min(losses, default=math.inf)
