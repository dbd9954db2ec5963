"""The planted faults: the lists are large enough, every plant is a valid run, and what is planted is what is said."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
import torch
from plants import FAMILIES, FEWEST_FAULTY, FEWEST_HEALTHY, FITTED, SEEDS, Plant, effective_lr, plants

from optexp.config.compose import Composer
from optexp.diagnosis.causes import CAUSES
from optexp.sweeps.members import composed_member

EVERY = [plant for family in FAMILIES for plant in plants(family)]


def arms(of: str | None, family: str) -> dict[str, list[Plant]]:
    found: dict[str, list[Plant]] = {}
    for plant in plants(family):
        if plant.cause == of:
            found.setdefault(plant.arm, []).append(plant)
    return found


def test_every_cause_has_enough_plants_and_there_are_enough_healthy_runs() -> None:
    counts = Counter(plant.cause for plant in EVERY)
    assert counts.keys() == {*CAUSES, None}
    assert counts.pop(None) >= FEWEST_HEALTHY
    assert min(counts.values()) >= FEWEST_FAULTY


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_both_kinds_of_optimizers_and_almost_all_causes(family: str) -> None:
    kinds = {plant.kind for plant in plants(family)}
    assert {"sgd", "plain", "adam", "adamw"} <= kinds
    missing = set(CAUSES) - {plant.cause for plant in plants(family)}
    # Tokens have no scale, and 500 steps of it are too few for a Transformer's rate to be too large for the end only.
    assert missing == ({"bad-input-scale", "late-oscillation"} if family == "transformer" else set())


@pytest.mark.parametrize("family", FAMILIES)
def test_plants_differ_from_each_other(family: str) -> None:
    from fault_training import directory

    assert len({plant.words for plant in plants(family)}) == len(plants(family))
    assert len({directory(plant) for plant in plants(family)}) == len(plants(family))


@cache
def composer() -> Composer:
    return Composer(multirun=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_arm_is_composed_and_checked(family: str) -> None:
    for plant in {(plant.cause, plant.arm): plant for plant in plants(family)}.values():
        composed = composed_member(composer(), [*plant.words, "trust=[planted_faults]"])
        assert composed.config["seed"] == plant.seed


@pytest.mark.parametrize("family", FITTED)
def test_the_sets_of_seeds_have_the_same_arms_and_no_seed_in_common(family: str) -> None:
    sets = [plants(family, seeds) for seeds in SEEDS]
    for one in sets[1:]:
        assert [plant.arm for plant in one] == [plant.arm for plant in sets[0]]
    assert len({plant.words for one in sets for plant in one}) == sum(map(len, sets))
    spans = [(min(plant.seed for plant in one), max(plant.seed for plant in one)) for one in sets]
    assert all(end < start for (_, end), (start, _) in pairwise(spans))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_plant_could_be_trained(family: str) -> None:
    from fault_training import check

    threads = torch.get_num_threads()
    check(plants(family))
    torch.set_num_threads(threads)


def test_what_is_right_holds_the_cause_and_nothing_for_healthy_runs() -> None:
    for plant in EVERY:
        assert plant.right <= set(CAUSES)
        assert (plant.cause in plant.right) if plant.cause else not plant.right


def test_decades_are_those_of_the_effective_learning_rate() -> None:
    """The MLP's good rate is 0.03 / (1 - 0.9) = 0.3 with SGD and 3e-3 with Adam."""
    of_arm = {plant.arm: plant.decades for plant in plants("mlp")}
    assert of_arm["sgd optimizer.lr=1e-3"] == pytest.approx(math.log10(0.01 / 0.3))
    assert of_arm["sgd optimizer.dampening=0.99 optimizer.momentum=0.99 optimizer.lr=3e-3"] == pytest.approx(-2)
    assert of_arm["adam optimizer.lr=3e-5"] == pytest.approx(-2)
    assert of_arm["sgd optimizer.lr=10"] == pytest.approx(math.log10(100 / 0.3))
    assert of_arm["adam optimizer.eps=1"] is None


def test_effective_rate_of_adaptive_rules_is_their_rate() -> None:
    assert effective_lr(("optimizer=adam", "optimizer.lr=3e-3")) == 3e-3
    assert effective_lr(("optimizer=sgd", "optimizer.lr=0.1", "optimizer.dampening=0.9")) == pytest.approx(0.1)


@pytest.mark.parametrize("plant", [plant for plant in EVERY if plant.cause == "late-oscillation"], ids=lambda p: p.name)
def test_late_oscillation_has_a_healthy_twin_whose_rate_falls(plant: Plant) -> None:
    assert plant.twin is not None
    twin = arms(None, plant.family)[plant.twin][0]
    assert set(plant.words) ^ set(twin.words) == {
        "schedule=constant",
        "schedule=cosine",
        f"seed={plant.seed}",
        f"seed={twin.seed}",
    }


def test_every_step_too_small_is_really_small_and_too_large_really_large() -> None:
    """Whatever lies within a factor 3 of the good rate counts as good."""
    for plant in EVERY:
        if plant.cause == "step-too-small":
            assert plant.decades is not None
            assert plant.decades < -math.log10(3)
        if plant.cause == "step-too-large":
            assert plant.decades is not None
            assert plant.decades > math.log10(3)
        if plant.cause is None:
            good = next(other for other in plants(plant.family) if other.kind == plant.kind and other.reference)
            distance = math.log10(effective_lr(plant.words) / effective_lr(good.words))
            twins = {other.twin for other in plants(plant.family)}
            assert abs(distance) <= math.log10(3) + 1e-9 or plant.arm in twins, plant.name
