"""The events of a run as TensorBoard's own backend reads them."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_ndarray

from optexp.errors import StorageError
from optexp.records.tensorboard import TensorBoard, record, scalar_event

STATUSES = (api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING)


def write(directory: Path, steps: range, hparams: dict[str, Any], status: str, purge_step: int | None = None) -> None:
    sink = TensorBoard(directory / "tensorboard", hparams, "optimizer:\n  lr: 0.1", "optexp seed=1", purge_step)
    for step in steps:
        sink.log({"step": step, "epoch": step / 10, "time": 0.1, "train/loss": 1 / step, "optim/lr": 0.1})
    sink.log({"step": steps[-1], "epoch": 1.0, "time": 0.2, "val/loss": 0.5, "val/accuracy": math.nan})
    sink.close({"status": status})


def read(root: Path) -> EventMultiplexer:
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(root))
    multiplexer.Reload()
    return multiplexer


def values(multiplexer: EventMultiplexer, run: str, tag: str) -> list[tuple[int, float]]:
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in multiplexer.Tensors(run, tag)]


def session_groups(root: Path) -> tuple[Any, Any]:
    provider = MultiplexerDataProvider(read(root), str(root))
    backend = Context(base_plugin.TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=100, allowed_statuses=STATUSES)
    request.col_params.add(hparam="optimizer.lr")
    groups = list_session_groups.Handler(context.RequestContext(), backend, "", request).run().session_groups
    experiment = get_experiment.Handler(context.RequestContext(), backend, "", api_pb2.GetExperimentRequest()).run()
    return groups, experiment


def test_scalars_text_and_layout_are_found(tmp_path: Path) -> None:
    write(tmp_path / "a", range(10, 41, 10), {}, "completed")
    found = read(tmp_path)
    assert list(found.Runs()) == ["a/tensorboard"]
    assert values(found, "a/tensorboard", "train/loss") == [(s, pytest.approx(1 / s)) for s in (10, 20, 30, 40)]
    assert values(found, "a/tensorboard", "val/loss") == [(40, 0.5)]
    assert math.isnan(values(found, "a/tensorboard", "val/accuracy")[0][1])
    tags = set(found.Runs()["a/tensorboard"]["tensors"])
    assert not tags & {"step", "epoch", "time"}
    text = found.Tensors("a/tensorboard", "config")[0].tensor_proto.string_val[0].decode()
    assert text == "```yaml\noptimizer:\n  lr: 0.1\n```"
    raw = found.Tensors("a/tensorboard", "custom_scalars__config__")[0].tensor_proto.string_val[0]
    first, ledger, *others = Layout.FromString(raw).category
    assert [list(chart.multiline.tag) for chart in first.chart] == [
        ["train/loss$", "val/loss$"],
        ["train/accuracy$", "val/accuracy$"],
    ]
    assert [first.closed, ledger.closed, *(category.closed for category in others)] == [False, False, True, True]


STEP_TAGS = {
    "ledger: the step, in decades per parameter group": [
        *(f"ledger/group{i}/{name}" for i in (0, 1, 12) for name in ("gradient", "direction", "update", "unexplained")),
        *("optim/lr", "optim/effective_lr", "probe/effective_lr", "optim/clip_coefficient", "optim/clipped"),
    ],
    "probes: two successive steps": [
        *("probe/alpha", "probe/momentum_cosine", "probe/sign_changes", "probe/signal", "probe/noise"),
        *("probe/noise_scale", "probe/decay_ratio", "probe/dead_units", "probe/eps_share", "probe/fit_residual"),
    ],
    "layers": ["layer/blocks.0.conv1.weight/grad_norm", "layer/fc.weight/update_ratio"],
}
"""What is logged about the step, under the category where a user finds it."""


def test_tensorboards_own_plugin_finds_every_tag_of_the_step_in_exactly_one_chart(tmp_path: Path) -> None:
    every = [tag for tags in STEP_TAGS.values() for tag in tags]
    sink = TensorBoard(tmp_path / "a", {}, "", "")
    sink.log({"step": 1, "train/loss": 1.0, "optim/grad_norm": 2.0} | dict.fromkeys(every, 0.5))
    sink.close({"status": "completed"})
    provider = MultiplexerDataProvider(read(tmp_path), str(tmp_path))
    scalars = ScalarsPlugin(base_plugin.TBContext(data_provider=provider))
    plugins = {ScalarsPlugin.plugin_name: scalars}
    plugin = CustomScalarsPlugin(base_plugin.TBContext(data_provider=provider, plugin_name_to_instance=plugins))
    layout = json.loads(plugin.layout_impl(context.RequestContext(), ""))
    found: dict[str, list[str]] = {}
    for category in layout["category"]:
        for chart in category["chart"]:
            for regex in chart["multiline"]["tag"]:
                answer = plugin.scalars_impl(context.RequestContext(), "a", regex, "")
                assert answer["regex_valid"]
                found.setdefault(category["title"], []).extend(answer["tag_to_events"])
    assert found.pop("training and validation") == ["train/loss"]
    assert {title: sorted(tags) for title, tags in found.items()} == {
        title: sorted(tags) for title, tags in STEP_TAGS.items()
    }


def test_a_row_is_one_event(tmp_path: Path) -> None:
    write(tmp_path, range(10, 41, 10), {}, "interrupted")
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = [Event.FromString(record) for record in RawEventFileLoader(str(file)).Load()]
    assert [len(event.summary.value) for event in events if event.step > 0] == [2, 2, 2, 2, 2]


def test_hparams_table_has_one_row_per_run_and_the_union_of_columns(tmp_path: Path) -> None:
    write(tmp_path / "0-a", range(1, 3), {"optimizer.lr": 0.1, "optimizer.betas": [0.9, 0.99], "x": None}, "completed")
    write(tmp_path / "1-b", range(1, 3), {"optimizer.lr": 0.2, "optimizer.nesterov": True}, "diverged")
    write(tmp_path / "2-c", range(1, 3), {"optimizer.lr": 0.3}, "interrupted")
    groups, experiment = session_groups(tmp_path)
    rows = sorted((group.hparams["optimizer.lr"].number_value, group) for group in groups)
    assert [lr for lr, _ in rows] == [0.1, 0.2, 0.3]
    assert [[session.name for session in group.sessions] for _, group in rows] == [
        ["0-a/tensorboard"],
        ["1-b/tensorboard"],
        ["2-c/tensorboard"],
    ]
    assert [group.sessions[0].status for _, group in rows] == [
        api_pb2.STATUS_SUCCESS,
        api_pb2.STATUS_FAILURE,
        api_pb2.STATUS_UNKNOWN,
    ]
    assert rows[0][1].hparams["optimizer.betas"].string_value == "0.9, 0.99"
    assert {info.name for info in experiment.hparam_infos} == {"optimizer.lr", "optimizer.betas", "optimizer.nesterov"}
    metrics = {value.name.tag: value.value for value in rows[0][1].metric_values}
    assert metrics["val/loss"] == 0.5


def test_a_resumed_run_has_strictly_increasing_steps_and_stays_one_run(tmp_path: Path) -> None:
    write(tmp_path / "a", range(10, 101, 10), {"optimizer.lr": 0.1}, "interrupted")
    write(tmp_path / "a", range(80, 151, 10), {"optimizer.lr": 0.1}, "interrupted", purge_step=71)
    write(tmp_path / "a", range(120, 161, 10), {"optimizer.lr": 0.1}, "completed", purge_step=111)
    found = read(tmp_path)
    assert [step for step, _ in values(found, "a/tensorboard", "train/loss")] == list(range(10, 161, 10))
    assert len(found.Tensors("a/tensorboard", "config")) == 1
    groups, _ = session_groups(tmp_path)
    assert len(groups) == 1
    assert groups[0].sessions[0].status == api_pb2.STATUS_SUCCESS


def test_a_row_is_in_the_file_before_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optexp.records.growing_file.WRITE_SECONDS", -1.0)
    sink = TensorBoard(tmp_path / "a", {}, "", "")
    sink.log({"step": 1, "train/loss": 1.0})
    assert values(read(tmp_path), "a", "train/loss") == [(1, 1.0)]
    sink.close({"status": "failed"})


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 9, 100, 1000, 100_000])
def test_records_are_those_of_tensorboards_own_writer(size: int) -> None:
    data = random.Random(size).randbytes(size)
    file = io.BytesIO()
    RecordWriter(file).write(data)
    assert record(data) == file.getvalue()


NUMBERS = [0.0, -0.0, 1.0, -2.5, 1e-45, 1e-300, 3.4e38, 3.5e38, -1e300, math.inf, -math.inf, math.nan, 7, 10**40]


def test_scalar_events_are_those_of_tensorboards_own_messages() -> None:
    """The same bytes as the message classes make, for every kind of number, tag and step."""
    tags = ["train/loss", "x", "größe/β", "t" * 120, "t" * 121, "t" * 127, "t" * 128, "t" * 20_000]
    for step in (1, 127, 128, 300, 2**31, 2**40, 2**62):
        for count, number in enumerate(NUMBERS):
            row = {"step": step, "epoch": 0.5, "time": 3.0} | dict.fromkeys(tags[: count % len(tags) + 1], number)
            value = [Summary.Value(tag=tag, simple_value=number) for tag in row if tag not in ("step", "epoch", "time")]
            event = Event(wall_time=1.7e9 + count, step=step, summary=Summary(value=value))
            assert scalar_event(1.7e9 + count, row) == event.SerializeToString()
    assert Event.FromString(scalar_event(1.0, {"step": 0})) == Event(wall_time=1.0, summary=Summary())


def test_extreme_numbers_arrive(tmp_path: Path) -> None:
    sink = TensorBoard(tmp_path / "a", {}, "", "")
    for step, number in enumerate(NUMBERS):
        sink.log({"step": step, "train/loss": number})
    sink.close({"status": "failed"})
    with numpy.errstate(over="ignore"):
        expected = numpy.array(NUMBERS, dtype=numpy.float64).astype(numpy.float32)
    found = [value for _, value in values(read(tmp_path), "a", "train/loss")]
    numpy.testing.assert_array_equal(numpy.array(found, dtype=numpy.float32), expected)


def test_a_full_disk_is_a_storage_error_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optexp.records.growing_file.WRITE_SECONDS", -1.0)
    sink = TensorBoard(tmp_path, {}, "", "")
    sink._file._file.close()
    sink._file._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the sink closes it
    with pytest.raises(StorageError, match="No space left on device"):
        sink.log({"step": 1, "train/loss": 1.0})
    sink.close({"status": "completed"})


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        TensorBoard(tmp_path / "file" / "tensorboard", {}, "", "")
