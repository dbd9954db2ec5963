"""TensorBoard events of a run, written with TensorBoard's own record format and messages (no torch, no TensorFlow).

`torch.utils.tensorboard` is not used: it needs torch, writes one event per number, keeps points in memory for up to
two minutes, and its `add_hparams` adds a second, phantom run. The HParams tab is filled here from a `session_start`
and a `session_end` in the run's own file, without the `experiment` record, so that the table has the union of all
runs' columns.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from google_crc32c import value as crc32c
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.text import metadata as text_metadata

from optexp.errors import StorageError
from optexp.records.growing_file import GrowingFile
from optexp.records.sinks import Row

CHARTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "training and validation": {
        "loss": ["train/loss$", "val/loss$"],
        "accuracy": ["train/accuracy$", "val/accuracy$"],
    },
    "ledger: the step, in decades per parameter group": {
        "gradient/weight": [r"ledger/group\d+/gradient$"],
        "direction: agreement of gradients, or adaptive factor, and weight decay": [r"ledger/group\d+/direction$"],
        "update/weight": [r"ledger/group\d+/update$"],
        "unexplained: measured update over computed one": [r"ledger/group\d+/unexplained$"],
        "learning rate; effective, from settings and as measured": [
            "optim/lr$",
            "optim/effective_lr$",
            "probe/effective_lr$",
        ],
        "clipping: coefficient, and fraction of clipped steps": ["optim/clip_coefficient$", "optim/clipped$"],
    },
    "probes: two successive steps": {
        "alpha: −1 no progress, 0 valley floor, +1 other side": ["probe/alpha$"],
        "momentum: cosine with the gradient, changes of sign": ["probe/momentum_cosine$", "probe/sign_changes$"],
        "gradient signal and noise": ["probe/signal$", "probe/noise$"],
        "noise scale, samples": ["probe/noise_scale$"],
        "weight decay over gradient": ["probe/decay_ratio$"],
        "dead units, and elements below eps": ["probe/dead_units$", "probe/eps_share$"],
        "residual of the fitted learning rate": ["probe/fit_residual$"],
    },
    "layers": {
        "gradient norm": ["layer/.*/grad_norm$"],
        "update/weight": ["layer/.*/update_ratio$"],
    },
}
"""The Custom Scalars page: what stands in one chart, as regular expressions for tags, under category and title."""

_NOT_TAGS = ("step", "epoch", "time")
_pack_float32 = struct.Struct("<f").pack
_HPARAMS_STATUS = {
    "completed": api_pb2.STATUS_SUCCESS,
    "early_stopped": api_pb2.STATUS_SUCCESS,
    "diverged": api_pb2.STATUS_FAILURE,
}


class TensorBoard:
    """Writes one event per row, holding all its tags, into a new event file of `directory`."""

    def __init__(
        self,
        directory: Path,
        hparams: Mapping[str, Any],
        config_yaml: str,
        command: str,
        purge_step: int | None = None,
    ) -> None:
        """Open a new event file; raises StorageError.

        `hparams` are the columns of the HParams table (flat; lists are shown as text, None is left out). For a
        resumed run `purge_step` is the first step it will log again: TensorBoard drops earlier events from there on.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            earlier = sorted(directory.glob("events.out.tfevents.*"))
        except OSError as error:
            raise StorageError(f"{directory}: {error.strerror}") from error
        # TensorBoard reads the files of a run in the order of their names: a later file needs a later stamp.
        stamp = max([int(time.time())] + [int(file.name.split(".")[3]) + 1 for file in earlier])
        self._file = GrowingFile(directory / f"events.out.tfevents.{stamp:010d}.optexp", _record_of, new=True)
        # A second START makes TensorBoard drop the events from its step on; it takes the first as a mere beginning.
        start = Event(step=purge_step or 0, session_log=SessionLog(status=SessionLog.START))
        events = [Event(file_version="brain.Event:2"), start]
        if not earlier:  # a resumed run has described itself already
            described = [_session_start(hparams), _layout(), _text("config", f"```yaml\n{config_yaml}\n```")]
            events.append(Event(summary=Summary(value=[*described, _text("command", f"`{command}`")])))
        for event in events:
            self._append(event)
        self._file.write()

    def log(self, row: Row) -> None:
        """Add a row; see `GrowingFile` for when it can be read. Raises StorageError."""
        self._file.append((time.time(), dict(row)))

    def flush(self) -> None:
        """Write what waits. Raises StorageError."""
        self._file.write()

    def close(self, summary: Mapping[str, Any]) -> None:
        """Record how the run ended, unless it may be resumed (TensorBoard keeps the first end), and close the file."""
        status = _HPARAMS_STATUS.get(summary["status"])
        if status is not None and not self._file.failed:
            self._append(Event(summary=Summary(value=[_session_end(status)])))
        self._file.close()

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.append(event.SerializeToString())


def _record_of(entry: bytes | tuple[float, Row]) -> bytes:
    return record(entry if isinstance(entry, bytes) else scalar_event(*entry))


def record(data: bytes) -> bytes:
    """Return an event as it stands in the file: length, its checksum, the event, its checksum.

    The format is TensorFlow's TFRecord; its checksums are CRC-32C (RFC 3720), rotated and shifted.
    """
    length = struct.pack("<Q", len(data))
    return b"".join([length, _masked_crc(length), data, _masked_crc(data)])


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def scalar_event(wall_time: float, row: Row) -> bytes:
    """Return the event that holds all tags of a row: the bytes of an `Event` with a `Summary` of simple values.

    Written by hand, because building the messages and serializing them takes ten times as long. The bytes are those of
    the Protocol Buffers encoding: each field is its number and type in one byte, then its content.
    """
    values = b"".join([_value_head(tag) + _float32(value) for tag, value in row.items() if tag not in _NOT_TAGS])
    head = struct.pack("<cd", b"\x09", wall_time) + b"\x10" + _varint(int(row["step"]))
    return b"".join([head, b"\x2a", _varint(len(values)), values])


@cache
def _value_head(tag: str) -> bytes:
    """Return a `Summary.Value` of a tag up to its four bytes of float."""
    name = tag.encode()
    value = b"\x0a" + _varint(len(name)) + name + b"\x15"
    return b"\x0a" + _varint(len(value) + 4) + value


def _float32(value: float) -> bytes:
    try:
        return _pack_float32(value)
    except (OverflowError, struct.error):  # a finite number beyond the largest float32
        return _pack_float32(math.copysign(math.inf, value))


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; the eighth bit says that more follow."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _string_value(tag: str, data: bytes, metadata: SummaryMetadata) -> Summary.Value:
    tensor = TensorProto(dtype=DT_STRING, string_val=[data], tensor_shape=TensorShapeProto())
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def _text(tag: str, markdown: str) -> Summary.Value:
    return _string_value(tag, markdown.encode(), text_metadata.create_summary_metadata(tag, ""))


def _layout() -> Summary.Value:
    """Return the Custom Scalars page: `CHARTS`, the lower categories closed until somebody opens them."""
    categories = [
        Category(
            title=title,
            chart=[Chart(title=name, multiline=MultilineChartContent(tag=tags)) for name, tags in charts.items()],
            closed=number > 1,
        )
        for number, (title, charts) in enumerate(CHARTS.items())
    ]
    metadata = custom_scalar_metadata.create_summary_metadata()
    layout = Layout(category=categories)
    return _string_value(custom_scalar_metadata.CONFIG_SUMMARY_TAG, layout.SerializeToString(), metadata)


def _session_start(hparams: Mapping[str, Any]) -> Summary.Value:
    info = SessionStartInfo(start_time_secs=time.time())
    for name, value in hparams.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, (int, float)):
            info.hparams[name].number_value = value
        elif isinstance(value, (list, tuple)):
            info.hparams[name].string_value = ", ".join(map(str, value))
        elif value is not None:
            info.hparams[name].string_value = str(value)
    return _hparams_value(hparams_metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def _session_end(status: int) -> Summary.Value:
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _hparams_value(hparams_metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _hparams_value(tag: str, data: HParamsPluginData) -> Summary.Value:
    metadata = hparams_metadata.create_summary_metadata(data)
    return Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)
