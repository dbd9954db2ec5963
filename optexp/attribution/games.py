"""Shapley values and interactions of a game whose players are the keys that were changed.

A game gives every combination of keys, 1 for taken from the working side, an array of values, one per seed [S].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from optexp.statistics import combinations

Combination = tuple[int, ...]
Values = NDArray[np.float64]
Game = Mapping[Combination, Values]


def with_key(combination: Combination, key: int, level: int = 1) -> Combination:
    """Return a combination with one key at the given level."""
    return (*combination[:key], level, *combination[key + 1 :])


def alone(keys: int, key: int) -> Combination:
    """Return the combination in which one key alone is changed."""
    return with_key((0,) * keys, key)


def all_but(keys: int, key: int) -> Combination:
    """Return the combination in which all keys but one are changed."""
    return with_key((1,) * keys, key, 0)


def shapley(game: Game) -> Values:
    """Return each key's Shapley value on each seed [k, S]; over the keys they add up to v(all) − v(none).

    φ_i = Σ over S without i of |S|! (k − |S| − 1)! / k! · [v(S + i) − v(S)] (Shapley 1953): what i adds, averaged over
    all orders in which the keys can be changed. Needs all 2^k combinations.
    """
    keys = len(next(iter(game)))
    found = []
    for key in range(keys):
        terms = []
        for before in combinations(keys):
            if not before[key]:
                size = sum(before)
                weight = math.factorial(size) * math.factorial(keys - size - 1) / math.factorial(keys)
                terms.append(weight * (game[with_key(before, key)] - game[before]))
        found.append(np.sum(terms, axis=0))
    return np.array(found)


def interactions(game: Game) -> dict[tuple[int, int], Values]:
    """Return the Shapley interaction of each pair of keys on each seed [S], by the places of the two.

    I_ij = Σ over S without i and j of |S|! (k − |S| − 2)! / (k − 1)! · [v(S + ij) − v(S + i) − v(S + j) + v(S)]
    (Grabisch and Roubens 1999). Below zero the two stand in for each other, above zero they need each other.
    """
    keys = len(next(iter(game)))
    found = {}
    for one, other in itertools.combinations(range(keys), 2):
        terms = []
        for before in combinations(keys):
            if not before[one] and not before[other]:
                size = sum(before)
                weight = math.factorial(size) * math.factorial(keys - size - 2) / math.factorial(keys - 1)
                with_one, with_other = with_key(before, one), with_key(before, other)
                both = with_key(with_one, other)
                terms.append(weight * (game[both] - game[with_one] - game[with_other] + game[before]))
        found[one, other] = np.sum(terms, axis=0)
    return found


def along(game: Game, order: Sequence[int]) -> Values:
    """Return what each key adds when the keys are changed in one order [k, S]."""
    added = np.zeros((len(order), *next(iter(game.values())).shape))
    before = (0,) * len(order)
    for key in order:
        after = with_key(before, key)
        added[key] = game[after] - game[before]
        before = after
    return added
