"""The probe of claim C24 on a model that trains in an instant."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from optexp.errors import BadInput
from optexp.range_test.advice import advise
from optexp.range_test.confirm import train_at
from optexp.range_test.members import seeds_for
from optexp.range_test.sweep import Sweep, run_curves
from optexp.studies import probes, range_test_probe
from optexp.studies.study import read_studies

WORDS = ["model=mlp", "model.hidden=[4]", "dataset=digits", "optimizer=sgd"]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    yield
    range_test_probe._tuned.cache_clear()
    range_test_probe._accuracies.cache_clear()
    range_test_probe._run.cache_clear()


def test_regret_is_what_the_sweeps_rate_has_more_on_the_same_fresh_seeds() -> None:
    found = probes.call("regret_of_range_test", {"words": WORDS, "share": 0.01, "steps": 50})
    tuned = range_test_probe._tuned(tuple(WORDS), 50, 0)
    assert tuned.by_sweep in range_test_probe.RATES
    rates = [tuned.by_sweep, 0.01 * tuned.steepest]
    best, own = train_at(tuned.run, rates, seeds_for(0, "judged", 8), 50, on_test=True)
    expected = [one["accuracy"] - other["accuracy"] for one, other in zip(best, own, strict=True)]
    assert found == pytest.approx(expected, abs=0.01)  # 16 in one program and 8 in one round differently
    assert min(found) > 0.2  # a hundredth of the steepest point teaches nothing in 50 steps


def test_shift_of_the_steepest_point_is_paired_by_seed() -> None:
    words, arguments = ["model=mlp", *WORDS[2:], "model.hidden=[16]"], {"few": 80, "many": 160}
    found = probes.call("shift_of_steepest", {"words": words, **arguments})
    run = range_test_probe._run(tuple(words))
    decades = []
    for steps in (80, 160):
        sweep = Sweep(num_iter=steps)
        curves = run_curves(run, sweep, seeds_for(0, "range test", 8))[0]
        decades.append([math.log10(one.rates["steepest"]) for one in advise(curves, sweep).seeds])
    assert found == pytest.approx([few - many for few, many in zip(*decades, strict=True)])
    with pytest.raises(BadInput, match="does not fall on every seed"):
        probes.call("shift_of_steepest", {"words": [*words, "engine.clip_norm=1e-12"], **arguments})


def test_steps_that_cannot_be_matched_are_refused() -> None:
    with pytest.raises(BadInput, match=r"steps=30: a sweep of 20 runs is no multiple of 1000"):
        range_test_probe._tuned(tuple(WORDS), 30, 0)


def test_the_studies_give_both_the_same_number_of_steps() -> None:
    studies = read_studies(["range_test", "range_test_above"])
    assert [study.claim for study in studies] == [["C24"], ["C24"]]
    for answer in [answer for study in studies for answer in study.answers.values()]:
        assert answer.probe is not None
        probes.check(answer.probe, answer.arguments)
        if answer.probe != "regret_of_range_test":
            continue
        steps = answer.arguments.get("steps", 200)
        assert len(range_test_probe.RATES) * range_test_probe.TUNING_SEEDS * steps % 1000 == 0
        assert (answer.supported_if, answer.smallest) == ("below", 0.02)
