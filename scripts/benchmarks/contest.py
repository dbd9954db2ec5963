"""How contestants are compared: alternating repeats in one process, and ratios of what ran next to each other.

A machine is never quite idle and its clock speed drifts, so absolute times of different minutes do not compare. Every
repeat therefore runs all contestants one after another, each repeat beginning with another one, and a ratio is formed
within a repeat. Reported are the median of the ratios and their quartiles: half of the repeats lie between them.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Contestant:
    """A name, and a function that runs once and returns its cost in the contest's unit (less is better)."""

    name: str
    run: Callable[[], float]


@dataclass(frozen=True)
class Contest:
    """One question. The first contestant is optexp; `counts` names the one that its goal is about."""

    name: str
    unit: str
    contestants: Sequence[Contestant]
    counts: str
    goal: float | None  # smallest ratio to `counts` that is wanted
    check: Callable[[], float] | None = None  # raises unless all compute the same; returns the largest difference


@dataclass(frozen=True)
class Outcome:
    """The costs of every contestant, one per repeat."""

    contest: Contest
    costs: dict[str, list[float]]
    difference: float | None

    def cost(self, name: str) -> float:
        """Return the median cost of a contestant."""
        return statistics.median(self.costs[name])

    def ratios(self, name: str) -> list[float]:
        """Return cost of `name` / cost of optexp for every repeat: above 1 where optexp is better."""
        ours = self.costs[self.contest.contestants[0].name]
        return [theirs / own for theirs, own in zip(self.costs[name], ours, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured and what follows from it."""
        contestants = {}
        for name, costs in self.costs.items():
            ratios = self.ratios(name)
            contestants[name] = {
                "costs": costs,
                "median": self.cost(name),
                "ratio": dict(zip(("lower_quartile", "median", "upper_quartile"), quartiles(ratios), strict=True)),
            }
        contest = self.contest
        return {
            "name": contest.name,
            "unit": contest.unit,
            "counts": contest.counts,
            "goal": contest.goal,
            "largest_relative_difference_of_losses": self.difference,
            "contestants": contestants,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile (of a single value: that value)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, middle, upper


def hold(contest: Contest, repeats: int, progress: Progress) -> Outcome:
    """Check that the contestants compute the same, then measure them alternately."""
    progress(f"{contest.name}: check")
    difference = contest.check() if contest.check else None
    order = list(contest.contestants)
    costs: dict[str, list[float]] = {contestant.name: [] for contestant in order}
    for repeat in range(repeats):
        first = repeat % len(order)
        for contestant in order[first:] + order[:first]:
            progress(f"{contest.name}: repeat {repeat + 1} of {repeats}, {contestant.name}")
            gc.collect()
            costs[contestant.name].append(contestant.run())
    return Outcome(contest, costs, difference)


def table(outcomes: Iterable[Outcome]) -> str:
    """Return all outcomes as a Markdown table, one row per contestant; the contestant that counts is marked with *."""
    rows = [("contest", "contestant", "median", "contestant / optexp", "middle half", "goal")]
    for outcome in outcomes:
        contest = outcome.contest
        for index, contestant in enumerate(contest.contestants):
            name = contestant.name
            lower, ratio, upper = quartiles(outcome.ratios(name))
            counts = name == contest.counts
            rows.append(
                (
                    "" if index else contest.name,
                    name + (" *" if counts else ""),
                    f"{outcome.cost(name):.4g} {contest.unit}",
                    f"{ratio:.2f}" if index else "",
                    f"{lower:.2f} to {upper:.2f}" if index else "",
                    f"≥ {contest.goal:.2f}" if counts and contest.goal else "",
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
