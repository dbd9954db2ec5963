"""Few keys: all combinations. Many: orders and their reverses, which come to the exact values."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from made_up import game_of

from optexp.attribution.design import Design, design_for
from optexp.attribution.games import Combination, all_but, alone, shapley
from optexp.errors import BadInput


def test_few_keys_are_tried_in_all_combinations() -> None:
    for keys in range(1, 7):
        design = design_for(keys, 64, seed=0)
        assert design.is_full
        assert len(set(design.combinations)) == len(design.combinations) == 2**keys
    game = game_of(3, lambda each: each[0] * each[1] * each[2])
    assert design_for(3, 8, 0).estimates(game)[0] == pytest.approx(shapley(game))


@pytest.mark.parametrize("keys", [7, 9, 12])
def test_of_many_keys_each_alone_all_but_each_and_pairs_of_orders(keys: int) -> None:
    design = design_for(keys, 64, seed=3)
    tried = design.combinations
    assert len(set(tried)) == len(tried) <= 64
    assert len(design.orders) >= 2
    assert all(sorted(order) == list(range(keys)) for order in design.orders)
    assert {(0,) * keys, (1,) * keys, *(alone(keys, key) for key in range(keys))} <= set(tried)
    assert {all_but(keys, key) for key in range(keys)} <= set(tried)
    assert {tuple(1 - level for level in each) for each in tried} == set(tried), "an order's reverse passes the rest"
    assert design == design_for(keys, 64, seed=3)
    assert design.orders != design_for(keys, 64, seed=4).orders


def random_game(keys: int) -> dict[Combination, np.ndarray]:
    generator = np.random.default_rng(1)
    return {each: generator.normal(size=1) for each in np.ndindex(*(2,) * keys)}


def test_sampled_values_come_to_the_exact_ones_as_their_error_says() -> None:
    keys, game = 6, random_game(6)
    generator = random.Random(0)
    orders = [tuple(generator.sample(range(keys), keys)) for _ in range(3000)]
    found = Design(keys, list(game), orders).estimates(game)[:, :, 0]  # [pairs, k]
    errors = found.mean(axis=0) - shapley(game)[:, 0]
    expected = found.std(axis=0, ddof=1) / np.sqrt(len(orders))
    assert expected.max() < 0.02
    assert np.abs(errors / expected).max() < 3.5
    assert found.sum(axis=1) == pytest.approx(np.full(3000, float((game[(1,) * 6] - game[(0,) * 6])[0]))), "each pair"


def test_all_orders_together_are_exact() -> None:
    game = random_game(4)
    orders = list(itertools.permutations(range(4)))
    assert Design(4, list(game), orders).estimates(game).mean(axis=0) == pytest.approx(shapley(game))


def test_one_order_with_its_reverse_is_exact_where_keys_interact_in_pairs_only() -> None:
    """Of φ_i = a_i + ½ Σ b_ij the one order has the partners before i, its reverse those after it."""
    single = [3.0, -1.0, 0.5, 2.0, 0.0, 1.0, 7.0]
    pairs = {(0, 1): 4.0, (2, 5): -3.0, (0, 6): 1.0}

    def value(each: Combination) -> float:
        alone = sum(a * level for a, level in zip(single, each, strict=True))
        return alone + sum(b * each[one] * each[other] for (one, other), b in pairs.items())

    game = game_of(7, value)
    estimates = design_for(7, 64, seed=0).estimates(game)
    exact = [a + sum(b for pair, b in pairs.items() if key in pair) / 2 for key, a in enumerate(single)]
    assert estimates[:, :, 0] == pytest.approx(np.array([exact] * len(estimates)))


@pytest.mark.parametrize(("keys", "needed"), [(4, 14), (7, 32), (12, 62)])
def test_too_few_combinations_are_refused_with_the_number_that_is_enough(keys: int, needed: int) -> None:
    with pytest.raises(BadInput, match=rf"task.max_combinations=13: {keys} keys differ and need {needed} combinations"):
        design_for(keys, 13, 0)
    assert len(design_for(keys, needed, 0).orders) == 2
