"""Which combinations of changes repair, by a rule that is fixed before anything is trained, and what follows from it.

A combination repairs when it recovers at least the part `recovery` of the way from failing to working: when the mean
over seeds of v(S) − recovery · v(all) is above 0, v being the improvement over the failing side on the same seed.
Intervals are Student's, and all of them hold together with probability 0.95 (Bonferroni): what is said about the sets
is one statement. Where an interval lies across, the verdict is `undecided`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from optexp.attribution.games import Combination, Game, all_but, alone
from optexp.attribution.intervals import LEVEL
from optexp.statistics import shared_level, t_interval, verdict

Repairs = Literal["repairs", "does not", "undecided"]
Judged = Mapping[Combination, Repairs]

_WORDS: dict[str, Repairs] = {"supported": "repairs", "refuted": "does not", "inconclusive": "undecided"}


@dataclass(frozen=True)
class MinimalSet:
    """A combination that repairs while none of its parts was found to.

    `doubts` are its parts that are undecided or were not trained: one of them might repair, too.
    """

    combination: Combination
    doubts: tuple[Combination, ...]


def judge(game: Game, recovery: float) -> dict[Combination, Repairs]:
    """Judge the combinations of a game of improvements over the failing side [S]; the two sides are given.

    The working side repairs by definition and the failing one does not.
    """
    keys = len(next(iter(game)))
    nothing, everything = (0,) * keys, (1,) * keys
    level = shared_level(max(len(game) - 2, 1), LEVEL)
    judged: dict[Combination, Repairs] = {}
    for combination, values in game.items():
        beyond = [float(value) for value in values - recovery * game[everything]]
        judged[combination] = _WORDS[verdict(t_interval(beyond, level), 0.0, "above")]
    judged[nothing], judged[everything] = "does not", "repairs"
    return judged


def necessary(judged: Judged, key: int) -> bool | None:
    """Return whether the working side without this key's change no longer works; None where that is undecided."""
    return {"repairs": False, "does not": True, "undecided": None}[judged[all_but(_keys(judged), key)]]


def sufficient(judged: Judged, key: int) -> bool | None:
    """Return whether this key's change alone repairs; None where that is undecided."""
    return {"repairs": True, "does not": False, "undecided": None}[judged[alone(_keys(judged), key)]]


def minimal_sets(judged: Judged) -> list[MinimalSet]:
    """Return all combinations that repair and of which no part does, those of few keys first.

    More changes may undo what fewer have done, so every part counts and not only those with one key less.
    """
    found = []
    for combination in sorted(judged, key=lambda each: (sum(each), [-level for level in each])):
        if judged[combination] == "repairs":
            parts = _parts(combination)
            if not any(judged.get(part) == "repairs" for part in parts):
                doubts = tuple(part for part in parts if judged.get(part) != "does not")
                found.append(MinimalSet(combination, doubts))
    return found


def _parts(combination: Combination) -> list[Combination]:
    """Return the proper parts of a combination, the empty one included."""
    parts: list[Combination] = [()]
    for level in combination:
        parts = [(*part, own) for part in parts for own in range(level + 1)]
    return [part for part in parts if part != combination]


def _keys(judged: Judged) -> int:
    return len(next(iter(judged)))
