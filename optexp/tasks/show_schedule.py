"""The task `show_schedule`: the learning rate over a run, drawn without training and without data."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch.optim import SGD, RMSprop

from optexp.config import build
from optexp.config.check import total_steps
from optexp.config.compose import Composed
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.config.values import Above, AtLeast
from optexp.errors import BadInput, StorageError
from optexp.instruments.step_size import effective_lr
from optexp.range_test.lr_effect import faults_without_model
from optexp.records.console import relative, say
from optexp.records.files import write_atomically
from optexp.records.numbers import setting
from optexp.report.sketch import sketch
from optexp.report.tables import Column, print_table
from optexp.run import Result
from optexp.task_record import Found, carry_out

MOST_ROWS = 100_000
"""Rows of the CSV file: a longer run is shown at every second, third, … step."""


@dataclass(frozen=True)
class ShowScheduleSettings:
    """See conf/task/show_schedule.yaml."""

    total_steps: Annotated[int, AtLeast(1)] | None = None
    steps_per_epoch: Annotated[float, Above(0)] = 100
    history: list[float] | None = None


class ShowSchedule:
    """One schedule over one run, refused or ready when constructed (BadInput)."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        self.composed, self.engine = composed, engine
        self.settings = task_settings(ShowScheduleSettings, composed.config["task"])
        self.total = self._total()
        self.base_lr = self._base_lr()
        self.factor = _effective_factor(composed.config)
        self.faults = faults_without_model(composed.config["optimizer"], composed.config["trust"])
        node = composed.config["schedule"]
        target = build.locate("schedule", node.get("_target_"), composed.config["trust"])
        build.check_arguments("schedule", target, build.arguments(node))
        schedule = build.call("schedule", target, **build.arguments(node))
        if not hasattr(schedule, "bind"):
            raise BadInput(f"schedule._target_={node['_target_']}: is not an optexp.schedules.Schedule")
        self.bound = schedule.bind(self.total, self.settings.steps_per_epoch)
        self.evaluations = self._evaluations(schedule.needs_history)

    @property
    def name(self) -> str:
        return f"schedule={self.composed.choices.get('schedule')}"

    def _total(self) -> int:
        """Return the number of optimizer steps; raises BadInput when it is given twice."""
        own = self.settings.total_steps
        if own is not None and self.engine.max_steps is not None:
            raise BadInput(
                f"task.total_steps={own}: engine.max_steps={self.engine.max_steps} is set, too; give one of them"
            )
        return own or total_steps(self.engine, self.settings.steps_per_epoch)

    def _base_lr(self) -> float:
        lr = self.composed.config["optimizer"].get("lr")
        if not isinstance(lr, int | float):
            raise BadInput(f"optimizer.lr={setting(lr)}: a schedule needs a number to multiply")
        return float(lr)

    def _evaluations(self, needs_history: bool) -> list[int]:
        """Return after how many steps each value of the history is known; raises BadInput where it does not fit."""
        history = self.settings.history
        if not needs_history:
            if history is not None:
                given = f"task.history={setting(history)}"
                raise BadInput(f"{given}: {self.name} does not look at the validation loss; allowed is null")
            return []
        if history is None:
            raise BadInput(
                f"{self.name} depends on the validation loss, which only training knows; "
                "give the values it would see: task.history=[1.0,0.8,0.8,0.8]"
            )
        due = [*self.engine.evaluation_interval.all_due(self.total, self.settings.steps_per_epoch)]
        if len(history) > len(due):
            raise BadInput(
                f"task.history={setting(history)}: has {len(history)} values, but this run is evaluated "
                f"{len(due)} times (engine.eval_every={self.engine.eval_every}, {self.total} steps)"
            )
        return due[: len(history)]

    def rate(self, step: int) -> float:
        """Return the learning rate of an optimizer step, counted from 0."""
        seen = bisect_right(self.evaluations, step)
        return float(self.bound.lr(step, self.base_lr, (self.settings.history or [])[:seen]))

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Draw in the directory `path`."""
        return carry_out(self.composed, path, command, overrides, lambda folder: self._work(folder, member))

    def _work(self, path: Path, member: str | None) -> Found:
        stride = math.ceil(self.total / MOST_ROWS)
        steps = sorted({*range(0, self.total, stride), self.total - 1})
        rates = [self.rate(step) for step in steps]
        points, notes = self._points(steps, rates), self._notes(steps, rates)
        say(f"{member or self.name}: {self._length()}, warm-up {self.bound.warmup} steps")
        say("\n".join(sketch(rates)))
        columns = [Column("at"), Column("step", numeric=True), Column("lr", text=_rate, numeric=True)]
        if self.factor != 1:
            columns.append(Column("effective lr", text=_rate, numeric=True))
        print_table(points, columns)
        for note in notes:
            say(f"note: {note}")
        self._write(path, steps, rates)
        metrics = {f"lr/{row['at']}": row["lr"] for row in points} | {"lr/mean": sum(rates) / len(rates)}
        facts: dict[str, Any] = {
            "total_steps": self.total,
            "steps_per_epoch": self.settings.steps_per_epoch,
            "base_lr": self.base_lr,
        }
        facts |= {"warmup_steps": self.bound.warmup, "effective_factor": self.factor, "points": points}
        return Found(metrics, {**facts, "notes": notes})

    def _points(self, steps: Sequence[int], rates: Sequence[float]) -> list[dict[str, Any]]:
        """Return the learning rates at the start, at the peak (the first of several), half way and at the end."""
        peak = steps[rates.index(max(rates))]
        places = {"start": 0, "peak": peak, "half way": self.total // 2, "end": self.total - 1}
        return [
            {"at": name, "step": step, "lr": self.rate(step), "effective lr": self.rate(step) * self.factor}
            for name, step in places.items()
        ]

    def _length(self) -> str:
        per_epoch = self.settings.steps_per_epoch
        return (
            f"{self.total:,} steps, {self.total / per_epoch:.4g} epochs of {per_epoch:g} steps (task.steps_per_epoch)"
        )

    def _notes(self, steps: Sequence[int], rates: Sequence[float]) -> list[str]:
        """Say what is easily overlooked."""
        notes = []
        warmup = self.bound.warmup
        if 0 < warmup < self.total and self.rate(warmup) < 0.9 * self.rate(warmup - 1):
            peak, start = _rate(self.rate(warmup - 1)), _rate(self.rate(warmup))
            notes.append(f"after warm-up to {peak} the schedule starts at {start}: a jump down")
        is_constant = str(self.composed.config["schedule"]["_target_"]).endswith(".Constant")
        if not is_constant and len({rate for step, rate in zip(steps, rates, strict=True) if step >= warmup}) == 1:
            notes.append(f"in {self.total:,} steps the learning rate never changes after warm-up")
        if not all(map(math.isfinite, rates)):
            notes.append("the learning rate grows beyond all numbers")
        return [*notes, *self.faults]

    def _write(self, path: Path, steps: Sequence[int], rates: Sequence[float]) -> None:
        from optexp.report.figures.schedule import schedule_figure
        from optexp.report.figures.style import save_png

        header = "step,lr,effective_lr\n"
        lines = [f"{step},{rate!r},{rate * self.factor!r}\n" for step, rate in zip(steps, rates, strict=True)]
        title = f"{self.name}, {self.composed.choices.get('optimizer')} lr={setting(self.base_lr)}, {self._length()}"
        figure = schedule_figure(steps, rates, self.factor, self.bound.warmup, self.total, title)
        table, picture = path / "schedule.csv", path / "figures" / "schedule.png"
        try:
            picture.parent.mkdir(exist_ok=True)
            write_atomically(table, (header + "".join(lines)).encode())
            save_png(figure, picture)
        except OSError as error:
            raise StorageError(f"cannot write {error.filename or path}: {error.strerror or error}") from error
        say(f"drawn in {relative(picture)}, numbers in {relative(table)}")


def _rate(value: float) -> str:
    return setting(float(f"{value:.4g}"))


def _effective_factor(config: dict[str, Any]) -> float:
    """Return effective learning rate / learning rate: not 1 for momentum and dampening of torch's SGD and RMSprop."""
    node = config["optimizer"]
    build.trust(config["trust"])
    target = build.locate("optimizer", node.get("_target_"), config["trust"])
    build.check_arguments("optimizer", target, build.arguments(node), ["params"])
    if not (isinstance(target, type) and issubclass(target, SGD | RMSprop)):
        return 1.0
    optimizer = build.call("optimizer", target, params=[torch.zeros(1)], **build.arguments(node))
    return effective_lr(optimizer, 1.0)
