"""How long the runs of a verification are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optexp.config.compose import Composer
from optexp.errors import BadInput
from optexp.records.reading import Run, read_run
from optexp.verification.budget import FEWEST_STEPS, Budget, budget_of, shortened

MakeRun = Callable[..., Path]


@pytest.fixture
def run(make_run: MakeRun, tmp_path: Path) -> Callable[..., Run]:
    """Return a maker of runs with other entries in run.json."""

    def make(**info: Any) -> Run:
        made = read_run(make_run(tmp_path / "run"))
        made.info.update(info)
        return made

    return make


def test_a_short_run_is_repeated_whole(run: Callable[..., Run]) -> None:
    budget = budget_of(run(total_steps=100, last_step=100, wall_time=59.0), None)
    assert (budget.steps, budget.planned, budget.why) == (100, 100, "as many as the run has")
    assert budget.seconds == pytest.approx(59.0)


def test_a_long_run_is_cut_to_a_minute_at_its_own_pace(run: Callable[..., Run]) -> None:
    """Half done in an hour: 2 s a step would be 30 steps, but 100 are the least; at 0.02 s a step it is 3,000."""
    slow = budget_of(run(total_steps=3600, last_step=1800, wall_time=3600.0), None)
    assert (slow.steps, slow.planned) == (FEWEST_STEPS, 3600)
    assert "2 h 00 min" in slow.why
    assert "--steps N" in slow.why
    fast = {"status": "completed", "total_steps": 180_000, "last_step": 180_000, "wall_time": 3600.0}
    assert budget_of(Run(Path(), fast), None).steps == 3000


def test_a_run_that_diverged_early_is_as_long_as_it_was_meant_to_be(run: Callable[..., Run]) -> None:
    assert budget_of(run(total_steps=100, last_step=3, wall_time=0.1), None).steps == 100


def test_a_run_without_a_pace_is_repeated_whole(run: Callable[..., Run]) -> None:
    budget = budget_of(run(total_steps=10**6, last_step=0, wall_time=0.0), None)
    assert (budget.steps, budget.seconds) == (10**6, None)


def test_what_was_asked_for_is_done(run: Callable[..., Run]) -> None:
    asked = run(total_steps=100)
    assert budget_of(asked, 7).steps == 7
    asked.info["total_steps"] = None
    assert budget_of(asked, 7).fraction == 1


def test_a_run_without_a_length_needs_one(run: Callable[..., Run]) -> None:
    with pytest.raises(BadInput, match="--steps N"):
        budget_of(run(total_steps=None), None)


def config(*words: str) -> dict[str, Any]:
    return Composer().compose(words).config


def tenth(planned: int = 1000) -> Budget:
    return Budget(planned // 10, planned, "", None)


def test_a_whole_run_is_left_as_it_is() -> None:
    assert shortened(config(), Budget(50, 50, "", None), 64) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["schedule=constant", "schedule.warmup_steps=50"], ["schedule.warmup_steps=5"]),
        (["schedule=cosine", "schedule.T_max=600"], ["schedule.T_max=60"]),
        (["schedule=multi_step", "schedule.milestones=[10,12,40]"], ["schedule.milestones=[1,4]"]),
        (["schedule=step", "schedule.step_size=3"], ["schedule.step_size=1"]),
        (["schedule=exponential", "schedule.gamma=0.9"], [f"schedule.gamma={0.9**10!r}"]),
        (["schedule=cosine"], []),
    ],
)
def test_times_of_schedules_shrink_with_the_run(words: list[str], expected: list[str]) -> None:
    found = shortened(config(*words), tenth(), 32)
    assert [word for word in found if word.startswith("schedule.")] == expected


def test_there_are_as_many_evaluations() -> None:
    words = shortened(config("engine.eval_every=2epochs"), tenth(), 32)
    assert words[:3] == ["engine.max_steps=100", "engine.eval_every=0.200000epochs", "engine.log_every=5"]
    assert "engine.eval_every=1" in shortened(config("engine.eval_every=3"), tenth(), 32)


def test_another_batch_size_trains_on_as_many_samples() -> None:
    assert shortened(config("dataset.batch_size=128"), tenth(), 32)[0] == "engine.max_steps=25"
    assert shortened(config("dataset.batch_size=full"), tenth(), 32)[0] == "engine.max_steps=100"
