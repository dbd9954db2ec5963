"""Shapley values and interactions against closed forms, and against the mean over all orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from made_up import game_of

from optexp.attribution.games import Combination, all_but, alone, along, interactions, shapley

WEIGHTS = (2.0, -1.0, 0.5, 0.0)


def random_game(keys: int, seeds: int) -> dict[Combination, np.ndarray]:
    generator = np.random.default_rng(keys)
    return {each: generator.normal(size=seeds) for each in np.ndindex(*(2,) * keys)}


def test_of_an_additive_game_each_key_gets_its_own_weight_and_no_pair_anything() -> None:
    game = game_of(4, lambda each: sum(w * level for w, level in zip(WEIGHTS, each, strict=True)), seeds=2)
    assert shapley(game) == pytest.approx(np.array([[w, w] for w in WEIGHTS]), abs=1e-14)
    assert all(abs(values).max() < 1e-14 for values in interactions(game).values())


def test_a_pure_interaction_is_shared_equally_and_is_that_of_its_pair() -> None:
    game = game_of(3, lambda each: 6.0 * each[0] * each[2])
    assert shapley(game)[:, 0] == pytest.approx([3, 0, 3])
    assert {pair: values[0] for pair, values in interactions(game).items()} == pytest.approx(
        {(0, 1): 0, (0, 2): 6, (1, 2): 0}
    )


def test_in_a_symmetric_game_all_keys_are_alike() -> None:
    """v depends on the number of keys alone, n²: values of k, and interactions of 2, its second difference."""
    game = game_of(5, lambda each: sum(each) ** 2)
    assert shapley(game)[:, 0] == pytest.approx([5] * 5)
    assert [values[0] for values in interactions(game).values()] == pytest.approx([2] * 10)


def test_either_of_two_is_enough() -> None:
    """max(a, b): each gets half, and together they do less than apart."""
    game = game_of(2, lambda each: max(each))
    assert shapley(game)[:, 0] == pytest.approx([0.5, 0.5])
    assert interactions(game)[0, 1][0] == pytest.approx(-1)


@pytest.mark.parametrize("keys", [1, 2, 3, 5])
def test_shapley_values_are_the_mean_over_all_orders(keys: int) -> None:
    game = random_game(keys, 3)
    orders = [along(game, order) for order in itertools.permutations(range(keys))]
    assert shapley(game) == pytest.approx(np.mean(orders, axis=0), abs=1e-12)


@pytest.mark.parametrize("keys", [2, 3, 5])
def test_interactions_are_the_mean_over_all_orders_of_the_pair_as_one(keys: int) -> None:
    """The pair moves as one through all orders of the others; what it does beyond its parts is averaged."""
    game = random_game(keys, 2)
    for (one, other), values in interactions(game).items():
        terms = []
        rest = [key for key in range(keys) if key not in (one, other)]
        for order in itertools.permutations([*rest, "pair"]):
            before = set(order[: order.index("pair")])
            at = [
                tuple(int(key in before | more) for key in range(keys))
                for more in (set(), {one}, {other}, {one, other})
            ]
            terms.append(game[at[3]] - game[at[1]] - game[at[2]] + game[at[0]])
        assert len(terms) == math.factorial(keys - 1)
        assert values == pytest.approx(np.mean(terms, axis=0), abs=1e-12)


def test_over_the_keys_they_add_up_to_the_whole_on_every_seed() -> None:
    game = random_game(4, 6)
    assert shapley(game).sum(axis=0) == pytest.approx(game[1, 1, 1, 1] - game[0, 0, 0, 0])


def test_names_of_combinations() -> None:
    assert (alone(3, 1), all_but(3, 1)) == ((0, 1, 0), (1, 0, 1))
