"""Writing a run directory: claiming its name, `config.yaml`, and `run.json`, which always tells how the run stands."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from optexp.errors import BadInput, StorageError
from optexp.records.files import in_background, reason, rewrite, sync
from optexp.records.process import is_alive, this_process

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"
SWEEP_FILE = "sweep.json"
STUDY_FILE = "study.json"
STUDIES_FILE = "studies.json"
"""What makes a directory that of a run, a sweep, a study, or several studies; what a task that is no training found."""

VERIFICATIONS = "verifications"
"""The folder of the runs with which `optexp diagnose --verify` puts its advice to the test."""

CONFIG_HEADER = "# The complete configuration of this run, with every default and interpolation resolved.\n"


def claim(root: Path, stem: str) -> Path:
    """Create and return `root/stem`, or `root/stem-2`, `root/stem-3`, ... when that name is taken.

    Creation is exclusive: two runs that start at the same moment get two directories. Raises BadInput when the
    folder cannot be written.
    """
    number = 1
    try:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            path = root / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise BadInput(
            f"output_dir: cannot create a run directory in {root} ({error.strerror}); set output_dir to a folder "
            "that can be written"
        ) from error


class RunRecord:
    """Writes `run.json` of one run; `info` is its present content.

    A change is on the disk when the method returns, unless `wait` is false. A new run's files can be read at once, and
    outlive a loss of power a moment later.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        """Hold the record of an existing run; use `create` or `reopen`."""
        self.path = path
        self.info = info
        self._pending: Future[None] | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        config: Mapping[str, Any],
        command: Sequence[str],
        info: Mapping[str, Any],
        text: str | None = None,
    ) -> RunRecord:
        """Begin the record of a new run in the existing directory `path`: `config.yaml`, then `run.json`.

        `config` is the resolved config as plain values, `command` the argv, `info` whatever is known already
        (seed, overrides, environment, ...), `text` the config as `config_text` writes it, where the caller has that
        already. Raises BadInput when the directory already holds a run, StorageError when it cannot be written.
        """
        command_line = shlex.join(command)
        started = _now()
        record = cls(
            path,
            {
                "status": "running",
                "reason": None,
                "first_step": 0,
                "last_step": 0,
                "total_steps": None,
                "wall_time": 0.0,
                "metrics": {},
                "best": None,
                "command": command_line,
                "started": started,
                "finished": None,
                "resumed": 0,
                "process": this_process(),
                "sessions": [{"command": command_line, "started": started}],
                "notes": [],
                **info,
            },
        )
        try:
            if (path / RUN_FILE).exists():
                raise FileExistsError
            (path / CONFIG_FILE).write_text(CONFIG_HEADER + (text or config_text(config)), encoding="utf-8")
            # run.json comes last, because a directory is a run once it has one, and exclusively, so that two
            # processes given the same directory cannot both own it.
            _create_whole(path / RUN_FILE, _json(record.info))
        except FileExistsError as error:
            raise BadInput(f"{path}: already holds a run; choose another directory") from error
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        record._pending = in_background(partial(sync, path / CONFIG_FILE, path / RUN_FILE, path))
        return record

    @classmethod
    def reopen(cls, path: Path, command: Sequence[str] = ()) -> RunRecord:
        """Continue the record of an earlier run: its status is `running` again and `resumed` counts one more.

        `command` (argv) is added to `sessions`, the history of the commands that worked on this run. Raises
        BadInput when there is no readable run or when it is still running.
        """
        try:
            info = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadInput(f"{path}: holds no readable {RUN_FILE}, so there is no run to resume") from error
        if info["status"] == "running" and is_alive(info["process"]):
            raise BadInput(f"{path}: is still running (process {info['process']['pid']}); stop it before resuming")
        for verdict in ("outcome", "causes"):  # of the earlier session: what comes now may turn out otherwise
            info.pop(verdict, None)
        sessions = info["sessions"]
        sessions[-1].setdefault("status", "interrupted" if info["status"] == "running" else info["status"])
        sessions[-1].setdefault("last_step", info["last_step"])
        sessions.append({"command": shlex.join(command) or None, "started": _now()})
        record = cls(path, info)
        record.update(
            status="running",
            reason=None,
            finished=None,
            resumed=info["resumed"] + 1,
            process=this_process(),
        )
        return record

    def update(self, wait: bool = True, **fields: Any) -> None:
        """Change fields and rewrite `run.json` as a whole: a reader sees the old or the new, never a part.

        With `wait` false this returns at once and the method `wait` later: many runs that end together then share the
        time the disk takes. Raises StorageError.
        """
        self.wait()
        self.info.update(fields)
        self._pending = in_background(partial(rewrite, self.path / RUN_FILE, _json(self.info).encode()))
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return when everything is on the disk. Raises StorageError when it could not be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except OSError as error:
                raise StorageError(f"{self.path / RUN_FILE}: {reason(error)}") from error

    def finish(self, status: str, reason: str | None, wait: bool = True, **fields: Any) -> None:
        """Record how the run ended. `status`: completed, early_stopped, diverged, interrupted or failed.

        For `wait` see `update`.
        """
        last_step = fields.get("last_step", self.info["last_step"])
        finished = _now()
        self.info["sessions"][-1].update(finished=finished, status=status, last_step=last_step)
        self.update(wait, status=status, reason=reason, finished=finished, **fields)


def _create_whole(path: Path, text: str) -> None:
    """Create a file that has its content the moment it appears. Raises FileExistsError where there is one already.

    The content is written under another name, and the file's own is linked to it: unlike renaming that is exclusive.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links; what else is wrong shows again
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    finally:
        temporary.unlink(missing_ok=True)


_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # three times faster where libyaml is there


class _Dumper(_SafeDumper):
    """Writes a config the way people do: lists in one line, no anchors for values that occur twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_list(self, data: Any) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(list, _Dumper.represent_list)
_Dumper.add_representer(tuple, _Dumper.represent_list)

# PyYAML reads 1e-3 as text, YAML 1.2 and OmegaConf as a number: text that looks so is quoted to mean one thing only.
_Dumper.add_implicit_resolver(
    "!number", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def config_text(config: Mapping[str, Any]) -> str:
    """Return a config of plain values as YAML."""
    return yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(plain_numbers(value), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def plain_numbers(value: Any) -> Any:
    """Return the value with numbers that JSON cannot hold (nan and the infinities) as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain_numbers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_numbers(item) for item in value]
    return value
