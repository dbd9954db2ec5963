"""Reading run directories. Everything that lists, compares or reports starts here and looks at nothing else."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from optexp.errors import BadInput
from optexp.records.metrics_file import parse_row
from optexp.records.process import is_alive
from optexp.records.run_directory import CONFIG_FILE, METRICS_FILE, RUN_FILE

HEARTBEAT_SECONDS = 120.0
"""A run on another machine that has written nothing for so long counts as dead."""

NOT_SETTINGS = ("name", "output_dir", "remark")
"""Config keys that say where results go, or something for people, and not what is computed."""

GROUP_SETTINGS = ("lr", "dampening", "momentum")
"""Settings of the step that run.json has of every parameter group where they are not the same in all."""

ABSENT = ""
"""Stands for the value of a setting that a run does not have (null is a value)."""

_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml is there


@dataclass
class Run:
    """One run directory. `info` is the content of run.json; config and metrics are read when they are asked for."""

    path: Path
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the run directory."""
        return self.path.name

    @property
    def started(self) -> datetime:
        """When the run began, with its time zone."""
        return datetime.fromisoformat(self.info["started"]).astimezone()

    @cached_property
    def status(self) -> str:
        """The recorded status; `interrupted` when the run says `running` but its process is gone."""
        status: str = self.info["status"]
        if status != "running":
            return status
        alive = is_alive(self.info.get("process") or {})
        if alive is None:  # another machine, or this one before it was booted again
            files = (self.path / RUN_FILE, self.path / METRICS_FILE)
            alive = time.time() - max(file.stat().st_mtime for file in files if file.exists()) < HEARTBEAT_SECONDS
        return "running" if alive else "interrupted"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config as plain values. Raises BadInput when config.yaml is missing or unreadable."""
        path = self.path / CONFIG_FILE
        try:
            config = yaml.load(path.read_text(encoding="utf-8"), Loader=_YamlLoader)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise BadInput(f"{path}: cannot be read ({_one_line(error)})") from error
        if not isinstance(config, dict):
            raise BadInput(f"{path}: is not a config")
        return config

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config as dotted keys (`optimizer.lr`), without the keys that change nothing (`NOT_SETTINGS`)."""
        return {key: value for key, value in flat(self.config).items() if key not in NOT_SETTINGS}

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl in their order, null as nan; lines cut short by a crash are left out."""
        try:
            text = (self.path / METRICS_FILE).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BadInput(f"{self.path / METRICS_FILE}: cannot be read ({error.strerror})") from error
        return [row for row in map(parse_row, text.splitlines()) if row is not None]

    def series(self, tag: str) -> tuple[list[float], list[float]]:
        """Return the steps at which `tag` was logged, and its values."""
        pairs = [(row["step"], row[tag]) for row in self.rows if tag in row]
        return [step for step, _ in pairs], [value for _, value in pairs]

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """The last value of each tag: as recorded at the end, or from the rows of a run without an end."""
        recorded: dict[str, float | None] = self.info.get("metrics") or {}
        if recorded and self.info["status"] != "running":
            return recorded
        latest = {tag: value for row in self.rows for tag, value in row.items()}
        return {tag: value for tag, value in latest.items() if tag not in ("step", "epoch", "time")}

    @property
    def last_step(self) -> int:
        """The number of optimizer steps done, as far as recorded."""
        recorded: int = self.info.get("last_step") or 0
        if self.info["status"] != "running" or not self.rows:
            return recorded
        return max(recorded, int(self.rows[-1]["step"]))

    @property
    def wall_time(self) -> float:
        """The seconds spent training, as far as recorded."""
        recorded: float = self.info.get("wall_time") or 0.0
        if self.info["status"] != "running" or not self.rows:
            return recorded
        return max(recorded, self.rows[-1].get("time", 0.0))

    @property
    def recorded_by_monitor(self) -> bool:
        """Whether Monitor watched somebody's own training: its config.yaml has what was seen, and no seed."""
        return "seed" not in self.config

    def check_repeatable(self, named: str = "") -> None:
        """Raise BadInput for a run that cannot be built from its config.yaml, let alone trained again: Monitor's.

        `named` is what the user called it, where that is more than its path.
        """
        if self.recorded_by_monitor:
            raise BadInput(
                f"{named or self.path}: was recorded by Monitor; optexp has no configuration to train it again, and "
                "can only read it (diagnose without --curvature and --verify, ledger, compare)"
            )

    @property
    def differing_settings(self) -> list[str]:
        """The settings of the step in which the parameter groups differ, see `differing_settings`."""
        return differing_settings(self.info.get("parameter_groups") or [])

    def choice(self, group: str) -> str:
        """Return what was chosen for a config group: `adamw`, else the last part of its `_target_`, else nothing."""
        chosen = (self.info.get("choices") or {}).get(group)
        if chosen:
            return str(chosen)
        node = self.config.get(group)
        target = node.get("_target_", "") if isinstance(node, dict) else ""
        return str(target).rpartition(".")[2].lower()


def check_folder(path: Path) -> None:
    """Raise BadInput when a path is not that of a folder."""
    if path.is_file():
        raise BadInput(f"{path}: is a file; name its folder, {path.parent}")
    if not path.is_dir():
        raise BadInput(f"{path}: no such folder")


def read_run(path: Path) -> Run:
    """Return the run in a directory. Raises BadInput when there is none or it cannot be read."""
    check_folder(path)
    try:
        info = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if (path / "sweep.json").exists():
            raise BadInput(f"{path}: is a sweep; name one of its members, such as {path}/0-…") from error
        raise BadInput(f"{path}: is not a run directory (it holds no {RUN_FILE})") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path / RUN_FILE}: cannot be read ({_one_line(error)})") from error
    run = Run(path, info)
    try:
        _ = info["status"], run.started
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path / RUN_FILE}: is not the record of a run") from error
    return run


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def find_runs(root: Path, warn: Callable[[str], None] = _warn) -> list[Run]:
    """Return the runs in and below a folder, sweep members included, in the order they were started.

    A directory that cannot be read as a run is left out and reported through `warn`. Raises BadInput when `root`
    does not exist.
    """
    check_folder(root)
    runs = []
    for path in _run_directories(root):
        try:
            run = read_run(path)
            _ = run.config  # a run without its config cannot be shown either
            runs.append(run)
        except BadInput as error:
            warn(f"left out {error}")
    return sorted(runs, key=lambda run: (run.started, _natural(str(run.path))))


def _run_directories(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        if RUN_FILE in files:
            below.clear()  # a run holds no other runs
            yield Path(folder)


def _natural(text: str) -> list[str | int]:
    """Return a sorting key under which `10-x` comes after `9-x`: text and numbers in turn."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def differing_settings(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings of the step in which parameter groups differ: only of these run.json has each group's own."""
    return [name for name in GROUP_SETTINGS if any(name in group for group in groups)]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config with dotted keys: `{"optimizer": {"lr": 1}}` becomes `{"optimizer.lr": 1}`."""
    pairs: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            pairs |= flat(value, f"{prefix}{key}.")
        else:
            pairs[f"{prefix}{key}"] = value
    return pairs


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs: key to one value per run.

    Where a run has no such key its value is `ABSENT`. Keys stand in the order of the first config that has them.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    columns = {key: [run.settings.get(key, ABSENT) for run in runs] for key in keys}
    return {key: values for key, values in columns.items() if any(value != values[0] for value in values)}


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
