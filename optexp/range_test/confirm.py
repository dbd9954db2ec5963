"""Whether a suggestion holds: short trainings at it and at a third and three times of it, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optexp.assemble import Training, evaluation_batch
from optexp.datasets.batches import EvalBatches
from optexp.range_test.members import Program, train_copies
from optexp.report.grouping import Mean, mean_of

FACTOR = 3.0


@dataclass(frozen=True)
class Trial:
    """One learning rate beside the suggestion.

    `losses` are validation losses, one per seed, infinite where a run diverged. `excess` is by how much those of the
    suggestion are higher, with the 95 % t interval over the seeds on which both are finite (None: there are none).
    """

    lr: float
    losses: list[float]
    excess: Mean | None
    better: bool

    @property
    def diverged(self) -> int:
        return sum(not math.isfinite(loss) for loss in self.losses)


@dataclass(frozen=True)
class Confirmation:
    """What short trainings said. It held when the suggestion diverged nowhere and no other rate was better."""

    lr: float
    losses: list[float]
    others: list[Trial]

    @property
    def diverged(self) -> int:
        return sum(not math.isfinite(loss) for loss in self.losses)

    @property
    def held(self) -> bool:
        return not self.diverged and not any(trial.better for trial in self.others)


def confirm(run: Training, lr: float, seeds: Sequence[int], steps: int, fused: bool | None = None) -> Confirmation:
    """Train fresh copies at `lr`, at a third and at three times of it, and compare validation losses seed by seed."""
    rates = [lr / FACTOR, lr, FACTOR * lr]
    found = train_at(run, rates, seeds, steps, fused=fused)
    low, own, high = ([values["loss"] for values in of_rate] for of_rate in found)
    return Confirmation(lr, own, [_trial(rates[0], low, own), _trial(rates[2], high, own)])


def _trial(lr: float, losses: list[float], own: list[float]) -> Trial:
    """Another rate is better when the whole interval says so; one that diverges on any seed never is."""
    pairs = [(mine, other) for mine, other in zip(own, losses, strict=True) if math.isfinite(mine + other)]
    excess = mean_of([mine - other for mine, other in pairs]) if pairs else None
    all_finite = all(map(math.isfinite, losses))
    return Trial(lr, losses, excess, all_finite and excess is not None and excess.low is not None and excess.low > 0)


def train_at(
    run: Training,
    rates: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    on_test: bool = False,
    fused: bool | None = None,
) -> list[list[dict[str, float]]]:
    """Train fresh copies at each constant learning rate, on the same seeds, and evaluate each at its end.

    Returns loss (infinite where a copy diverged) and accuracy for each rate and seed, on the validation or test split.
    """
    split = run.dataset.test if on_test else run.dataset.val
    batches = EvalBatches(run.dataset, split, run.device, evaluation_batch(run.dataset, run.plan.samples_per_step))
    pairs = [(rate, seed) for rate in rates for seed in seeds]

    def work(program: Program, members: Sequence[int]) -> list[dict[str, float]]:
        return _trained(program, [pairs[member][0] for member in members], steps, batches)

    found, _ = train_copies(run, [seed for _, seed in pairs], work, fused)
    return [found[start : start + len(seeds)] for start in range(0, len(found), len(seeds))]


def _trained(program: Program, rates: Sequence[float], steps: int, batches: EvalBatches) -> list[dict[str, float]]:
    found: list[dict[str, float]] = [{"loss": math.inf} for _ in rates]
    live = list(range(len(rates)))
    for step in range(steps):
        diverged = program.step(step, [rates[member] for member in live])
        if not diverged:
            continue
        going_on = [place for place in range(len(live)) if place not in diverged]
        if not going_on:
            return found
        program.keep(going_on)
        live = [live[place] for place in going_on]
    program.read(range(len(live))).rows()  # where the host does not look at each step: enters what diverged meanwhile
    for place, values in enumerate(program.evaluate(batches)):
        if place not in program.divergences and math.isfinite(values["loss"]):
            found[live[place]] = values
    return found
