"""How a run ended, from its loss curves alone: trained, slow, stalled, diverged, unstable or overfit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, variance

from optexp.diagnosis.measures import Measures
from optexp.diagnosis.values import steps
from optexp.records.numbers import measured

OUTCOMES = {
    "trained": "the loss came down and stayed there",
    "slow": "the loss is still falling, far from where it could be",
    "stalled": "the loss does not fall any more, or hardly, far from where it could be",
    "diverged": "the loss grew beyond its start, or to no number at all",
    "unstable": "the loss jumps about, and is higher than it has been",
    "overfit": "the training loss fell, the validation loss rose or stayed far above it",
    "unknown": "there is nothing to judge by",
}

NOTHING_WRONG = ("trained", "unknown")
"""Those that leave nothing to explain."""

LEARNED, FAR = 0.12, 0.5
"""Loss at the end as a share of the reference: below the first a run has learned, beyond the second it has not.

Between them nobody can tell without knowing what is possible on these data: such a run counts as trained unless a cause
is found that explains why it has not come further.
"""

ENOUGH_STEPS = 40
"""Steps below which a run that has not learned need have no fault. It is the least way that weights must travel
(`account.LEAST_PATH`) in the largest steps that count (`measures.WHOLE_STEP`)."""

SWING = 0.2
"""Mean change of the validation loss from one evaluation to the next, in decades, that tells an unstable run: 1.6 times
more or less each time. Where all is well it is below 0.1, at a constant rate too."""


@dataclass(frozen=True)
class Outcome:
    """One of `OUTCOMES`, and the numbers that say so in one sentence.

    `doubt` is what a cause must outweigh, in the units of its score, before the run counts as failed. Where none does,
    it ended as `otherwise` says, unless that is None.
    """

    name: str
    summary: str
    doubt: float = 0.0
    otherwise: Outcome | None = None

    @property
    def failed(self) -> bool:
        return self.name not in NOTHING_WRONG


def outcome(measures: Measures) -> Outcome:
    """Return how the run ended, as far as its curves tell."""
    return (
        _unknown(measures)
        or _diverged(measures)
        or _overfit(measures)
        or _unstable(measures)
        or _unfinished(measures)
        or trained(measures)
    )


def trained(measures: Measures) -> Outcome:
    """Return the outcome of a run that nothing is wrong with."""
    return Outcome("trained", f"The loss came down: {_course(measures)}.")


def _course(measures: Measures) -> str:
    """Return the way of the losses in numbers."""
    train, val, parts = measures.train, measures.val, []
    if train.first is not None:
        end = measured(measures.loss_end)
        change = f"{measured(train.first)} → {end}{'' if end == measured(train.last) else ' (mean of the last rows)'}"
        parts.append(f"train/loss {change} in {steps(measures.steps)}")
    if val.last is not None:
        parts.append(f"val/loss {measured(val.last)}")
    accuracy = measures.curve("val/accuracy").last
    if accuracy is not None:
        parts.append(f"val/accuracy {measured(accuracy)}")
    return ", ".join(parts) or "no loss was recorded"


def _against(measures: Measures) -> str:
    baseline = measures.history.baseline
    return "" if baseline is None else f" (predicting without the inputs gives {measured(baseline)})"


def _late_slope(measures: Measures) -> str:
    """Return the slope of the training loss that tells whether it still falls, where there are rows enough for one."""
    late = measures.late_trend
    if late is None:
        return ""
    way = "rises" if late.slope > 0 else "falls"
    span = f"from step {int(late.start):,} to {int(late.end):,}"
    return f"; {span} train/loss {way} by {late.per_hundred_steps()} (± standard error)"


def _unknown(measures: Measures) -> Outcome | None:
    if measures.train.values or measures.history.status == "diverged" or measures.train.broken:
        return None
    why = f": {measures.history.reason}" if measures.history.reason else ""
    return Outcome("unknown", f"The run has logged no training loss{why}.")


def _diverged(measures: Measures) -> Outcome | None:
    train, reference, end = measures.train, measures.reference, measures.loss_end
    if measures.history.status == "diverged" or (train.broken and not train.values):
        step = measures.steps
        last = f"; the last finite train/loss was {measured(train.last)}" if train.last is not None else ""
        why = measures.history.reason or "the loss is not finite"
        return Outcome("diverged", f"Diverged at step {step:,}: {why}{last}.")
    if reference is None or end is None or train.first is None or len(train) < 2:
        return None
    start = max(reference, train.first)
    if end > 1.5 * start:
        return Outcome("diverged", f"The loss grew beyond its start: {_course(measures)}.")
    return None


def _overfit(measures: Measures) -> Outcome | None:
    """Validation far above training and not improving any more, or clearly risen from its best."""
    found = generalization(measures)
    if found is None or found.excess < 0:
        return None
    losses = f"The validation loss is {measured(found.last)}, the training loss {measured(found.train)}"
    if found.last == found.best:
        return Outcome("overfit", f"{losses}: far apart, though the former was never lower.")
    return Outcome("overfit", f"{losses}; the best was {measured(found.best)} at step {found.best_step:,}.")


@dataclass(frozen=True)
class Generalization:
    """Validation against training. `rise` and `gap` are shares of the reference loss.

    `rising` tells whether the validation loss has risen since its best beyond its scatter.
    """

    best: float
    best_step: int
    last: float
    train: float
    rise: float
    gap: float
    rising: bool

    @property
    def excess(self) -> float:
        """Positive where it is overfitting: a large rise, a large gap, or a fair amount of both; in decades."""
        rise, gap = math.log10(max(self.rise, 1e-9) / 0.1), math.log10(max(self.gap, 1e-9) / 0.25)
        wide = gap + math.log10(0.25 / 0.15)
        both = min(wide, 3 * math.log10(max(self.last / self.best, 1.0) / 1.15))
        return max(rise, gap, wide if self.rising else both)


def generalization(measures: Measures) -> Generalization | None:
    """Return validation against training, where both were measured at least three times and training went on falling.

    The last value of the validation loss is the lowest of the last three: a jump is no overfitting.
    """
    val, train, reference = measures.val, measures.loss_end, measures.reference
    if len(val) < 3 or train is None or not reference:
        return None
    pair = val.lowest()
    assert pair is not None
    best_step, best = pair
    last = min(val.values[-3:]) if len(val) > 3 else val.values[-1]
    at_best = measures.train.between(0, best_step).last or reference
    fell_on = train < max(0.9 * at_best, 0.01 * reference)
    rise, gap = (last - best) / reference, (last - train) / reference
    if not (fell_on or train < 0.1 * reference) or train > min(0.6 * last, FAR * reference):
        return None
    since = val.between(best_step, measures.steps).trend()
    rising = since is not None and since.significance > 3
    return Generalization(best, int(best_step), last, train, rise, gap, rising)


def jumps(measures: Measures) -> float | None:
    """Return how far the loss at the end is above its lowest, in decades: the larger of training and validation.

    The end is the last tenth of the run for training, less two standard errors of its distance from the lowest tenth
    (batches differ); for validation it is the median of the last three values. The lowest is that of the time before.
    None for short curves. Two hundredths of the reference are added to both, since nobody minds jumps from nothing to
    almost nothing.
    """
    found = []
    floor = 0.02 * (measures.reference or 0.0)
    parts = measures.tenth_rows
    if len(parts) >= 5:
        low = min(parts[:-1], key=fmean)
        chance = 2 * math.sqrt(sum(variance(part) / len(part) for part in (low, parts[-1]) if len(part) > 1))
        found.append(math.log10((max(fmean(parts[-1]) - chance, 0.0) + floor) / (fmean(low) + floor)))
    if len(measures.val) >= 5:
        values = measures.val.values
        found.append(math.log10((sorted(values[-3:])[1] + floor) / (min(values[:-3]) + floor)))
    return max(0.0, *found) if found else None


def swing(measures: Measures) -> float | None:
    """Return the mean change of the validation loss between evaluations of the second half, in decades; up counts too.

    None for fewer than six evaluations. Two hundredths of the reference are added, as in `jumps`.
    """
    late, floor = measures.val.between(measures.steps / 2, measures.steps).values, 0.02 * (measures.reference or 0.0)
    if len(measures.val) < 6 or len(late) < 3:
        return None
    return fmean(abs(math.log10((after + floor) / (before + floor))) for before, after in pairwise(late))


def _unstable(measures: Measures) -> Outcome | None:
    """The loss is clearly above its lowest, or validation swings between having learned and not."""
    level, restless, swings = measures.level, jumps(measures), swing(measures)
    late = measures.share(max(measures.val.between(measures.steps / 2, measures.steps).values, default=None))
    swinging = swings is not None and late is not None and swings > SWING and late > LEARNED
    jumping = restless is not None and restless >= 0.12 and (measures.distance or 0) > LEARNED
    if level is None or not (swinging or jumping) or not (measures.distance or 0) < 0.9:
        return None
    low = measures.val.lowest() or measures.train.lowest()
    assert low is not None
    name = "val/loss" if len(measures.val) else "train/loss"
    return Outcome(
        "unstable", f"The loss jumps about: {name} was {measured(low[1])} at step {int(low[0]):,}, {_course(measures)}."
    )


def _unfinished(measures: Measures) -> Outcome | None:
    """Slow or stalled: the loss is not down, and still falls or does not."""
    distance, late = measures.distance, measures.late_trend
    if distance is None or distance <= LEARNED:
        return None
    doubt = 0.5 * max(0.0, math.log10(FAR / distance))
    otherwise = trained(measures) if doubt > 0 else None
    if measures.steps < ENOUGH_STEPS:
        doubt += math.log10(ENOUGH_STEPS / max(measures.steps, 1))
        otherwise = Outcome("unknown", f"Too short to judge: {_course(measures)}.")
    where, slope = f"{_course(measures)}{_against(measures)}", _late_slope(measures)
    if late is not None and late.significance < -3 and expected_fall(measures) > 0.05:
        if otherwise is None and measures.val.last == min(measures.val.values, default=None):  # validation falls, too
            otherwise = Outcome(
                "slow", f"The loss was still falling, and more steps would bring it down: {where}{slope}."
            )
        return Outcome("slow", f"The loss was still falling: {where}{slope}.", doubt, otherwise)
    if (measures.level or 0) > 0.9:
        return Outcome("stalled", f"{_standstill(measures)}: {where}.", doubt, otherwise)
    if distance > 0.9:
        return Outcome("stalled", f"The validation loss shows nothing learned: {where}.", doubt, otherwise)
    if late is None and len(measures.train.between(measures.active[1], measures.steps)) <= 1:
        few = Outcome("unknown", f"Too few rows were logged to tell whether the loss still falls: {where}.")
        return Outcome("stalled", f"The loss has not come down: {where}.", doubt, otherwise or few)
    return Outcome("stalled", f"The loss hardly falls any more: {where}{slope}.", doubt, otherwise)


def _standstill(measures: Measures) -> str:
    """Return what became of a training loss that ended near that of knowing nothing."""
    first, end, reference = measures.train.first, measures.loss_end, measures.reference
    if first is None or end is None or reference is None or end >= first:
        return "The loss did not fall"
    if first - end > 0.1 * reference:  # it began far above
        return "The loss fell to about that of predicting without the inputs, and no further"
    return "The loss hardly fell"


def expected_fall(measures: Measures) -> float:
    """Return by which share of the reference the loss would fall in as many steps again, at its late slope."""
    late = measures.late_trend
    return -late.slope * measures.active[1] / measures.reference if late and measures.reference else 0.0
