"""Whether a repair helped, by a rule that is fixed before anything is trained.

Compared is the loss on the validation data at the end, the lower the better; for overfitting its rise from the lowest,
for a late oscillation the spread of the last training losses. A loss above that of a model that has learned nothing
counts as that one, and so does that of a run that diverged: how bad a failure is depends on chance. The improvement is
original − repair on the same seed.

- `helped`: the 95 % interval of the mean improvement (Student's, paired by seed) lies above 0, the mean is no less than
  a tenth of the original's (`MATTERS`), and the outcome of the runs' own diagnoses is of a better class (`CLASSES`) on
  more than half of the seeds and of a worse one on none.
  Overfitting is a matter of degree, and with few data stays one: there val/loss itself must improve in the same way,
  and the class must not be worse on any seed.
- `did not help`: not so, and the improvement is less than that tenth: its interval lies below, or the improvement on
  every seed does. So is a worse outcome on more than half of the seeds.
- `undecided`: everything else, and whatever comes of an original that is trained on every seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from optexp.statistics import Interval, t_interval
from optexp.verification.ends import LOSS, RISE, UNBOUNDED_LOSS, End, Quantity

Verdict = Literal["helped", "did not help", "undecided"]

LEVEL = 0.95

MATTERS = 0.1
"""The smallest improvement that is one, as a share of the original's mean."""

CLASSES: Mapping[str, int] = {"diverged": 0, "stalled": 1, "unstable": 2, "overfit": 2, "slow": 2, "trained": 3}
"""Outcomes, the higher the better; equal ones cannot be told apart as better and worse."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one repair with its reason in words, and the mean improvement, None without one."""

    verdict: Verdict
    reason: str
    quantity: Quantity
    improvement: Interval | None = None


def judge(before: Sequence[End], after: Sequence[End], quantity: Quantity = LOSS) -> Judgement:
    """Judge the members of a repair against those of the original on the same seeds."""
    pairs = _pairs(before, after, quantity)
    if len(pairs) < 2:
        return Judgement("undecided", _too_few(len(pairs), before, after, quantity), quantity)
    gains = _improvements(pairs, quantity)
    interval = t_interval(gains, LEVEL)
    steps = [CLASSES[other.outcome] - CLASSES[one.outcome] for one, other in pairs]
    least = MATTERS * fmean(quantity.of(one) or 0.0 for one, _ in pairs)
    outcomes = " or ".join(sorted({other.outcome for _, other in pairs}))

    def judged(verdict: Verdict, reason: str) -> Judgement:
        return Judgement(verdict, reason, quantity, interval)

    if all(one.outcome == "trained" for one, _ in pairs):
        return judged("undecided", "the original itself is trained on every seed: there is nothing to repair")
    if sum(step < 0 for step in steps) > len(steps) / 2:
        return judged("did not help", f"the outcome is worse: {outcomes}")
    if interval.low > 0 and interval.estimate >= least and min(steps) >= 0:
        if sum(step > 0 for step in steps) > len(steps) / 2:
            return judged("helped", f"{quantity.name} is lower, and the outcome better on {_share(steps)} seeds")
        if quantity is RISE and t_interval(_improvements(pairs, UNBOUNDED_LOSS), LEVEL).low > 0:
            return judged("helped", f"{quantity.name} and val/loss itself are lower")
    if interval.high < least or max(gains) < least:
        worse = interval.high < 0 or max(gains) < 0
        return judged("did not help", f"{quantity.name} is {'higher' if worse else 'hardly lower'}")
    if interval.low > 0:
        small = " by less than a tenth" if interval.estimate < least else ""
        return judged("undecided", f"{quantity.name} is lower{small}, but the outcome is {outcomes}")
    return judged("undecided", f"{quantity.name} differs too much from seed to seed; more seeds may tell")


def _pairs(before: Sequence[End], after: Sequence[End], quantity: Quantity) -> list[tuple[End, End]]:
    """Return original and repair of the seeds on which both have come to something."""
    others = {end.seed: end for end in after}
    pairs = [(one, others[one.seed]) for one in before]
    return [pair for pair in pairs if all(quantity.of(end) is not None and end.outcome in CLASSES for end in pair)]


def _improvements(pairs: Sequence[tuple[End, End]], quantity: Quantity) -> list[float]:
    values = [(quantity.of(one), quantity.of(other)) for one, other in pairs]
    return [was - now for was, now in values if was is not None and now is not None]


def _share(steps: Sequence[int]) -> str:
    better = sum(step > 0 for step in steps)
    return f"all {len(steps)}" if better == len(steps) else f"{better} of {len(steps)}"


def _too_few(number: int, before: Sequence[End], after: Sequence[End], quantity: Quantity) -> str:
    reasons = {f"{end.status}: {end.reason}" for end in (*before, *after) if quantity.of(end) is None}
    why = f" ({'; '.join(sorted(reasons))})" if reasons else ""
    return f"{number} of {len(before)} seeds have the {quantity.name} of both{why}; it takes two"
