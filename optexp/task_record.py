"""The record of a task that is no training: the same run directory, with what was found in `result.json`."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optexp.config.compose import Composed
from optexp.ending import ended_by_signals, status_of
from optexp.errors import BadInput, Exit, StorageError
from optexp.records import provenance
from optexp.records.console import relative, say
from optexp.records.files import write_atomically
from optexp.records.run_directory import RESULT_FILE, RunRecord, plain_numbers
from optexp.run import Result

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What a task has found.

    `metrics` are its main numbers, for tables of runs and sweeps; `result` is everything, for programs, and goes to
    result.json; `headline` and `sections` in it are for the page (see `report.task_page`). `objective` is what
    a sweeper minimizes, `exit_status` what the command ends with.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    objective: float = float("inf")
    exit_status: int = int(Exit.DONE)


def carry_out(
    composed: Composed, path: Path, command: Sequence[str], overrides: Sequence[str], work: Callable[[Path], Found]
) -> Result:
    """Do a task's work in the run directory `path` and record how it ended.

    `work` gets the directory, writes its figures and tables there and prints what it has to say. An interruption and
    whatever it raises are recorded; BadInput and StorageError are raised again, everything else is a result.
    """
    config = composed.config
    choices = {group: choice for group, choice in composed.choices.items() if not group.startswith("hydra/")}
    info = {
        "task": config["task"]["name"],
        "seed": config["seed"],
        "overrides": list(overrides),
        "choices": choices,
        "config_hash": provenance.config_hash(config),
        "environment": provenance.environment(),
        "trust": config["trust"],
        "git": provenance.git_state(),
        "optexp_git": provenance.git_state(Path(__file__).parent),
    }
    record = RunRecord.create(path, config, command, info)
    start = time.perf_counter()

    def finish(status: str, reason: str | None, metrics: Mapping[str, float], **more: Any) -> None:
        record.finish(status, reason, metrics=dict(metrics), wall_time=time.perf_counter() - start, **more)

    try:
        with ended_by_signals():
            found = work(path)
            _write(path, found.result)
    except (BadInput, StorageError) as error:
        finish("failed", str(error), {})
        raise
    except (SystemExit, KeyboardInterrupt) as stop:
        status = status_of(stop)
        if status <= 128:  # sys.exit of somebody's code
            finish("failed", f"something called sys.exit({status})", {})
            return Result(path, "failed", "sys.exit", float("inf"), int(Exit.UNEXPECTED))
        finish("interrupted", "received a signal", {})
        return Result(path, "interrupted", "received a signal", float("inf"), status)
    except Exception as error:  # noqa: BLE001 - code of the user's may do anything; it is recorded
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        log.error("the task failed\n%s", traceback.format_exc())
        say(f"failed: {reason}; see {relative(path / 'optexp.log')}")
        finish("failed", reason, {})
        return Result(path, "failed", reason, float("inf"), int(Exit.UNEXPECTED))
    finish("completed", None, found.metrics, exit_status=found.exit_status)
    say(f"in {relative(path)}")
    return Result(path, "completed", None, found.objective, found.exit_status)


def _write(path: Path, result: Mapping[str, Any]) -> None:
    text = json.dumps(plain_numbers(result), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        write_atomically(path / RESULT_FILE, text.encode())
    except OSError as error:
        raise StorageError(f"cannot write {path / RESULT_FILE}: {error.strerror or error}") from error
