"""The probe of claim C24 on a model that trains in an instant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from optexp.errors import BadInput
from optexp.range_test.confirm import train_at
from optexp.range_test.members import seeds_for
from optexp.studies import probes, range_test_probe
from optexp.studies.study import read_studies

WORDS = ["model=mlp", "model.hidden=[4]", "dataset=digits", "optimizer=sgd"]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    yield
    range_test_probe._tuned.cache_clear()
    range_test_probe._accuracies.cache_clear()


def test_regret_is_what_the_sweeps_rate_has_more_on_the_same_fresh_seeds() -> None:
    found = probes.call("regret_of_range_test", {"words": WORDS, "share": 0.01, "steps": 50})
    tuned = range_test_probe._tuned(tuple(WORDS), 50)
    assert tuned.by_sweep in range_test_probe.RATES
    rates = [tuned.by_sweep, 0.01 * tuned.steepest]
    best, own = train_at(tuned.run, rates, seeds_for(0, "judged", 8), 50, on_test=True)
    expected = [one["accuracy"] - other["accuracy"] for one, other in zip(best, own, strict=True)]
    assert found == pytest.approx(expected, abs=0.01)  # 16 in one program and 8 in one round differently
    assert min(found) > 0.2  # a hundredth of the steepest point teaches nothing in 50 steps


def test_steps_that_cannot_be_matched_are_refused() -> None:
    with pytest.raises(BadInput, match=r"steps=30: a sweep of 20 runs is no multiple of 1000"):
        range_test_probe._tuned(tuple(WORDS), 30)


def test_the_study_gives_both_the_same_number_of_steps() -> None:
    (study,) = read_studies(["range_test"])
    assert study.claim == ["C24"]
    for answer in study.answers.values():
        probes.check("regret_of_range_test", answer.arguments)
        steps = answer.arguments.get("steps", 200)
        assert len(range_test_probe.RATES) * range_test_probe.TUNING_SEEDS * steps % 1000 == 0
        assert (answer.supported_if, answer.smallest) == ("below", 0.02)
