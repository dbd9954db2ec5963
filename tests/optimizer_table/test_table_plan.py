"""Equal effort: every optimizer gets as many runs, around its own default, and no seed is tuned on and judged."""

from __future__ import annotations

import pytest

from optexp.config.compose import Composer
from optexp.config.settings import task_settings
from optexp.errors import BadInput
from optexp.optimizer_table.plan import Plan, TableSettings


def plan(*words: str, **settings: object) -> Plan:
    composed = Composer(None).compose(["task=optimizer_table", *words])
    given = {"optimizers": ["sgd momentum=0", "adam", "lion lr=0.001"]} | settings
    return Plan(composed, task_settings(TableSettings, given))


def test_grids_are_as_large_for_all_and_lie_around_their_own_defaults() -> None:
    found = plan(rates=5, rates_per_decade=2)
    assert {c.name: c.rates for c in found.contestants} == {
        "sgd momentum=0": [0.005, 0.0158, 0.05, 0.158, 0.5],
        "adam": [0.0001, 0.000316, 0.001, 0.00316, 0.01],
        "lion lr=0.001": [0.0001, 0.000316, 0.001, 0.00316, 0.01],
    }


def test_widening_gives_two_more_to_each() -> None:
    found = plan(rates=3, rates_per_decade=1)
    added = found.widened({"sgd momentum=0": "high", "adam": None, "lion lr=0.001": "low"})
    assert added == {"sgd momentum=0": [5.0, 50.0], "adam": [1e-5, 0.1], "lion lr=0.001": [1e-6, 1e-5]}
    assert found.contestants[1].rates == [1e-5, 1e-4, 1e-3, 1e-2, 0.1]
    found.widened({"sgd momentum=0": "high", "adam": None, "lion lr=0.001": "low"})
    assert {len(c.rates) for c in found.contestants} == {7}


def test_seeds_are_tuned_on_or_judged() -> None:
    found = plan("seed=7", seeds=3, tuning_seeds=2)
    assert (found.judged_seeds, found.tuning_seeds) == ([7, 8, 9], [1007, 1008])
    assert not set(found.judged_seeds) & set(found.tuning_seeds)


def test_the_words_of_a_run_are_those_of_the_request_with_its_own() -> None:
    found = plan("model=resnet", "engine.epochs=1", "output_dir=elsewhere", "hydra.run.dir=here", "name=x", "seed=3")
    assert found.words(found.contestants[2], 0.01, 1003) == [
        *("model=resnet", "dataset=digits", "schedule=cosine", "engine=default", "engine.checkpoint_every=null"),
        *("engine.epochs=1", "optimizer=lion", "optimizer.lr=0.01", "engine.eval_every=5", "seed=1003"),
    ]
    assert plan().words(found.contestants[1], 0.01, 0)[0] == "model=mlp", "the default of the task"
    record = found.record({"adam": [0.1, 0.2]}, [3, 4], ["optexp"])
    assert [(m.swept["optimizer.lr"], m.swept["seed"]) for m in record.members] == [
        (0.1, 3),
        (0.1, 4),
        (0.2, 3),
        (0.2, 4),
    ]
    assert record.members[0].directory == "0-adam,lr=0.1,seed=3"


@pytest.mark.parametrize(
    ("words", "settings", "text"),
    [
        ([], {"optimizers": []}, "task.optimizers=[]"),
        ([], {"optimizers": ["adam", "adam"]}, "adam stands there twice"),
        ([], {"optimizers": ["adma"]}, "adma: no such optimizer"),
        ([], {"optimizers": ["adam momentum=0.9"]}, "takes no 'momentum'"),
        ([], {"optimizers": ["adam lr=0"]}, "adam lr=0: has no learning rate to look around"),
        ([], {"seeds": 1}, "task.seeds=1"),
        ([], {"rates": 2}, "task.rates=2"),
        ([], {"metric": "loss"}, "task.metric=loss"),
        (["engine.eval_every=10"], {}, "engine.eval_every=10: a table decides this"),
        (["experiment=exp2_sgd_B32"], {}, "experiment=exp2_sgd_B32: a table compares"),
    ],
)
def test_what_is_refused(words: list[str], settings: dict[str, object], text: str) -> None:
    with pytest.raises(BadInput) as caught:
        plan(*words, **settings)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
