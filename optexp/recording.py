"""The records of one run while it trains: run directory, metrics, events, screen; opened, resumed and closed."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from optexp.assemble import Training
from optexp.config import build
from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.history import History
from optexp.diagnosis.text import three_lines
from optexp.engine.checkpoint import Checkpoints
from optexp.engine.loop import Ending, Member
from optexp.engine.runtime import describe
from optexp.errors import StorageError
from optexp.records import provenance
from optexp.records.console import Console, program, relative, result_table
from optexp.records.group_console import GroupConsole
from optexp.records.metrics_file import MetricsFile
from optexp.records.reading import Run, flat
from optexp.records.run_directory import METRICS_FILE, RunRecord, config_text
from optexp.records.sinks import Sink
from optexp.records.tensorboard import TensorBoard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A run to be: what to train and where to record it.

    `command` and `overrides` are recorded; `member` is the title of a run that is one of a sweep, which is shown with
    fewer words.
    """

    training: Training
    path: Path
    command: Sequence[str]
    overrides: Sequence[str] = ()
    member: str | None = None

    @cached_property
    def config_text(self) -> str:
        return config_text(self.training.config)


class Recorded:
    """A job with its records. `member` is what the loop trains; `ending` is how that ended."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.notes = list(job.training.notes)
        self.checkpoints = Checkpoints(job.path / "checkpoints")
        self.member = Member(job.training.schedule, job.training.base_lr, [], self.checkpoints, on_end=self.close)
        self.record: RunRecord | None = None
        self._problem: StorageError | None = None  # met while abandoning

    def open(self, resumed_at: int | None, group: GroupConsole | None) -> None:
        """Make the directory a run's, or reopen it as one that goes on from step `resumed_at`.

        Raises BadInput when it holds a run already, StorageError when it cannot be written.
        """
        job = self.job
        if group is not None:
            self.notes.append(f"trained in one program with {group.members - 1} others; times per step are its share")
        if resumed_at is None:
            self.record = _new_record(job, self.notes)
        else:
            self.record = RunRecord.reopen(job.path, job.command)
            self.record.update(first_step=resumed_at, notes=self.notes)
        self.member.sinks = [*_files(job, resumed_at), self._screen(group)]

    def _screen(self, group: GroupConsole | None) -> Sink:
        job, total_steps = self.job, self.job.training.plan.total_steps
        if group is not None:
            return group.member(job.member or job.path.name)
        title = [] if job.member else [*_title_lines(job.training), *self.notes, f"in {relative(job.path)}"]
        return Console(total_steps, job.member or job.path.name, title, brief=job.member is not None)

    @property
    def ending(self) -> Ending:
        assert self.member.ending is not None
        return self.member.ending

    def close(self) -> None:
        """Enter the member's ending into all records. Raises StorageError, but closes all of them first."""
        assert self.record is not None
        problem = None
        summary = {"status": self.ending.status, "reason": self.ending.reason}
        closings: list[Callable[[], None]] = [partial(sink.close, summary) for sink in self.member.sinks]
        for close in [self.checkpoints.wait, *closings]:
            try:
                close()
            except StorageError as error:
                problem = error
        self.record.finish(self.ending.status, self.ending.reason, wait=False, **_summary(self.member, self.ending))
        why = self._diagnosed()
        if self.job.member is None:
            result_table(self.job.path, self.record.info, self.job.training.baselines, why)
        if problem is not None:
            raise problem

    def _diagnosed(self) -> list[str]:
        """Enter outcome and causes of a training that came to an end of its own; return what a reader must know."""
        assert self.record is not None
        if self.ending.status not in ("completed", "early_stopped", "diverged"):
            return []
        try:
            history = History.of_run(Run(self.job.path, self.record.info))
            found = diagnose(history)
        except Exception:  # whatever it is, it must not cost a run that is done
            log.exception("the run could not be diagnosed")
            return []
        causes = [finding.cause for finding in found.findings]
        self.record.update(wait=False, outcome=found.outcome, causes=causes)
        return three_lines(found, history, program("optexp"))

    def wait(self) -> None:
        """Return when the ending is on the disk. Raises StorageError when it could not be written."""
        if self.record is not None:
            self.record.wait()
        if self._problem is not None:
            raise self._problem

    def abandon(self, status: str, reason: str, details: str = "") -> None:
        """End a run that has begun and not yet ended; `details` go to its log.

        What cannot be written is raised by `wait`, because others of the same program are to be abandoned, too.
        """
        if self.member.ending is None:
            self.member.end(status, int(self.member.latest.get("step", 0)), reason)
            if self.record is not None:
                try:
                    if details:
                        self._write_log(details)
                    self.close()
                except StorageError as error:
                    self._problem = error

    def _write_log(self, details: str) -> None:
        """Write to the run's log: through the handlers Hydra has set up, or else into the file itself."""
        if logging.getLogger().handlers:
            log.error("the training failed\n%s", details)
        else:
            path = self.job.path / "optexp.log"
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(details)
            except OSError as error:
                raise StorageError(f"{path}: {error.strerror}") from error


def _new_record(job: Job, notes: Sequence[str]) -> RunRecord:
    training = job.training
    config = training.config
    info = {
        "seed": config["seed"],
        "overrides": list(job.overrides),
        "notes": list(notes),
        "choices": {group: choice for group, choice in training.choices.items() if not group.startswith("hydra/")},
        "config_hash": provenance.config_hash(config),
        "total_steps": training.plan.total_steps,
        "device": describe(training.device),
        "environment": provenance.environment(threads=torch.get_num_threads()),
        "trust": config["trust"],
        "git": provenance.git_state(),
        "optexp_git": provenance.git_state(Path(__file__).parent),
        "data": training.data_facts,
        "model": training.model_facts,
        "parameter_groups": [_group(group) for group in training.optimizer.param_groups],
        "baselines": training.baselines,
    }
    return RunRecord.create(job.path, config, job.command, info, text=job.config_text)


def _group(group: dict[str, Any]) -> dict[str, Any]:
    """Return the size of a parameter group, and what tells it from the others."""
    numbers = sum(parameter.numel() for parameter in group["params"])
    return {"tensors": len(group["params"]), "numbers": numbers, "weight_decay": group.get("weight_decay")}


def _files(job: Job, resumed_at: int | None) -> list[Sink]:
    training, path = job.training, job.path
    metrics = MetricsFile(path / METRICS_FILE)
    if resumed_at is not None:
        metrics.truncate_after(resumed_at)
    events = TensorBoard(
        path / "tensorboard",
        hparams=_hparams(training),
        config_yaml=job.config_text,
        command=shlex.join(job.command),
        purge_step=None if resumed_at is None else resumed_at + 1,
    )
    return [metrics, events]


def _title_lines(training: Training) -> list[str]:
    facts = training.model_facts
    flops = f", {_flops(facts['flops_per_sample'])} per sample" if facts["flops_per_sample"] else ""
    dataset = training.dataset
    splits = (dataset.val, dataset.test)
    sizes = ", ".join(f"{n:,}" for n in (training.batches.num_samples, *map(dataset.num_samples, splits)))
    return [
        f"model     {type(training.model).__name__}, {facts['parameters']:,} parameters{flops}",
        f"data      {dataset.name}: {sizes} samples (train, validation, test), batch {training.plan.samples_per_step}",
        f"optimizer {_described(training)}",
        f"device    {describe(training.device)}, {training.engine.precision}",
    ]


def _flops(number: int) -> str:
    size, prefix = next(((s, p) for s, p in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if number >= s), (1.0, ""))
    return f"{number / size:.3g} {prefix}FLOPs"


def _described(training: Training) -> str:
    group = training.optimizer.param_groups[0]
    shown = ("lr", "momentum", "dampening", "betas", "alpha", "weight_decay", "nesterov")
    group = {**group, "lr": training.base_lr}  # that of the group is the last step's in a resumed run
    settings = ", ".join(
        f"{key} {group[key]:g}" if isinstance(group[key], float) else f"{key} {group[key]}"
        for key in shown
        if group.get(key)
    )
    return f"{type(training.optimizer).__name__} ({settings}), schedule {type(training.schedule.schedule).__name__}"


# What people vary or compare; the rest of the configuration is in config.yaml and in TensorBoard's text tab.
_ENGINE_COLUMNS = (
    "epochs",
    "max_steps",
    "clip_norm",
    "accumulate",
    "label_smoothing",
    "decay_norm_and_bias",
    "precision",
)


def _hparams(training: Training) -> dict[str, Any]:
    """Return the columns of TensorBoard's HParams table: choices of the groups, their settings, and the seed."""
    config = training.config
    columns = {
        group: training.choices.get(group) for group in ("model", "dataset", "optimizer", "schedule", "experiment")
    }
    settings = flat({group: build.arguments(config[group]) for group in ("optimizer", "schedule", "model")})
    engine = {f"engine.{key}": config["engine"][key] for key in _ENGINE_COLUMNS}
    batch_size = training.plan.samples_per_step
    return {**columns, **settings, "dataset.batch_size": batch_size, **engine, "seed": config["seed"]}


def _summary(member: Member, ending: Ending) -> dict[str, Any]:
    # What is measured per group, per layer and at probes only is for those who read the rows.
    apart = ("ledger/", "layer/", "probe/")
    latest = {tag: value for tag, value in member.latest.items() if not tag.startswith(apart)}
    metrics = {tag: value for tag, value in latest.items() if tag not in ("step", "epoch", "time")}
    best = None
    if member.best:
        best = {"metric": "val/loss", "value": member.best["val/loss"], **member.best}
    return {
        "last_step": ending.steps,
        "wall_time": member.latest.get("time", 0.0),
        "metrics": metrics,
        "best": best,
    }
