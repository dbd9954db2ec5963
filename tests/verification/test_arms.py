"""The words of the original and of its repairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optexp.config.compose import Composer
from optexp.diagnosis.findings import Diagnosis, Finding
from optexp.errors import BadInput
from optexp.records.reading import Run
from optexp.verification.arms import ORIGINAL, Arms, Prescription, prescriptions, together
from optexp.verification.budget import Budget

WHOLE, HALF = Budget(100, 100, "", None), Budget(50, 100, "", None)


def settings(arms: Arms, *words: str) -> dict[str, Any]:
    """Return the configuration of an arm."""
    return Composer(multirun=True).compose(arms.words_with(Prescription(("x",), words))).config


def recorded(*words: str, **changes: Any) -> Run:
    """Return a run as it would be recorded; `changes` are of its optimizer."""
    composed = Composer().compose(words)
    composed.config["optimizer"].update(changes)
    made = Run(Path("made/up"), {"choices": composed.choices, "overrides": list(words), "status": "completed"})
    made.__dict__["config"] = composed.config
    made.__dict__["rows"] = []
    return made


def test_the_original_is_what_was_recorded_without_checkpoints() -> None:
    was = recorded("experiment=exp2_sgd_B32", "model=mlp", lr=0.123, weight_decay=0.7)
    arms = Arms(was, [0, 1], WHOLE, [])
    config = settings(arms)
    assert config["engine"].pop("checkpoint_every") is None
    assert {**config["engine"], "checkpoint_every": "1epoch"} == was.config["engine"]
    assert all(config[group] == was.config[group] for group in ("model", "dataset", "optimizer", "schedule"))


def test_a_repair_changes_what_it_says_and_nothing_else() -> None:
    arms = Arms(recorded("experiment=exp2_sgd_B32"), [0], WHOLE, [])
    original, repaired = settings(arms), settings(arms, "optimizer.lr=0.02", "engine.clip_norm=1")
    assert repaired["optimizer"] == {**original["optimizer"], "lr": 0.02}
    assert repaired["engine"] == {**original["engine"], "clip_norm": 1}


def test_another_choice_takes_no_settings_of_the_old_one_but_warm_up() -> None:
    arms = Arms(recorded("schedule=step", "schedule.step_size=2", "schedule.warmup_steps=7"), [0], WHOLE, [])
    schedule = settings(arms, "schedule=cosine")["schedule"]
    assert schedule["_target_"].endswith(".Cosine")
    assert "step_size" not in schedule
    assert schedule["warmup_steps"] == 7


def test_a_choice_that_is_not_here_any_more_is_put_together_from_its_values() -> None:
    was = recorded(_target_="torch.optim.NAdam", lr=2e-3, momentum_decay=4e-3)
    for name in ("momentum", "dampening", "nesterov"):
        was.config["optimizer"].pop(name, None)
    was.info["choices"]["optimizer"] = "my_nadam"
    config = settings(Arms(was, [0], WHOLE, []), "optimizer.momentum_decay=0.01")
    assert config["optimizer"] == {**was.config["optimizer"], "momentum_decay": 0.01}


def test_half_as_long() -> None:
    arms = Arms(recorded("schedule.warmup_steps=10", "engine.max_steps=100"), [0], HALF, [])
    config = settings(arms, "schedule.warmup_steps=4")
    assert (config["engine"]["max_steps"], config["schedule"]["warmup_steps"]) == (50, 2)


def test_members_are_numbered_and_differ_in_their_seed() -> None:
    arms = Arms(recorded(), [5, 6], WHOLE, [])
    members = arms.members(Prescription(("step-too-small",), ("optimizer.lr=1.0",)), 2, ["optimizer.lr"])
    assert [member.directory for member in members] == ["2-step-too-small,seed=5", "3-step-too-small,seed=6"]
    assert [member.swept for member in members] == [{"optimizer.lr": 1.0, "seed": seed} for seed in (5, 6)]
    assert [member.directory for member in arms.members(ORIGINAL, 0, [])] == ["0-original,seed=5", "1-original,seed=6"]


def test_what_cannot_be_composed_is_refused() -> None:
    arms = Arms(recorded(), [0], WHOLE, [])
    with pytest.raises(BadInput, match=r"optimizer.no_such"):
        arms.words_with(Prescription(("x",), ("optimizer.no_such=1",)))
    broken = recorded()
    del broken.config["model"]
    with pytest.raises(BadInput, match=r"made/up: cannot be trained again: its config.yaml has no model"):
        Arms(broken, [0], WHOLE, [])


def finding(cause: str, *words: str) -> Finding:
    return Finding(cause, 0.9, (), words)


def test_the_same_words_are_tried_once_and_four_at_most() -> None:
    found = prescriptions(
        Diagnosis(
            "stalled",
            "",
            (finding("a", "k=1"), finding("b"), finding("c", "k=1"), *(finding("d", f"k={n}") for n in range(2, 9))),
        )
    )
    assert [(each.causes, each.words) for each in found][:2] == [(("a", "c"), ("k=1",)), (("d",), ("k=2",))]
    assert len(found) == 4


def test_together_the_first_two_and_where_both_set_a_key_the_first() -> None:
    one, other = Prescription(("a",), ("k=1", "m=1")), Prescription(("b",), ("k=2", "n=3"))
    union = together([one, other, Prescription(("c",), ("z=1",))])
    assert union == Prescription(("a", "b"), ("k=1", "m=1", "n=3"))
    assert together([one]) is None
    assert together([one, Prescription(("b",), ("m=2",))]) is None, "that is the first alone"
