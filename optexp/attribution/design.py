"""Which combinations of changes are trained: all of them, or, of many keys, those that pairs of orders pass through.

A Shapley value is the mean over all orders of what a key adds to those before it, so a sample of orders estimates it
without bias (Castro, Gómez and Tejada 2009). Each random order comes with its reverse, whose error tends to the other
side (antithetic sampling; Mitchell, Cooper, Frank and Holmes 2022): where keys interact in pairs only, one order with
its reverse is exact. Every key alone and all keys but one are always
trained: they say what is sufficient and what is necessary, and they are the ends of every order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from optexp.attribution.games import Combination, Game, Values, all_but, alone, along, shapley, with_key
from optexp.errors import BadInput
from optexp.statistics import combinations

FEWEST_PAIRS = 2
"""Of orders: a single pair says nothing about the error of its estimate."""


@dataclass(frozen=True)
class Design:
    """Combinations to be trained. `orders` are the random ones of a sampled design, each without its reverse."""

    keys: int
    combinations: list[Combination]
    orders: list[tuple[int, ...]]

    @property
    def is_full(self) -> bool:
        """Whether all combinations are trained."""
        return not self.orders

    def estimates(self, game: Game) -> Values:
        """Return the Shapley values from each pair of orders [pairs, k, S]; of a full design the exact ones [1, k, S].

        Their mean over pairs is the estimate; over the keys each pair's add up to v(all) − v(none).
        """
        if self.is_full:
            return shapley(game)[None]
        return np.array([(along(game, order) + along(game, order[::-1])) / 2 for order in self.orders])


def design_for(keys: int, most: int, seed: int) -> Design:
    """Return the design for so many keys with at most so many combinations; the same seed gives the same.

    The number of orders is fixed by the combinations that each pair may need, and not by those that it turns out to
    need: stopping at a pair that does not fit would prefer the others. Raises BadInput when fewer than two pairs fit.
    """
    if 2**keys <= most:
        return Design(keys, combinations(keys), [])
    ends = list(dict.fromkeys(_ends(keys)))
    each = 2 * (keys - 3)  # sizes 2 to k − 2, of an order and of its reverse; of three keys or fewer the ends are all
    pairs = (most - len(ends)) // each if each > 0 else 0
    if pairs < FEWEST_PAIRS:
        needed = min(2**keys, len(ends) + FEWEST_PAIRS * max(each, 0))
        raise BadInput(f"task.max_combinations={most}: {keys} keys differ and need {needed} combinations at least")
    generator = random.Random(seed)
    orders = [tuple(generator.sample(range(keys), keys)) for _ in range(pairs)]
    passed = [each for order in orders for way in (order, order[::-1]) for each in _passed(way)]
    return Design(keys, list(dict.fromkeys([*ends, *passed])), orders)


def _ends(keys: int) -> Iterator[Combination]:
    yield (0,) * keys
    yield from (alone(keys, key) for key in range(keys))
    yield from (all_but(keys, key) for key in range(keys))
    yield (1,) * keys


def _passed(order: Sequence[int]) -> Iterator[Combination]:
    combination = (0,) * len(order)
    for key in order:
        combination = with_key(combination, key)
        yield combination
