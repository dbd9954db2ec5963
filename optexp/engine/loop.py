"""The training loop: steps, measurements, evaluations, checkpoints, and every way a training can end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

from optexp.config.schema import Interval
from optexp.datasets.batches import EvalBatches
from optexp.engine.checkpoint import Checkpoints, all_finite
from optexp.engine.program import Program
from optexp.engine.runtime import Interruption
from optexp.engine.step_log import Reading
from optexp.instruments.look import Look, sizes_gap, spaced
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
    probe_every: int | None = None

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

    @cached_property
    def sized(self) -> frozenset[int]:
        """The steps whose sizes are measured: logged ones, fewer and fewer, and the last."""
        return frozenset([*spaced(sorted(self.logged), sizes_gap), self.total_steps])

    @cached_property
    def probed(self) -> frozenset[int]:
        """The steps that are compared with the step before: some of `sized`, about `probe_every` steps apart.

        They begin closer together, each about twice as late as the one before: what goes wrong goes wrong early.
        """
        if self.probe_every is None:
            return frozenset()
        every = self.probe_every
        chosen = spaced(sorted(self.sized - {0, 1}), lambda step: min(step, every))
        return frozenset([*chosen, *({self.total_steps} - {1})])

    @cached_property
    def looks(self) -> dict[int, Look]:
        """What to measure of the steps that are looked at."""
        logged, sized, probed = self.logged, self.sized, self.probed
        remembered = {step - 1 for step in probed}
        steps = logged | remembered
        return {step: Look(step in logged, step in sized, step in remembered, step in probed) for step in steps}

    @cached_property
    def saved(self) -> frozenset[int]:
        """The steps after which a checkpoint is written; the last one of the run always is."""
        if self.checkpoint is None:
            return frozenset()
        return frozenset([*self.checkpoint.all_due(self.total_steps, self.steps_per_epoch), self.total_steps])


@dataclass(frozen=True)
class Ending:
    """How a training ended: a status of the run directory's vocabulary, the steps done, and the reason in words."""

    status: str
    steps: int
    reason: str | None = None


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
    ending: Ending | None = None
    on_end: Callable[[], None] = lambda: None  # called once, after the last row and checkpoint

    def learning_rate(self, step: int) -> float:
        return self.schedule.lr(step, self.base_lr, self.history)

    def end(self, status: str, steps: int, reason: str | None = None) -> None:
        self.ending = Ending(status, steps, reason)

    def record(self, done: int, steps_per_epoch: float, seconds: float, row: Row) -> None:
        """Hand a row of measurements after `done` steps to the sinks; a step that was not applied is not one."""
        step = self.ending.steps if self.ending else done
        row = {"step": step, "epoch": step / steps_per_epoch, "time": self.elapsed_before + seconds, **row}
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


def train(
    program: Program,
    members: Sequence[Member],
    plan: Plan,
    validation: EvalBatches,
    interruption: Interruption,
    start: int = 0,
    test: EvalBatches | None = None,
) -> None:
    """Train from step `start` until every member has an ending: at the end of the plan, or before, each on its own.

    The members' endings are entered as they come. `test` is evaluated once for each member that comes to a good end.
    Measurements are asked for without waiting for the device, and recorded when they have arrived: at the next ones at
    the latest, and before anything is evaluated or saved.
    """
    live, done, watch = list(members), start, _Watch(plan)
    readings: list[_Asked] = []  # and not yet recorded
    while live and done < plan.total_steps:
        look = plan.looks.get(done + 1, Look.NOTHING)
        diverged = program.step(done, [member.learning_rate(done) for member in live], look)
        done += 1
        observed = done in plan.logged
        due = diverged or done in plan.saved or done in plan.evaluated or interruption.received is not None
        if not (observed or due):
            continue
        if observed or diverged:
            asked = range(len(live)) if observed else diverged
            readings.append(_Asked(done, asked, program.read(asked)))
        rows: dict[int, Row] = {}
        while readings and (due or len(readings) > 1 or readings[0].reading.arrived() or _any_ended(live)):
            asked_for = readings.pop(0)
            found = asked_for.rows(live)  # the only wait for the device
            if found and asked_for.done in plan.logged:
                watch.add_speed(found.values(), asked_for.done)
            for index in found.keys() & program.divergences.keys():
                divergence = program.divergences[index]
                live[index].end("diverged", divergence.step - 1, str(divergence))
            if asked_for.done == done:
                rows = found
            else:
                _record(live, asked_for.done, plan, watch, found)
        improved: set[int] = set()
        with watch.paused():
            if done in plan.evaluated and not all(member.ending for member in live):
                improved = _evaluate(program, live, validation, done, rows)
                _end_where_due(live, plan, done)
            if interruption.received and done < plan.total_steps:
                _end_others(live, "interrupted", done, f"received {interruption.received.name}")
            if done == plan.total_steps:
                _end_others(live, "completed", done)
            _evaluate_test(program, live, test, rows)
        _record(live, done, plan, watch, rows)
        with watch.paused():
            _save(program, live, plan, done, improved)
        for member in live:
            if member.ending is not None:
                member.on_end()
        going_on = [index for index, member in enumerate(live) if member.ending is None]
        if going_on and len(going_on) < len(live):
            program.keep(going_on)
        live = [live[index] for index in going_on]
    assert not readings
    if live:  # resumed after its last step, before it was told to have ended
        _end_others(live, "completed", done)
        measured: dict[int, Row] = {index: {} for index in range(len(live))}
        _evaluate_test(program, live, test, measured)
        _record(live, done, plan, watch, {index: row for index, row in measured.items() if row})
        for member in live:
            member.on_end()


@dataclass(frozen=True)
class _Asked:
    """A reading after `done` steps of some members; it may arrive some steps later."""

    done: int
    members: Sequence[int]
    reading: Reading

    def rows(self, live: Sequence[Member]) -> dict[int, Row]:
        """Return the rows of those whose end was not known yet: what a member did after it is nobody's."""
        rows = zip(self.members, self.reading.rows(), strict=True)
        return {index: dict(row) for index, row in rows if live[index].ending is None}


def _any_ended(live: Sequence[Member]) -> bool:
    return any(member.ending is not None for member in live)


def _record(live: Sequence[Member], done: int, plan: Plan, watch: _Watch, rows: dict[int, Row]) -> None:
    for index, row in sorted(rows.items()):
        live[index].record(done, plan.steps_per_epoch, watch.elapsed(), row)


def _evaluate(
    program: Program, live: Sequence[Member], validation: EvalBatches, done: int, rows: dict[int, Row]
) -> set[int]:
    """Evaluate all that go on; return those whose validation loss is their best so far."""
    improved = set()
    for index, (member, values) in enumerate(zip(live, program.evaluate(validation), strict=True)):
        if member.ending is None:
            tagged = {f"val/{name}": value for name, value in values.items()}
            rows[index].update(tagged)
            if member.take_evaluation(done, tagged):
                improved.add(index)
    return improved


def _end_where_due(live: Sequence[Member], plan: Plan, done: int) -> None:
    """End members without a finite result, although every training loss was finite, and those out of patience."""
    for member in live:
        if member.ending is not None:
            continue
        if done == plan.total_steps and not math.isfinite(member.history[-1]):
            member.end("diverged", done, f"val/loss is {member.history[-1]} after step {done}")
        elif plan.patience is not None and member.evaluations_since_best >= plan.patience:
            since = member.best.get("step", 0)
            member.end("early_stopped", done, f"no better val/loss in {plan.patience} evaluations since step {since}")


def _end_others(live: Sequence[Member], status: str, done: int, reason: str | None = None) -> None:
    for member in live:
        if member.ending is None:
            member.end(status, done, reason)


def _evaluate_test(program: Program, live: Sequence[Member], test: EvalBatches | None, rows: dict[int, Row]) -> None:
    good = [
        index
        for index, member in enumerate(live)
        if member.ending is not None and member.ending.status in ("completed", "early_stopped")
    ]
    if test is None or not good:
        return
    values = program.evaluate(test)
    for index in good:
        rows[index].update({f"test/{name}": value for name, value in values[index].items()})


def _save(program: Program, live: Sequence[Member], plan: Plan, done: int, improved: set[int]) -> None:
    """Write the checkpoints that are due, but none of weights that are not finite: the next loss will show it.

    A diverged run saves nothing: its last good checkpoint stays. Whatever else ends saves its last state.
    """
    if plan.checkpoint is None:
        return
    for index, member in enumerate(live):
        ended = member.ending
        if member.checkpoints is None or (ended is not None and ended.status == "diverged"):
            continue
        names = (["last"] if ended is not None or done in plan.saved else []) + (["best"] if index in improved else [])
        if names:
            tree = {"program": program.state(index), "member": member.state()}
            if all_finite(tree["program"]["model"].values()):
                for sink in member.sinks:  # whoever goes on from here repeats no row and must miss none
                    sink.flush()
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

    def add_speed(self, rows: Collection[Row], done: int) -> None:
        """Add throughput since the last reading. The first lap is warm-up (allocation, compilation): not reported.

        Members that are trained together share the time: each row tells its own part.
        """
        now = time.perf_counter()
        if self._lap_steps is not None and done > self._lap_steps:
            seconds = (now - self._lap_start) / (done - self._lap_steps) / len(rows)
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
