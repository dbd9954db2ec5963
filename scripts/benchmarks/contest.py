"""How contestants are compared: alternating repeats, and ratios of what ran next to each other.

A machine is never quite idle and its clock speed drifts, so absolute times of different minutes do not compare. Every
repeat therefore runs all contestants one after another, each repeat beginning with another one, and a ratio is formed
within a repeat. Reported are the median of the ratios and their quartiles: half of the repeats lie between them.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much of a contest to run: `steps` replaces its own number of steps; `quick` takes a small edition of it."""

    steps: int | None = None
    quick: bool = False


@dataclass(frozen=True)
class Cost:
    """What one run cost in the contest's unit, and what else was seen of it, by name: {"peak MB": 634.0}."""

    value: float
    also: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """A name, and a function that runs once and returns its cost (less is better)."""

    name: str
    run: Callable[[], Cost]


@dataclass(frozen=True)
class Contest:
    """One question. The first contestant is optexp, or the setting that the others are compared with."""

    name: str
    unit: str
    contestants: Sequence[Contestant]
    goals: Mapping[str, float] = field(default_factory=dict)  # contestant: smallest ratio to the first that is wanted
    limit: float | None = None  # largest cost of the first contestant that is wanted, in `unit`
    check: Callable[[], float] | None = None  # raises unless all compute the same; returns the largest difference
    verify: Callable[[], Mapping[str, float]] | None = None  # the same after the first repeat, from what it left behind
    repeats: int = 7
    notes: Sequence[str] = ()  # what a reader of the table must know: who could not take part


@dataclass(frozen=True)
class Outcome:
    """The costs of every contestant, one per repeat, and the largest relative differences of what they computed."""

    contest: Contest
    costs: Mapping[str, Sequence[Cost]]
    differences: Mapping[str, float]

    def values(self, name: str) -> list[float]:
        """Return the cost of a contestant in every repeat."""
        return [cost.value for cost in self.costs[name]]

    def cost(self, name: str) -> float:
        """Return the median cost of a contestant."""
        return statistics.median(self.values(name))

    def ratios(self, name: str) -> list[float]:
        """Return cost of `name` / cost of the first contestant for every repeat: above 1 where the first is better."""
        ours = self.values(self.contest.contestants[0].name)
        return [theirs / own for theirs, own in zip(self.values(name), ours, strict=True)]

    def also(self, name: str) -> dict[str, float]:
        """Return the medians of what else was seen of a contestant."""
        seen = self.costs[name]
        return {key: statistics.median(cost.also[key] for cost in seen) for key in seen[0].also}

    def goal(self, name: str) -> tuple[str, bool] | None:
        """Return the goal about a contestant in words and whether it is met; None without one."""
        contest = self.contest
        if name in contest.goals:
            wanted = contest.goals[name]
            return f"≥ {wanted:.2f}", statistics.median(self.ratios(name)) >= wanted
        if contest.limit is not None and name == contest.contestants[0].name:
            return f"≤ {contest.limit:g} {contest.unit}", self.cost(name) <= contest.limit
        return None

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured and what follows from it."""
        contestants = {}
        for contestant in self.contest.contestants:
            name = contestant.name
            goal = self.goal(name)
            contestants[name] = {
                "costs": self.values(name),
                "median": self.cost(name),
                "ratio": dict(
                    zip(("lower_quartile", "median", "upper_quartile"), quartiles(self.ratios(name)), strict=True)
                ),
                "goal": goal and goal[0],
                "met": goal and goal[1],
                "also": [dict(cost.also) for cost in self.costs[name]],
            }
        return {
            "name": self.contest.name,
            "unit": self.contest.unit,
            "largest_relative_differences": dict(self.differences),
            "contestants": contestants,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile (of a single value: that value)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, middle, upper


def hold(contest: Contest, repeats: int, progress: Progress) -> Outcome:
    """Check that the contestants compute the same, then measure them alternately.

    Raises AssertionError when they do not compute the same.
    """
    differences: dict[str, float] = {}
    if contest.check is not None:
        progress(f"{contest.name}: check")
        differences["first steps"] = contest.check()
    order = list(contest.contestants)
    costs: dict[str, list[Cost]] = {contestant.name: [] for contestant in order}
    for repeat in range(repeats):
        first = repeat % len(order)
        for contestant in order[first:] + order[:first]:
            progress(f"{contest.name}: repeat {repeat + 1} of {repeats}, {contestant.name}")
            gc.collect()
            costs[contestant.name].append(contestant.run())
        if repeat == 0 and contest.verify is not None:
            differences.update(contest.verify())
    return Outcome(contest, costs, differences)


def table(outcomes: Iterable[Outcome]) -> str:
    """Return all outcomes as a Markdown table, one row per contestant."""
    rows = [["contest", "contestant", "median", "ratio to first", "middle half", "goal", "also"]]
    for outcome in outcomes:
        contest = outcome.contest
        for index, contestant in enumerate(contest.contestants):
            name = contestant.name
            lower, ratio, upper = quartiles(outcome.ratios(name))
            goal = outcome.goal(name)
            rows.append(
                [
                    "" if index else contest.name,
                    name,
                    f"{outcome.cost(name):.4g} {contest.unit}",
                    f"{ratio:.2f}" if index else "",
                    f"{lower:.2f} to {upper:.2f}" if index else "",
                    f"{goal[0]} {'met' if goal[1] else 'missed'}" if goal else "",
                    ", ".join(f"{key} {value:.4g}" for key, value in outcome.also(name).items()),
                ]
            )
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in zip(*columns, strict=True)]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def remarks(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the lines that belong below a table: how equal the results were, and who could not take part."""
    lines: list[str] = []
    for outcome in outcomes:
        if outcome.differences:
            parts = ", ".join(f"{what} {difference:.0e}" for what, difference in outcome.differences.items())
            lines.append(f"{outcome.contest.name}: largest relative difference of losses: {parts}")
    return list(dict.fromkeys([*lines, *(note for outcome in outcomes for note in outcome.contest.notes)]))
