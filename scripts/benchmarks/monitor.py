"""What optexp.Monitor costs a training loop: a plain loop that it watches, and the same one alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.bare import Loop, cross_entropy
from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.optexp_loop import Source, scratch
from benchmarks.turns import TURNS, order
from optexp import Monitor

CASES = {
    "MLP, SGD": (("model=mlp", "optimizer=sgd"), 6000),
    "MLP, AdamW, clip 1.0": (("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0"), 6000),
    "ResNet-8, SGD": (("model=resnet", "optimizer=sgd"), 600),
}
NAMES = WATCHED, FILES, ALONE = "watched", "watched, with files", "alone"
QUICK_STEPS = 600
ALLOWED = 1.03  # the step may take 3 % longer
CHECKED = 20  # steps whose losses must be the same


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file."""
    return [
        contest(name, words, size.steps or (QUICK_STEPS if size.quick else steps))
        for name, (words, steps) in CASES.items()
    ]


def contest(name: str, words: Sequence[str], steps: int) -> Contest:
    """Milliseconds of processor time per step of a plain loop, watched as by default and not at all."""
    source = Source([*words, f"engine.threads={torch.get_num_threads()}"])
    race = _Race(source, steps)
    contestants = [Contestant(each, partial(race.cost, each)) for each in NAMES]
    goals = {ALONE: 1 / ALLOWED}
    return Contest(f"monitor: {name}", "ms/step", contestants, goals=goals, check=partial(_difference, source))


class _Race:
    """Runs all contestants by turns, a sixtieth of the way each: a difference of 3 % needs more than whole runs."""

    def __init__(self, source: Source, steps: int) -> None:
        self._source = source
        self._turn = max(steps // TURNS, 1)
        self._races = 0
        self._costs: dict[str, float] = {}  # of the last race, that were not asked for yet

    def cost(self, name: str) -> Cost:
        if name not in self._costs:
            self._costs = self._run()
        return Cost(self._costs.pop(name))

    def _run(self) -> dict[str, float]:
        seconds = dict.fromkeys(NAMES, 0.0)
        with scratch() as folder, contextlib.ExitStack() as stack:
            # In another order each time, too: where a model lies in memory decides about a per cent.
            runs = {
                name: stack.enter_context(_watched(self._source, name, folder)) for name in order(NAMES, self._races)
            }
            self._races += 1
            batches = {name: loop.batches() for name, (loop, _) in runs.items()}
            for turn in range(TURNS):
                for name in order(NAMES, turn):
                    loop, monitor = runs[name]
                    given = [batch for _, batch in zip(range(self._turn), batches[name], strict=False)]
                    start = time.process_time()
                    _train(loop, monitor, given)
                    seconds[name] += time.process_time() - start
            for name, (_, monitor) in runs.items():
                if monitor is not None:
                    start = time.process_time()
                    monitor.close()
                    seconds[name] += time.process_time() - start
        return {name: 1000 * value / TURNS / self._turn for name, value in seconds.items()}


@contextlib.contextmanager
def _watched(source: Source, name: str, folder: Path) -> Iterator[tuple[Loop, Monitor | None]]:
    """Give a new loop, and who watches it."""
    loop = Loop(source.problem())
    if name == ALONE:
        yield loop, None
        return
    log_dir = folder / "run" if name == FILES else None
    with Monitor(loop.model, loop.optimizer, batch_size=loop.problem.batch_size, log_dir=log_dir) as monitor:
        yield loop, monitor


def _train(loop: Loop, monitor: Monitor | None, batches: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Take a step with each batch; return the losses."""
    model, optimizer, limit = loop.model, loop.optimizer, loop.problem.clip_norm
    parameters = list(model.parameters())
    losses = []
    model.train()
    for inputs, targets in batches:
        loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        if limit is not None:
            torch.nn.utils.clip_grad_norm_(parameters, limit)
        optimizer.step()
        if monitor is not None:
            monitor.step(loss)
        losses.append(loss.detach())
    return losses


def _difference(source: Source) -> float:
    """Return 0.0: raises AssertionError unless both loops come to the same losses, bit for bit."""
    losses = []
    for name in (ALONE, WATCHED):
        torch.manual_seed(0)
        with _watched(source, name, Path()) as (loop, monitor):
            batches = [batch for _, batch in zip(range(CHECKED), loop.batches(), strict=False)]
            losses.append(torch.stack(_train(loop, monitor, batches)))
    if not torch.equal(*losses):
        raise AssertionError("the monitor changes the training")
    return 0.0
