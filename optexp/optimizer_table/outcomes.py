"""What the runs of a table have come to, and what follows: the best learning rate, how much it matters, how fast."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from optexp.records.reading import read_run
from optexp.records.run_directory import RUN_FILE
from optexp.sweeps.record import SweepRecord

FINISHED = ("completed", "early_stopped")


@dataclass(frozen=True)
class Outcome:
    """One run: which, how it ended, and its evaluations as (step, value of the metric)."""

    optimizer: str
    lr: float
    seed: int
    status: str
    reason: str | None
    evaluations: tuple[tuple[int, float], ...]
    final_loss: float | None

    @property
    def final(self) -> float | None:
        """The metric at the end; None where the run did not get there."""
        if self.status not in FINISHED or not self.evaluations:
            return None
        value = self.evaluations[-1][1]
        return value if math.isfinite(value) else None

    def steps_to(self, target: float, lower_is_better: bool) -> float:
        """Return the step of the first evaluation that reaches the target; infinite where none does."""
        for step, value in self.evaluations:
            if value <= target if lower_is_better else value >= target:
                return step
        return math.inf


def outcomes_in(folder: Path, metric: str) -> list[Outcome]:
    """Read the runs of a sweep's directory."""
    found = []
    for member in SweepRecord.read(folder).members:
        path, status, reason, rows = folder / member.directory, member.status, member.reason, []
        if (path / RUN_FILE).exists():
            run = read_run(path)
            status, reason, rows = run.status, run.info.get("reason"), run.rows
        evaluations = tuple((int(row["step"]), float(row[metric])) for row in rows if metric in row)
        losses = [float(row["val/loss"]) for row in rows if "val/loss" in row]
        swept = member.swept
        found.append(
            Outcome(
                swept["optimizer"],
                float(swept["optimizer.lr"]),
                int(swept["seed"]),
                status,
                reason,
                evaluations,
                losses[-1] if losses else None,
            )
        )
    return found


@dataclass(frozen=True)
class Window:
    """The learning rates around the best one whose final metric is within a fraction of it, in a width of decades.

    An open end lies on an edge of the grid, so the width is at least this.
    """

    decades: float
    low: float
    high: float
    open_low: bool
    open_high: bool


@dataclass(frozen=True)
class Curve:
    """The final metric over learning rates (ascending): means over seeds, None where a seed did not come to its end."""

    rates: tuple[float, ...]
    values: tuple[float | None, ...]
    losses: tuple[float, ...]  # decides between equal accuracies; infinite where unknown
    lower_is_better: bool

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], optimizer: str, lower_is_better: bool) -> Curve:
        own = [outcome for outcome in outcomes if outcome.optimizer == optimizer]
        rates = sorted({outcome.lr for outcome in own})
        values: list[float | None] = []
        losses = []
        for rate in rates:
            finals = [outcome.final for outcome in own if outcome.lr == rate]
            known = [final for final in finals if final is not None]
            values.append(fmean(known) if len(known) == len(finals) else None)
            at_end = [outcome.final_loss for outcome in own if outcome.lr == rate]
            losses.append(fmean(math.inf if loss is None else loss for loss in at_end))
        return cls(tuple(rates), tuple(values), tuple(losses), lower_is_better)

    @property
    def best(self) -> int | None:
        """The place of the best learning rate: best mean metric, then smallest mean loss; None where no rate ends."""
        known = [place for place, value in enumerate(self.values) if value is not None]
        sign = 1 if self.lower_is_better else -1
        return min(known, key=lambda place: (sign * (self.values[place] or 0.0), self.losses[place]), default=None)

    @property
    def edge(self) -> str | None:
        """The edge of the grid on which the best learning rate lies: low, high, or None."""
        if self.best is None:
            return None
        return {0: "low", len(self.rates) - 1: "high"}.get(self.best)

    def threshold(self, tolerance: float) -> float | None:
        """Return the worst metric that counts as within `tolerance` of the best."""
        if self.best is None:
            return None
        value = self.values[self.best]
        assert value is not None
        return within(value, tolerance, self.lower_is_better)

    def window(self, tolerance: float) -> Window | None:
        """Return the stretch around the best learning rate within `tolerance` of its metric.

        Between neighbours the metric is taken as linear in log10 of the learning rate. Where a neighbour did not come
        to an end there is nothing to go towards, and the stretch ends at the last learning rate that did.
        """
        if self.best is None:
            return None
        low, open_low = self._end(self.best, -1, tolerance)
        high, open_high = self._end(self.best, 1, tolerance)
        return Window(high - low, 10**low, 10**high, open_low, open_high)

    def _end(self, place: int, direction: int, tolerance: float) -> tuple[float, bool]:
        """Return log10 of the learning rate at which the stretch ends, and whether that is the grid's edge."""
        limit = self.threshold(tolerance)
        assert limit is not None
        while True:
            here, beyond = math.log10(self.rates[place]), place + direction
            if not 0 <= beyond < len(self.rates):
                return here, True
            inside, outside = self.values[place], self.values[beyond]
            assert inside is not None
            if outside is None:
                return here, False
            if outside > limit if self.lower_is_better else outside < limit:
                share = (inside - limit) / (inside - outside)
                return here + share * (math.log10(self.rates[beyond]) - here), False
            place = beyond


def within(best: float, tolerance: float, lower_is_better: bool) -> float:
    """Return the worst value within a fraction of the best: 0.9 of an accuracy, 1.1 of a loss."""
    return best * (1 + tolerance) if lower_is_better else best * (1 - tolerance)


def median_steps(outcomes: Sequence[Outcome], target: float, lower_is_better: bool) -> tuple[float | None, int]:
    """Return the median over runs of the steps to a target, and how many reach it.

    The median is None where half of them need forever. Only runs that come to their end reach anything.
    """
    steps = [o.steps_to(target, lower_is_better) if o.final is not None else math.inf for o in outcomes]
    if not steps:
        return None, 0
    median = statistics.median(steps)
    return (median if math.isfinite(median) else None), sum(math.isfinite(step) for step in steps)
