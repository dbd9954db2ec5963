"""What repairs, what is necessary and sufficient, and minimal sets, on lattices made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from optexp.attribution.games import Combination
from optexp.attribution.repairs import Repairs, judge, minimal_sets, necessary, sufficient
from optexp.statistics import shared_level, t_interval

NOISE = np.array([-0.01, 0.01, 0.02, -0.02, 0.0, 0.01, -0.01, 0.0])


def lattice(keys: int, *repairing: Combination, undecided: tuple[Combination, ...] = ()) -> dict[Combination, Repairs]:
    """Return verdicts: the named combinations repair, with nothing said about those that contain them."""
    found: dict[Combination, Repairs] = {}
    for each in np.ndindex(*(2,) * keys):
        found[each] = "repairs" if each in repairing else "undecided" if each in undecided else "does not"
    found[(1,) * keys] = "repairs"
    return found


def test_recovering_more_or_less_than_nine_tenths_is_told_and_a_touching_interval_is_undecided() -> None:
    whole = 2.0 + NOISE
    game = {(0, 0): 0 * whole, (1, 0): 0.97 * whole + NOISE, (0, 1): 0.9 * whole + NOISE, (1, 1): whole}
    judged = judge(game, 0.9)
    assert judged == {(0, 0): "does not", (1, 0): "repairs", (0, 1): "undecided", (1, 1): "repairs"}
    assert judge(game, 0.98) == {(0, 0): "does not", (1, 0): "does not", (0, 1): "does not", (1, 1): "repairs"}


def test_all_intervals_of_a_lattice_hold_together() -> None:
    """A recovery whose own 95 % interval lies above and whose shared one does not is undecided."""
    whole = np.full(8, 1.0)
    beyond = 0.024 + np.array([-0.05, 0.03, 0.02, -0.02, 0.01, 0.02, -0.015, 0.005])
    assert t_interval(list(beyond), 0.95).low > 0 > t_interval(list(beyond), shared_level(6, 0.95)).low
    judged = judge(dict.fromkeys(np.ndindex(2, 2, 2), 0.9 + beyond) | {(1, 1, 1): whole, (0, 0, 0): 0 * whole}, 0.9)
    assert judged[1, 0, 0] == "undecided"
    assert judge({(0,): 0 * whole, (1,): whole}, 0.9) == {(0,): "does not", (1,): "repairs"}


def test_one_key_that_does_it_all() -> None:
    """lr alone repairs, so do all sets with it: it is necessary and sufficient, and the others are neither."""
    with_lr = [each for each in np.ndindex(2, 2, 2) if each[0]]
    judged = lattice(3, *with_lr)
    assert [necessary(judged, key) for key in range(3)] == [True, False, False]
    assert [sufficient(judged, key) for key in range(3)] == [True, False, False]
    assert [(found.combination, found.doubts) for found in minimal_sets(judged)] == [((1, 0, 0), ())]


def test_two_ways_out() -> None:
    """Either lr and dampening, or clipping: nothing is necessary."""
    repairing = [each for each in np.ndindex(2, 2, 2) if each[2] or (each[0] and each[1])]
    judged = lattice(3, *repairing)
    assert [necessary(judged, key) for key in range(3)] == [False, False, False]
    assert [sufficient(judged, key) for key in range(3)] == [False, False, True]
    assert [found.combination for found in minimal_sets(judged)] == [(0, 0, 1), (1, 1, 0)]


def test_all_keys_are_needed() -> None:
    judged = lattice(3)
    assert [necessary(judged, key) for key in range(3)] == [True] * 3
    assert [found.combination for found in minimal_sets(judged)] == [(1, 1, 1)]


def test_a_change_may_undo_what_another_has_done() -> None:
    """{a} repairs, {a, b} does not, {a, b, c} does again: only {a} is minimal."""
    judged = lattice(3, (1, 0, 0))
    assert judged[1, 1, 0] == "does not"
    assert [found.combination for found in minimal_sets(judged)] == [(1, 0, 0)]


def test_doubts_are_told() -> None:
    judged = lattice(2, undecided=((1, 0),))
    assert (necessary(judged, 1), sufficient(judged, 0)) == (None, None)
    assert (necessary(judged, 0), sufficient(judged, 1)) == (True, False)
    [found] = minimal_sets(judged)
    assert (found.combination, found.doubts) == ((1, 1), ((1, 0),))


def test_parts_that_were_not_trained_are_doubts() -> None:
    judged = lattice(3)
    del judged[1, 1, 0]
    [found] = minimal_sets(judged)
    assert found.doubts == ((1, 1, 0),)
    with pytest.raises(KeyError):
        necessary(judged, 2)
