"""Trainings that take turns, a small part of the way each: a difference of 3 % needs more than whole runs.

The speed of a machine changes within seconds, for caches and clocks are shared with others. What is compared here runs
within a fiftieth of a second of each other, many times.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.contest import Contestant, Cost
from optexp.assemble import Training
from optexp.engine.loop import Member, train
from optexp.engine.runtime import Interruption

TURNS = 60


def order(names: Sequence[str], turn: int) -> list[str]:
    """Return who runs when in a turn: each comes first, and behind each of the others, as often as the others."""
    orders = list(itertools.permutations(names))
    return list(orders[turn % len(orders)])


class Race:
    """Trains all contestants by turns; a repeat of the contest is one race."""

    def __init__(self, trainings: Mapping[str, Callable[[], Training]], steps: int) -> None:
        self._trainings = trainings
        self._steps = steps
        self._races = 0
        self._costs: dict[str, float] = {}  # of the last race, that were not asked for yet

    def contestants(self) -> list[Contestant]:
        """Return the contestants; their costs are milliseconds of processor time per step."""
        return [Contestant(name, partial(self._cost, name)) for name in self._trainings]

    def _cost(self, name: str) -> Cost:
        if name not in self._costs:
            self._costs = self._run()
        return Cost(self._costs.pop(name))

    def _run(self) -> dict[str, float]:
        names = order(list(self._trainings), self._races)  # where a model lies in memory decides about a per cent
        self._races += 1
        runners = {name: _Runner(self._trainings[name](), max(self._steps // TURNS, 1)) for name in names}
        for turn in itertools.count():
            going = [name for name in order(names, turn) if not runners[name].ended]
            if not going:
                break
            for name in going:
                runners[name].take_turn()
        return {name: 1000 * runner.seconds / self._steps for name, runner in runners.items()}


class _Runner:
    """A training in a thread of its own, which waits but for its turns."""

    def __init__(self, training: Training, turn: int) -> None:
        self.seconds = 0.0  # of processor time that its turns took
        self.ended = False
        self._error: BaseException | None = None
        self._mine, self._others = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._train, args=(training, turn, torch.get_num_threads()), daemon=True)
        self._thread.start()

    def take_turn(self) -> None:
        """Let it train for a turn; raises what it raises."""
        start = time.process_time()  # of all threads: the others wait, and autograd has some of its own
        self._mine.release()
        self._others.acquire()
        self.seconds += time.process_time() - start
        if self._error is not None:
            raise self._error

    def _train(self, training: Training, turn: int, threads: int) -> None:
        self._mine.acquire()
        try:
            torch.set_num_threads(threads)  # a setting of each thread
            program, schedule = training.program, _Paced(training.schedule, turn, self._wait)
            member = Member(schedule, training.base_lr, [], None)  # type: ignore[arg-type]
            train(program, [member], training.plan, training.validation, Interruption())
        except BaseException as error:  # noqa: BLE001 - raised where the turn was given
            self._error = error
        self.ended = True
        self._others.release()

    def _wait(self) -> None:
        self._others.release()
        self._mine.acquire()


class _Paced:
    """A schedule that waits after each turn."""

    def __init__(self, schedule: Any, turn: int, wait: Callable[[], None]) -> None:
        self._schedule, self._turn, self._wait = schedule, turn, wait

    def lr(self, step: int, base_lr: float, history: Sequence[float]) -> float:
        if step and step % self._turn == 0:
            self._wait()
        return float(self._schedule.lr(step, base_lr, history))
