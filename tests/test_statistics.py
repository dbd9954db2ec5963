"""Against scipy's paired t test, closed forms, least squares, and simulated studies whose truth is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
import pytest
import scipy.stats

from optexp import statistics
from optexp.errors import BadInput
from optexp.statistics import (
    Interval,
    bootstrap_interval,
    combinations,
    factorial_effect,
    factorial_effects,
    shared_level,
    t_interval,
    verdict,
)

Method = Callable[[Sequence[float], float], Interval]
Effects = Callable[[Mapping[tuple[int, ...], Sequence[float]]], dict[tuple[int, ...], list[float]]]
SEEDS = 8


def ends(interval: Interval) -> list[float]:
    return [interval.low, interval.estimate, interval.high]


# --- intervals against scipy


@pytest.mark.parametrize("level", [0.8, 0.95, 0.995])
@pytest.mark.parametrize("n", [2, 3, 8, 30])
def test_t_interval_is_that_of_the_paired_test(n: int, level: float) -> None:
    rng = numpy.random.default_rng(n)
    first, second = rng.normal(3, 2, n), rng.normal(1, 1, n)
    known = scipy.stats.ttest_rel(first, second).confidence_interval(level)
    interval = t_interval((first - second).tolist(), level)
    assert ends(interval) == pytest.approx([known.low, (first - second).mean(), known.high], rel=1e-12)
    assert (interval.level, interval.n, interval.method) == (level, n, "t")


def test_t_interval_by_hand() -> None:
    # mean 2, deviation 1, t(0.975, 2) = 4.302653: 2 ± 4.302653 / √3
    assert ends(t_interval([1, 2, 3], 0.95)) == pytest.approx([-0.484138, 2, 4.484138], abs=1e-6)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.995])
@pytest.mark.parametrize("n", [8, 20])
def test_bootstrap_interval_is_scipys(n: int, level: float) -> None:
    values = numpy.random.default_rng(n).exponential(size=n)
    known = scipy.stats.bootstrap(
        (values,), numpy.mean, confidence_level=level, method="BCa", random_state=numpy.random.default_rng(0)
    ).confidence_interval
    interval = bootstrap_interval(values.tolist(), level)
    # Sums of the same values in another order are rounded differently, and BCa counts the means below the estimate.
    slack = 0.005 * (known.high - known.low)
    assert ends(interval) == pytest.approx([known.low, values.mean(), known.high], rel=0, abs=slack)
    assert (interval.level, interval.n, interval.method) == (level, n, "bootstrap")


def test_bootstrap_repeats_itself_and_depends_on_its_seed_only_a_little() -> None:
    values = numpy.random.default_rng(3).normal(size=10).tolist()
    first, again, other = (bootstrap_interval(values, 0.95, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert ends(first) == pytest.approx(ends(other), abs=0.05)


@pytest.mark.parametrize("method", [t_interval, bootstrap_interval])
def test_equal_values_give_a_point(method: Method) -> None:
    interval = method([0.1] * 9, 0.95)
    assert ends(interval) == [0.1, 0.1, 0.1]  # not 0.1 plus a rounding error
    assert interval.n == 9


@pytest.mark.parametrize("method", [t_interval, bootstrap_interval])
def test_values_that_differ_by_rounding_alone(method: Method) -> None:
    values = [0.9 - 0.1] * 4 + [1.0 - 0.2, 0.7999999999999999] * 2
    assert len(set(values)) > 1
    assert ends(method(values, 0.95)) == pytest.approx([0.8] * 3, rel=1e-15)


@pytest.mark.parametrize("method", [t_interval, bootstrap_interval])
@pytest.mark.parametrize(("factor", "offset"), [(1e-200, 0.0), (1e200, 0.0), (1.0, 1e6), (-1.0, 0.0)])
def test_intervals_move_and_scale_with_their_values(method: Method, factor: float, offset: float) -> None:
    values = [0.5, 1.0, 1.5, 4.0, 2.0, 2.5, 0.25, 1.25]
    moved = method([offset + factor * value for value in values], 0.95)
    expected = sorted(offset + factor * end for end in ends(method(values, 0.95)))
    slack = 1e-9 if method is t_interval else 0.05  # rounding decides about ties among resampled means
    assert [(end - offset) / factor for end in ends(moved)] == pytest.approx(
        [(end - offset) / factor for end in expected], rel=slack
    )


@pytest.mark.parametrize("method", [t_interval, bootstrap_interval])
def test_one_value_apart_from_the_others_gives_finite_ends(method: Method) -> None:
    low, estimate, high = ends(method([0.0] * 7 + [1.0], 0.95))
    assert low < estimate == 0.125 < high


@pytest.mark.parametrize(("method", "fewest"), [(t_interval, 2), (bootstrap_interval, 8)])
def test_too_few_seeds_are_refused(method: Method, fewest: int) -> None:
    with pytest.raises(BadInput, match=rf"^interval=\w+: needs at least {fewest} seeds; here are {fewest - 1}$"):
        method([float(value) for value in range(fewest - 1)], 0.95)
    assert method([float(value) for value in range(fewest)], 0.95).n == fewest


@pytest.mark.parametrize("method", [t_interval, bootstrap_interval])
def test_what_no_interval_can_be_made_of_is_an_error(method: Method) -> None:
    with pytest.raises(ValueError, match="not all finite"):
        method([1.0] * 8 + [math.nan], 0.95)
    with pytest.raises(ValueError, match="level of 95"):
        method([1.0] * 8, 95)


# --- verdicts


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.3, 0.4, "supported", "refuted"),
        (0.1, 0.15, "refuted", "supported"),
        (-0.5, -0.4, "refuted", "supported"),
        (0.1, 0.3, "inconclusive", "inconclusive"),
        (0.2, 0.3, "inconclusive", "inconclusive"),  # touches it
        (0.1, 0.2, "inconclusive", "inconclusive"),
        (0.2, 0.2, "inconclusive", "inconclusive"),
        (math.nan, math.nan, "inconclusive", "inconclusive"),
    ],
)
def test_verdict(low: float, high: float, above: str, below: str) -> None:
    interval = Interval((low + high) / 2, low, high, 0.95, 8, "t")
    assert verdict(interval, 0.2, "above") == above
    assert verdict(interval, 0.2, "below") == below


def test_shared_level() -> None:
    assert shared_level(1) == pytest.approx(0.95)
    assert shared_level(2) == pytest.approx(0.975)
    assert shared_level(5, 0.9) == pytest.approx(0.98)
    with pytest.raises(ValueError, match="0 answers"):
        shared_level(0)


# --- simulated studies


def simulated(draw: Callable[[Any, tuple[int, int]], Any], studies: int, seeds: int = SEEDS) -> list[list[float]]:
    """Return the effects per seed of many studies."""
    drawn: list[list[float]] = draw(numpy.random.default_rng(20), (studies, seeds)).tolist()
    return drawn


def normal(rng: Any, shape: tuple[int, int]) -> Any:
    """Without an effect: differences between two arms that share the noise of their seed, as runs do."""
    seed = rng.normal(0, 3, shape)
    return (seed + rng.normal(0, 1, shape)) - (seed + rng.normal(0, 1, shape))


def rate(
    method: Method, studies: Sequence[Sequence[float]], smallest: float, wanted: str, level: float = 0.95
) -> float:
    return sum(verdict(method(study, level), smallest, "above") == wanted for study in studies) / len(studies)


def coverage(method: Method, studies: Sequence[Sequence[float]], mean: float) -> float:
    intervals = [method(study, 0.95) for study in studies]
    return sum(interval.low <= mean <= interval.high for interval in intervals) / len(studies)


def most(probability: float, studies: int) -> float:
    """What a share of so many studies exceeds once in 740 times: three standard errors."""
    return probability + 3 * math.sqrt(probability * (1 - probability) / studies)


@pytest.fixture(scope="module")
def null_studies() -> list[list[float]]:
    return simulated(normal, 2000)


def keeps_its_level(method: Method, studies: Sequence[Sequence[float]]) -> bool:
    """Whether studies without an effect are wrongly answered as rarely as they should be, and not more rarely."""
    supported, refuted = (rate(method, studies, 0.0, wanted) for wanted in ("supported", "refuted"))
    wrong = supported + refuted
    least = 0.05 - (most(0.05, len(studies)) - 0.05)
    return max(supported, refuted) <= most(0.025, len(studies)) and least <= wrong <= most(0.05, len(studies))


def test_no_effect_is_rarely_supported(null_studies: list[list[float]]) -> None:
    assert keeps_its_level(t_interval, null_studies)
    assert rate(t_interval, null_studies, 0.5, "supported") <= 0.005  # smallest > 0: still rarer
    at_the_edge = [[value + 0.5 for value in study] for study in null_studies]  # the hardest case of smallest = 0.5
    assert rate(t_interval, at_the_edge, 0.5, "supported") <= most(0.025, 2000)


def test_all_answers_of_a_study_share_the_error_rate(null_studies: list[list[float]]) -> None:
    answers, level = 4, shared_level(4)
    families = [null_studies[first : first + answers] for first in range(0, 2000, answers)]
    wrong = sum(rate(t_interval, family, 0.0, "inconclusive", level) < 1 for family in families)
    assert wrong / len(families) <= most(0.05, len(families))
    uncorrected = sum(rate(t_interval, family, 0.0, "inconclusive") < 1 for family in families)
    assert uncorrected / len(families) > most(0.05, len(families))


def test_a_big_effect_is_found(null_studies: list[list[float]]) -> None:
    """Against the power of the t test: a shift of 2 standard deviations (here √2 each), n = 8, one side 2.5 %."""
    shift, n = 2.0, SEEDS
    shifted = [[value + shift * math.sqrt(2) for value in study] for study in null_studies]
    power = scipy.stats.nct.sf(scipy.stats.t.ppf(0.975, n - 1), n - 1, shift * math.sqrt(n))
    assert power > 0.99
    assert rate(t_interval, shifted, 0.0, "supported") == pytest.approx(power, abs=0.01)
    assert rate(t_interval, shifted, 2 * shift * math.sqrt(2), "refuted") == pytest.approx(power, abs=0.01)


def test_coverage_of_t(null_studies: list[list[float]]) -> None:
    assert coverage(t_interval, null_studies, 0) == pytest.approx(0.95, abs=0.015)
    skewed = simulated(lambda rng, shape: rng.exponential(size=shape), 2000)
    assert coverage(t_interval, skewed, 1) == pytest.approx(0.89, abs=0.02)  # as its docstring says
    lognormal = simulated(lambda rng, shape: rng.lognormal(size=shape), 2000)
    assert coverage(t_interval, lognormal, math.exp(0.5)) == pytest.approx(0.83, abs=0.025)


def test_the_bootstrap_is_as_narrow_as_its_docstring_says(
    null_studies: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    some = null_studies[:600]
    assert rate(bootstrap_interval, some, 0.0, "supported") == pytest.approx(0.06, abs=0.02)
    assert not keeps_its_level(bootstrap_interval, some)
    assert coverage(bootstrap_interval, some, 0) == pytest.approx(0.88, abs=0.03)
    skewed = simulated(lambda rng, shape: rng.exponential(size=shape), 400)
    assert coverage(bootstrap_interval, skewed, 1) == pytest.approx(0.86, abs=0.04)


def by_normal_quantile(values: Sequence[float], level: float) -> Interval:
    half = scipy.stats.norm.ppf((1 + level) / 2) * numpy.std(values, ddof=1) / math.sqrt(len(values))
    return Interval(0, numpy.mean(values) - half, numpy.mean(values) + half, level, len(values), "z")


def one_sided(values: Sequence[float], level: float) -> Interval:
    return t_interval(values, 2 * level - 1)


def not_divided_by_root_n(values: Sequence[float], level: float) -> Interval:
    interval = t_interval(values, level)
    half = (interval.high - interval.estimate) * math.sqrt(len(values))
    return replace(interval, low=interval.estimate - half, high=interval.estimate + half)


def without_the_extremes(values: Sequence[float], level: float) -> Interval:
    return t_interval(sorted(values)[1:-1], level)


def shifted_by_a_little(values: Sequence[float], level: float) -> Interval:
    return t_interval([value + 0.2 for value in values], level)


@pytest.mark.parametrize(
    "wrong", [by_normal_quantile, one_sided, not_divided_by_root_n, without_the_extremes, shifted_by_a_little]
)
def test_simulated_studies_catch_wrong_intervals(wrong: Method, null_studies: list[list[float]]) -> None:
    assert not keeps_its_level(wrong, null_studies)


# --- factorial effects


def test_main_effects_and_interaction_by_hand() -> None:
    values = {(0, 0): [10.0, 0.0], (1, 0): [14.0, 1.0], (0, 1): [13.0, 2.0], (1, 1): [25.0, 3.0]}
    # Seed 0: A does 4 with B off and 12 with B on; B does 3 and 11. Seed 1: A does 1, B does 2, always.
    assert factorial_effects(values) == {(0,): [8.0, 1.0], (1,): [7.0, 2.0], (0, 1): [4.0, 0.0]}


def test_main_effects_and_interactions_of_three_factors() -> None:
    """The pilot plant of Box, Hunter & Hunter (2005), table 5.2: temperature, concentration, catalyst; yield."""
    yields = [60, 52, 54, 45, 72, 83, 68, 80]  # T low and high, in each C low and high, in each K first A, then B
    order = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)]
    effects = factorial_effects({levels: [float(value)] for levels, value in zip(order, yields, strict=True)})
    published = {(0,): 23.0, (1,): -5.0, (2,): 1.5, (0, 1): 1.5, (0, 2): 10.0, (1, 2): 0.0, (0, 1, 2): 0.5}
    assert {factors: effect for factors, [effect] in effects.items()} == published
    assert list(effects) == list(published)


def design(factors: int, seeds: int) -> dict[tuple[int, ...], list[float]]:
    rng = numpy.random.default_rng(factors)
    return {levels: rng.normal(size=seeds).tolist() for levels in itertools.product((0, 1), repeat=factors)}


def agrees_with_least_squares(effects: Effects, factors: int = 3, seeds: int = 2) -> bool:
    """Compare with a fit of all products of the factors coded −1 and 1: an effect is twice its coefficient."""
    values = design(factors, seeds)
    terms = [term for order in range(factors + 1) for term in itertools.combinations(range(factors), order)]
    columns = [[math.prod(2 * levels[factor] - 1 for factor in term) for term in terms] for levels in values]
    fitted, *_ = numpy.linalg.lstsq(numpy.array(columns, dtype=float), numpy.array(list(values.values())), rcond=None)
    expected = {term: 2 * fitted[place] for place, term in enumerate(terms) if term}
    found = effects(values)
    return found.keys() == expected.keys() and all(numpy.allclose(found[term], expected[term]) for term in found)


@pytest.mark.parametrize("factors", [1, 2, 3, 4])
def test_effects_are_those_of_least_squares(factors: int) -> None:
    assert agrees_with_least_squares(factorial_effects, factors, seeds=3)


def changed(change: Callable[[tuple[int, ...], float], float]) -> Effects:
    return lambda values: {
        factors: [change(factors, effect) for effect in effects]
        for factors, effects in factorial_effects(values).items()
    }


@pytest.mark.parametrize(
    "wrong",
    [
        changed(lambda factors, effect: effect / 2),  # the coefficient in place of the effect
        changed(lambda factors, effect: effect * 2 if len(factors) > 1 else effect),  # the halving forgotten
        changed(lambda factors, effect: -effect if len(factors) == 3 else effect),
        lambda values: factorial_effects({levels[::-1]: numbers for levels, numbers in values.items()}),
        lambda values: factorial_effects({levels: numbers[::-1] for levels, numbers in values.items()}),
        lambda values: {term: e for term, e in factorial_effects(values).items() if len(term) < 3},
    ],
)
def test_least_squares_catches_wrong_effects(wrong: Effects) -> None:
    assert not agrees_with_least_squares(wrong)


def test_one_factor_at_a_time_is_not_the_main_effect() -> None:
    values = design(3, 1)
    alone = values[1, 0, 0][0] - values[0, 0, 0][0]
    assert factorial_effect(values, [0])[0] != pytest.approx(alone, abs=0.1)


def test_incomplete_designs_are_errors() -> None:
    values = design(2, 3)
    with pytest.raises(ValueError, match="all 4 combinations"):
        factorial_effects({levels: numbers for levels, numbers in values.items() if levels != (1, 0)})
    with pytest.raises(ValueError, match="different numbers of seeds"):
        factorial_effects({**values, (1, 0): [1.0]})
    for involved in ([], [0, 0], [2]):
        with pytest.raises(ValueError, match="in a design of 2"):
            factorial_effect(values, involved)


def test_the_last_factor_of_a_design_changes_fastest() -> None:
    assert combinations(2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
