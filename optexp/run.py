"""One run: from the objects of a training to a run directory that tells what happened, whatever happened."""

from __future__ import annotations

import logging
import shlex
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optexp.assemble import Training, evaluation_batch
from optexp.config import build
from optexp.datasets.batches import EvalBatches
from optexp.engine.checkpoint import Checkpoints
from optexp.engine.loop import Ending, Member, train
from optexp.engine.runtime import Interruption, describe, use_threads
from optexp.errors import Exit, StorageError
from optexp.records import provenance
from optexp.records.console import Console, relative, result_table
from optexp.records.metrics_file import MetricsFile
from optexp.records.reading import flat
from optexp.records.run_directory import METRICS_FILE, RunRecord, config_text
from optexp.records.sinks import Sink
from optexp.records.tensorboard import TensorBoard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """How a run ended and the value a sweeper minimizes: the best val/loss, infinite when the run did not get there."""

    path: Path
    status: str
    reason: str | None
    objective: float
    exit_status: int


def execute(
    training: Training,
    path: Path,
    command: Sequence[str],
    overrides: Sequence[str] = (),
    member: str | None = None,
    resume: bool = False,
) -> Result:
    """Train in the run directory `path` and record everything there; with `resume`, go on from its last checkpoint.

    `member` is the title of a run that is one of a sweep: it is shown with fewer words.
    Diverging, being interrupted and failing are results: they are recorded and returned, not raised. StorageError is
    raised when the directory itself cannot be written.
    """
    flops = training.model_facts["flops_per_sample"]
    use_threads(training.engine.threads, 3 * flops * training.plan.samples_per_step if flops else None)
    checkpoints = Checkpoints(path / "checkpoints")
    notes = list(training.notes)
    run = Member(training.schedule, training.base_lr, [], checkpoints)
    start = _restored(training, run, notes) if resume else 0
    record = RunRecord.reopen(path, command) if resume else _new_record(training, path, command, overrides)
    if resume:
        record.update(first_step=start, notes=notes)
    title = [] if member else [*_title_lines(training), *notes, f"in {relative(path)}"]
    console = Console(training.plan.total_steps, member or path.name, title, brief=member is not None)
    sinks = [*_files(training, path, command, start if resume else None), console]
    run.sinks = sinks
    interruption = Interruption()
    ending = Ending("failed", start, "the process ended before the training did")
    storage_problem: StorageError | None = None
    try:
        with interruption.listening():
            ending = train(training.program, [run], training.plan, training.validation, interruption, start)
            _evaluate_test(training, run, ending)
    except StorageError as error:
        ending, storage_problem = Ending("failed", _last_step(run), str(error)), error
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's may do anything; it is recorded below
        ending = Ending("failed", _last_step(run), f"{type(error).__name__}: {error}".strip().splitlines()[0])
        _log_failure(path)
    except KeyboardInterrupt:
        ending = Ending("interrupted", _last_step(run), "received SIGINT")
    finally:
        summary = _summary(run, ending)
        for sink in sinks:
            sink.close({"status": ending.status, "reason": ending.reason})
        record.finish(ending.status, ending.reason, **summary)
    if member is None:
        result_table(path, record.info, training.dataset.baselines)
    if storage_problem is not None:
        raise storage_problem
    return Result(path, ending.status, ending.reason, _objective(run, ending), _exit_status(ending, interruption))


def _restored(training: Training, run: Member, notes: list[str]) -> int:
    """Load the last checkpoint, if there is one, into program and member; return its step. Changes nothing on disk."""
    assert run.checkpoints is not None
    loaded = run.checkpoints.load("last", notice=notes.append)
    if loaded is None:
        return 0
    step, tree = loaded
    training.program.load_state(0, tree["program"])
    run.load_state(tree["member"])
    return step


def _log_failure(path: Path) -> None:
    """Write the traceback to the run's log: through the handlers Hydra has set up, or else into the file itself."""
    if logging.getLogger().handlers:
        log.error("the training failed\n%s", traceback.format_exc())
    else:
        with (path / "optexp.log").open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())


def _new_record(training: Training, path: Path, command: Sequence[str], overrides: Sequence[str]) -> RunRecord:
    config = training.config
    info = {
        "seed": config["seed"],
        "overrides": list(overrides),
        "notes": training.notes,
        "choices": {group: choice for group, choice in training.choices.items() if not group.startswith("hydra/")},
        "config_hash": provenance.config_hash(config),
        "total_steps": training.plan.total_steps,
        "device": describe(training.device),
        "environment": provenance.environment(threads=torch.get_num_threads()),
        "trust": config["trust"],
        "git": provenance.git_state(),
        "optexp_git": provenance.git_state(Path(__file__).parent),
        "data": training.dataset.details,
        "model": training.model_facts,
        "baselines": training.dataset.baselines,
    }
    return RunRecord.create(path, config, command, info)


def _files(training: Training, path: Path, command: Sequence[str], resumed_at: int | None) -> list[Sink]:
    metrics = MetricsFile(path / METRICS_FILE)
    if resumed_at is not None:
        metrics.truncate_after(resumed_at)
    events = TensorBoard(
        path / "tensorboard",
        hparams=_hparams(training),
        config_yaml=config_text(training.config),
        command=shlex.join(command),
        purge_step=None if resumed_at is None else resumed_at + 1,
    )
    return [metrics, events]


def _title_lines(training: Training) -> list[str]:
    facts = training.model_facts
    flops = f", {_flops(facts['flops_per_sample'])} per sample" if facts["flops_per_sample"] else ""
    dataset = training.dataset
    splits = (dataset.val, dataset.test)
    sizes = ", ".join(f"{n:,}" for n in (training.program.batches.num_samples, *map(dataset.num_samples, splits)))
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


def _evaluate_test(training: Training, member: Member, ending: Ending) -> None:
    if training.engine.evaluate_test and ending.status in ("completed", "early_stopped"):
        size = evaluation_batch(training.dataset, training.plan.samples_per_step)
        batches = EvalBatches(training.dataset, training.dataset.test, training.device, size)
        values = {f"test/{name}": value for name, value in training.program.evaluate(batches)[0].items()}
        step = ending.steps
        time = member.latest.get("time", 0.0)
        member.record({"step": step, "epoch": step / training.plan.steps_per_epoch, "time": time, **values})


def _last_step(member: Member) -> int:
    return int(member.latest.get("step", 0))


def _summary(member: Member, ending: Ending) -> dict[str, Any]:
    metrics = {tag: value for tag, value in member.latest.items() if tag not in ("step", "epoch", "time")}
    best = None
    if member.best:
        best = {"metric": "val/loss", "value": member.best["val/loss"], **member.best}
    return {
        "last_step": ending.steps,
        "wall_time": member.latest.get("time", 0.0),
        "metrics": metrics,
        "best": best,
    }


def _objective(member: Member, ending: Ending) -> float:
    finished = ending.status in ("completed", "early_stopped")
    return member.best["val/loss"] if finished and member.best else float("inf")


def _exit_status(ending: Ending, interruption: Interruption) -> int:
    if ending.status == "interrupted":
        return 128 + (interruption.received or signal.SIGINT)
    return {"diverged": Exit.DIVERGED, "failed": Exit.UNEXPECTED}.get(ending.status, Exit.DONE)
