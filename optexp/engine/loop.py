"""The training loop: steps, measurements, evaluations, checkpoints, and every way a training can end."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

from optexp.config.schema import Interval
from optexp.datasets.batches import EvalBatches
from optexp.engine.checkpoint import Checkpoints, all_finite
from optexp.engine.guard import Divergence
from optexp.engine.program import Program
from optexp.engine.runtime import Interruption
from optexp.records.sinks import Sink
from optexp.schedules import BoundSchedule

Row = dict[str, float | int]


@dataclass(frozen=True)
class Plan:
    """How long to train and how often to look. Steps count from 1 here: the number of steps done."""

    total_steps: int
    steps_per_epoch: float
    samples_per_step: int
    log_every: int
    evaluation: Interval
    checkpoint: Interval | None
    patience: int | None

    @cached_property
    def evaluated(self) -> frozenset[int]:
        """The steps after which the validation split is evaluated; the last one of the run always is."""
        return frozenset([*self.evaluation.all_due(self.total_steps, self.steps_per_epoch), self.total_steps])

    @cached_property
    def logged(self) -> frozenset[int]:
        """The steps at which training is measured: the first, every evaluated one, so that both losses are of one
        moment, and every `log_every` steps from there on, so that no mean is over a step or two only.
        """
        starts = [0, *sorted(self.evaluated)]
        between = (range(start, end, self.log_every) for start, end in pairwise(starts))
        return frozenset([1, *chain.from_iterable(between), *self.evaluated])

    def checkpoints(self, done: int) -> bool:
        if self.checkpoint is None:
            return False
        return self.checkpoint.due(done, self.steps_per_epoch) or done == self.total_steps


@dataclass
class Member:
    """What the loop keeps about one run: its learning rates, its validation history, and where its records go."""

    schedule: BoundSchedule
    base_lr: float
    sinks: Sequence[Sink]
    checkpoints: Checkpoints | None
    history: list[float] = field(default_factory=list)  # val/loss of every evaluation so far
    best: dict[str, float] = field(default_factory=dict)  # {"step", "val/loss", ...} of the best evaluation
    latest: dict[str, float] = field(default_factory=dict)  # last value of every tag
    evaluations_since_best: int = 0
    elapsed_before: float = 0.0  # seconds of training before a resume
    divergence: Divergence | None = None

    def learning_rate(self, step: int) -> float:
        return self.schedule.lr(step, self.base_lr, self.history)

    def record(self, row: Row) -> None:
        if "train/loss" in row:  # a new measurement of the training replaces the old one as a whole
            self.latest = {tag: value for tag, value in self.latest.items() if not tag.startswith("train/")}
        self.latest.update(row)
        for sink in self.sinks:
            sink.log(row)

    def take_evaluation(self, done: int, values: dict[str, float]) -> bool:
        """Enter an evaluation into the history; return whether it is the best so far."""
        loss = values["val/loss"]
        self.history.append(loss)
        if not loss < self.best.get("val/loss", math.inf):  # nan is never better
            self.evaluations_since_best += 1
            return False
        self.best = {"step": done, **values}
        self.evaluations_since_best = 0
        return True

    def state(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "best": self.best,
            "latest": self.latest,
            "evaluations_since_best": self.evaluations_since_best,
        }

    def load_state(self, tree: dict[str, Any]) -> None:
        self.history, self.best, self.latest = tree["history"], tree["best"], tree["latest"]
        self.evaluations_since_best = tree["evaluations_since_best"]
        self.elapsed_before = self.latest.get("time", 0.0)


@dataclass(frozen=True)
class Ending:
    """How a training ended: a status of the run directory's vocabulary, the steps done, and the reason in words."""

    status: str
    steps: int
    reason: str | None = None


def train(
    program: Program,
    members: Sequence[Member],
    plan: Plan,
    validation: EvalBatches,
    interruption: Interruption,
    start: int = 0,
) -> Ending:
    """Train from step `start` to the end of the plan, or until nothing is left to train."""
    done, ending, watch = start, None, _Watch(plan)
    while done < plan.total_steps and ending is None:
        observed = done + 1 in plan.logged
        taken = program.step(done, [member.learning_rate(done) for member in members], observed)
        done += taken
        rows: list[Row] = [{} for _ in members]
        if observed or not taken:
            rows = [dict(values) for values in program.read()]  # the loop's only wait for the device
            watch.add_speed(rows, done)
            ending = _diverged(program, members)
            done = ending.steps if ending else done  # a guard on the device has skipped steps the host thought taken
        improved = False
        if ending is None and done in plan.evaluated:
            with watch.paused():
                improved = _evaluate(program, members, validation, done, rows)
            ending = _without_result(members, plan, done) or _out_of_patience(members, plan, done)
        if ending is None and interruption.received is not None and done < plan.total_steps:
            ending = Ending("interrupted", done, f"received {interruption.received.name}")
        for member, row in zip(members, rows, strict=True):
            if row:
                elapsed = member.elapsed_before + watch.elapsed()
                member.record({"step": done, "epoch": done / plan.steps_per_epoch, "time": elapsed, **row})
        names = _checkpoints_due(plan, done, improved, ending)
        if names:
            with watch.paused():
                _save(program, members, done, names)
    return ending or Ending("completed", done)


def _diverged(program: Program, members: Sequence[Member]) -> Ending | None:
    for index, divergence in program.divergences.items():
        members[index].divergence = divergence
    if len(program.divergences) < len(members):
        return None
    last = max(program.divergences.values(), key=lambda divergence: divergence.step)
    return Ending("diverged", last.step - 1, str(last))


def _evaluate(
    program: Program, members: Sequence[Member], validation: EvalBatches, done: int, rows: Sequence[Row]
) -> bool:
    improved = False
    for member, row, values in zip(members, rows, program.evaluate(validation), strict=True):
        tagged = {f"val/{name}": value for name, value in values.items()}
        row.update(tagged)
        improved |= member.take_evaluation(done, tagged)
    return improved


def _without_result(members: Sequence[Member], plan: Plan, done: int) -> Ending | None:
    """A run whose last validation loss is not finite has diverged, although every training loss was finite."""
    last = [member.history[-1] for member in members]
    if done < plan.total_steps or any(math.isfinite(loss) for loss in last):
        return None
    return Ending("diverged", done, f"val/loss is {last[0]} after step {done}")


def _out_of_patience(members: Sequence[Member], plan: Plan, done: int) -> Ending | None:
    if plan.patience is None or any(member.evaluations_since_best < plan.patience for member in members):
        return None
    since = members[0].best.get("step", 0)
    reason = f"no better val/loss in {plan.patience} evaluations since step {since}"
    return Ending("early_stopped", done, reason)


def _checkpoints_due(plan: Plan, done: int, improved: bool, ending: Ending | None) -> list[str]:
    """Return the names under which to save now. A diverged run saves nothing: the last good checkpoint stays."""
    if plan.checkpoint is None or (ending is not None and ending.status == "diverged"):
        return []
    return (["last"] if ending is not None or plan.checkpoints(done) else []) + (["best"] if improved else [])


def _save(program: Program, members: Sequence[Member], done: int, names: Sequence[str]) -> None:
    """Write checkpoints, but none of weights that are not finite: the next loss will show it."""
    for index, member in enumerate(members):
        if member.checkpoints is not None:
            tree = {"program": program.state(index), "member": member.state()}
            if all_finite(tree["program"]["model"].values()):
                member.checkpoints.save(done, tree, names)


class _Watch:
    """Measures training time without evaluations and checkpoints, for throughput; and all time, for the record."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._start = time.perf_counter()
        self._lap_start = self._start
        self._lap_steps: int | None = None

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def paused(self) -> _Pause:
        return _Pause(self)

    def add_speed(self, rows: Sequence[Row], done: int) -> None:
        """Add throughput since the last reading. The first lap is warm-up (allocation, compilation): not reported."""
        now = time.perf_counter()
        if self._lap_steps is not None and done > self._lap_steps:
            seconds = (now - self._lap_start) / (done - self._lap_steps)
            for row in rows:
                row["time/step_ms"] = 1000 * seconds
                row["time/samples_per_second"] = self._plan.samples_per_step / seconds
        self._lap_start, self._lap_steps = now, done

    def skip(self, seconds: float) -> None:
        self._lap_start += seconds


class _Pause:
    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._watch.skip(time.perf_counter() - self._since)
