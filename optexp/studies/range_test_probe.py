"""Claim C24 as probes: is the range test's advice as good as what a sweep of the same cost finds?

Both get the same number of training steps on the same data, each on seeds of its own, and both answers are judged on
further seeds and on the test split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from optexp.config.check import check
from optexp.config.compose import Composer
from optexp.errors import BadInput
from optexp.range_test.advice import advise
from optexp.range_test.confirm import train_at
from optexp.range_test.members import Training, seeds_for, template
from optexp.range_test.sweep import Sweep, run_curves

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0]
"""The grid of the sweep, the same for every optimizer; wide enough that none is favoured by its customary rate."""

TUNING_SEEDS = 2
"""Of the sweep. The smallest mean validation loss wins, as in every study."""

SEEDS = 8

_Words = tuple[str, ...]


@dataclass(frozen=True)
class Tuned:
    """What the same number of training steps found in two ways, and the seeds on which that is judged."""

    run: Training
    by_sweep: float
    steepest: float


def regret_of_range_test(words: Sequence[str], share: float, steps: int = 200, seed: int = 0) -> list[float]:
    """Return for each of 8 seeds by how much `share` × the steepest point falls behind the sweep's rate, in accuracy.

    `words` compose the run, trained `steps` steps at a constant learning rate and judged on the test split. The sweep
    trains each of `RATES` on two seeds; the range test has the standard 1000 steps from 1e-7 to 10, on as many seeds as
    make the same number of steps. A run that diverges counts as one that guesses. All of them are other seeds for
    another `seed`. Raises BadInput where `steps` makes no whole number of seeds, and where the loss never falls.
    """
    tuned = _tuned(tuple(words), steps, seed)
    by_sweep, advised = (
        _accuracies(tuple(words), rate, steps, seed) for rate in (tuned.by_sweep, share * tuned.steepest)
    )
    return [best - own for best, own in zip(by_sweep, advised, strict=True)]


def shift_of_steepest(words: Sequence[str], few: int = 100, many: int = 1000, seed: int = 0) -> list[float]:
    """Return for each of 8 seeds log10(steepest point of a test of `few` steps / that of one of `many` steps).

    Raises BadInput where the loss does not fall on all of them.
    """
    run = _run(tuple(words))
    points = []
    for steps in (few, many):
        sweep = Sweep(num_iter=steps)
        curves, _ = run_curves(run, sweep, seeds_for(seed, "range test", SEEDS))
        found = [one.rates.get("steepest") for one in advise(curves, sweep).seeds]
        points.append([rate for rate in found if rate is not None])
    if min(map(len, points)) < SEEDS:
        raise BadInput(f"words={' '.join(words)}: the loss does not fall on every seed")
    return [math.log10(one / other) for one, other in zip(*points, strict=True)]


@cache
def _run(words: _Words) -> Training:
    composed = Composer().compose(words)
    return template(composed.config, check(composed.config, composed.choices), composed.choices)


@cache
def _tuned(words: _Words, steps: int, seed: int) -> Tuned:
    run = _run(words)
    found = train_at(run, RATES, seeds_for(seed, "sweep", TUNING_SEEDS), steps)
    losses = [fmean(values["loss"] for values in of_rate) for of_rate in found]
    sweep = Sweep()
    number, rest = divmod(len(RATES) * TUNING_SEEDS * steps, sweep.num_iter)
    if rest or not number:
        raise BadInput(f"steps={steps}: a sweep of {len(RATES) * TUNING_SEEDS} runs is no multiple of {sweep.num_iter}")
    curves, _ = run_curves(run, sweep, seeds_for(seed, "range test", number))
    advice = advise(curves, sweep)
    if "steepest" not in advice.means or not math.isfinite(min(losses)):
        raise BadInput(f"words={' '.join(words)}: the loss never falls")
    return Tuned(run, RATES[losses.index(min(losses))], advice.means["steepest"])


@cache
def _accuracies(words: _Words, rate: float, steps: int, seed: int) -> list[float]:
    """Return the test accuracy of each fresh seed at a learning rate."""
    run = _tuned(words, steps, seed).run
    (found,) = train_at(run, [rate], seeds_for(seed, "judged", SEEDS), steps, on_test=True)
    return [values.get("accuracy", 1 / run.dataset.num_outputs) for values in found]
