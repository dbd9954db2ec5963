"""The test itself on small runs: its schedule, that nothing of the run changes, ends, and fused against single."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from optexp.assemble import Training
from optexp.errors import BadInput
from optexp.range_test.advice import advise
from optexp.range_test.confirm import confirm, train_at
from optexp.range_test.members import copy_of, seeds_for
from optexp.range_test.sweep import Sweep, run_curves

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from trainings import assembled

MLP = ("model=mlp", "model.hidden=[16]", "dataset.batch_size=16")
SHORT = Sweep(start_lr=1e-4, end_lr=10.0, num_iter=60)


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run() -> Training:
    return assembled(*MLP, "optimizer=sgd")


def test_the_learning_rate_rises_exponentially_between_exact_ends() -> None:
    rates = Sweep().rates
    assert len(rates) == 1000
    assert (rates[0], rates[-1]) == (1e-7, 10.0)
    np.testing.assert_allclose(rates, np.geomspace(1e-7, 10.0, 1000), rtol=1e-12)
    assert Sweep().steps_per_decade == pytest.approx(999 / 8)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_losses_are_those_of_a_plain_loop_of_torch(optimizer: str) -> None:
    """The schedule reaches the optimizer as it is: the same losses from torch's own optimizer, set by hand."""
    run = assembled(*MLP, f"optimizer={optimizer}", "optimizer.weight_decay=0")
    seed = seeds_for(0, "range test", 1)[0]
    (curve,), _ = run_curves(run, SHORT, [seed])
    own = copy_of(run, seed)
    arguments = {"momentum": 0.9} if optimizer == "sgd" else {"weight_decay": 0.0}
    made = (torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW)(own.model.parameters(), lr=1.0, **arguments)
    losses = []
    for step in range(len(curve.losses)):
        made.param_groups[0]["lr"] = 1e-4 * 1e5 ** (step / 59)
        inputs, targets = own.batches.take(step)
        loss = torch.nn.functional.cross_entropy(own.model(inputs), targets)
        made.zero_grad()
        loss.backward()
        made.step()
        losses.append(loss.item())
    np.testing.assert_allclose(curve.losses[:40], losses[:40], rtol=2e-4)


def test_nothing_of_the_run_changes(run: Training) -> None:
    def everything() -> object:
        return copy.deepcopy((run.model.state_dict(), run.optimizer.state_dict()["state"]))

    def settings() -> str:
        return repr((run.config, run.base_lr, run.optimizer.state_dict()["param_groups"], run.schedule, run.plan))

    before, told, random = everything(), settings(), torch.get_rng_state()
    run_curves(run, SHORT, [1, 2])
    run_curves(run, SHORT, [1])
    confirm(run, 0.01, [1, 2, 3], steps=3)
    torch.testing.assert_close(everything(), before, rtol=0, atol=0)
    assert settings() == told
    assert torch.equal(torch.get_rng_state(), random)
    assert run.model.training


def test_the_same_seeds_give_the_same_curves_and_others_others(run: Training) -> None:
    first, again, other = (run_curves(run, SHORT, seeds)[0] for seeds in ([5, 6], [5, 6], [5, 7]))
    assert first == again
    assert first[0] == other[0]
    assert first[1].losses != other[1].losses
    assert seeds_for(0, "range test", 3) == seeds_for(0, "range test", 4)[:3]
    assert not set(seeds_for(0, "range test", 9)) & set(seeds_for(0, "confirm range test", 9))
    assert not set(seeds_for(0, "range test", 9)) & set(range(10_000))


@pytest.mark.parametrize("words", [(*MLP, "optimizer=sgd"), (*MLP, "optimizer=adamw")])
def test_fused_is_single(words: tuple[str, ...]) -> None:
    """Up to rounding, and while rounding is not yet chaos: to the lowest loss."""
    run, seeds = assembled(*words), [11, 12, 13]
    together, reason = run_curves(run, SHORT, seeds, fused=True)
    alone, said = run_curves(run, SHORT, seeds, fused=False)
    assert reason is None
    assert said == "task.fused=false"
    for one, other in zip(together, alone, strict=True):
        lowest = int(np.argmin(one.losses[:40]))
        np.testing.assert_allclose(one.losses[:lowest], other.losses[:lowest], rtol=1e-3)
    both = [advise(curves, SHORT).means["steepest"] for curves in (together, alone)]
    assert abs(math.log10(both[0] / both[1])) < 0.1


def test_what_cannot_be_fused_goes_one_by_one_and_says_why() -> None:
    run = assembled(*MLP, optimizer={"_target_": "torch.optim.Rprop", "lr": 1e-3})
    few = Sweep(num_iter=20)
    curves, reason = run_curves(run, few, [1, 2])
    assert len(curves) == 2
    assert reason == "Rprop has no update rule for many members at once"
    with pytest.raises(BadInput, match=r"task\.fused=true: Rprop has no update rule"):
        run_curves(run, few, [1, 2], fused=True)


@pytest.mark.parametrize("fused", [True, False])
def test_a_planted_divergence_ends_its_copy_and_no_other(
    run: Training, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of seed 2 are made so large that its loss is not finite from the first step on."""
    from optexp.range_test import members

    def planted(first: Training, seed: int) -> Training:
        own = copy_of(first, seed)
        if seed == 2:
            with torch.no_grad():
                next(own.model.parameters()).fill_(1e38)
        return own

    sound, _ = run_curves(run, SHORT, [1, 3], fused)
    monkeypatch.setattr(members, "copy_of", planted)
    curves, _ = run_curves(run, SHORT, [1, 2, 3], fused)
    assert curves[1].losses == []
    assert curves[1].ended is not None
    assert curves[1].ended.startswith("loss is ")
    assert curves[1].ended.endswith("at step 1")
    assert [curves[0], curves[2]] == sound  # not one bit of the others


def test_a_loss_far_above_its_lowest_ends_the_test(run: Training) -> None:
    """SGD on an unnormalized perceptron explodes somewhere below 1e4: no step is taken beyond."""
    wide = Sweep(start_lr=1e-3, end_lr=1e4, num_iter=140, smoothing=0.05)
    (curve,), _ = run_curves(run, wide, [1])
    assert curve.ended is not None
    assert len(curve.losses) < 130
    mean = 0.0
    weights = 0.0
    lowest = math.inf
    for step, loss in enumerate(curve.losses, 1):  # the rule of the documentation, written out
        mean, weights = loss + wide.beta * mean, 1 + wide.beta * weights
        if step > 1 / (1 - wide.beta):
            lowest = min(lowest, mean / weights)
            assert (mean / weights > 4 * lowest) == (step == len(curve.losses) and "rose to 4 times" in curve.ended)


def test_a_later_look_sees_the_same_curve(run: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device is not waited for, losses are read in blocks; what lies beyond an end is not counted."""
    from optexp.engine.fused import FusedRuns
    from optexp.range_test import sweep as module

    wide = Sweep(start_lr=1e-3, end_lr=1e4, num_iter=100, smoothing=0.05)
    at_once, _ = run_curves(run, wide, [1, 2])
    assert any(curve.ended for curve in at_once)
    taken = FusedRuns.step

    def unseen(program: FusedRuns, *arguments: object, **named: object) -> list[int]:
        found = taken(program, *arguments, **named)  # type: ignore[arg-type]
        program.on_host = False
        return found

    monkeypatch.setattr(
        FusedRuns, "step", lambda program, *a, **n: [_on_host(program, True), unseen(program, *a, **n)][1]
    )
    monkeypatch.setattr(module, "LOOK_EVERY", 7)
    later, _ = run_curves(run, wide, [1, 2])
    assert later == at_once


def _on_host(program: object, value: bool) -> None:
    program.on_host = value  # type: ignore[attr-defined]


def test_confirmation_is_paired_by_seed_and_finds_a_rate_that_is_too_small(run: Training) -> None:
    """At 1e-4 SGD learns next to nothing in 40 steps: three times of it is better on every seed."""
    held = confirm(run, 1e-4, [1, 2, 3, 4], steps=40)
    third, three = held.others
    assert not held.held
    assert three.better
    assert not third.better
    assert third.excess is not None
    assert three.excess is not None
    differences = [own - other for own, other in zip(held.losses, three.losses, strict=True)]
    assert three.excess.mean == pytest.approx(sum(differences) / 4)
    assert three.excess.low is not None
    assert three.excess.low > 0


def test_a_suggestion_beside_rates_that_diverge_holds_and_one_that_diverges_does_not(run: Training) -> None:
    good, bad = confirm(run, 0.05, [1, 2, 3], steps=60), confirm(run, 1e9, [1, 2, 3], steps=20)
    assert good.held
    assert bad.diverged == 3
    assert not bad.held
    assert all(trial.diverged == 3 and not trial.better for trial in bad.others)


def test_training_at_a_rate_is_an_ordinary_run(run: Training) -> None:
    from trainings import trained

    words = (*MLP, "optimizer=sgd", "schedule=constant", "engine.max_steps=30", "optimizer.lr=0.03", "seed=77")
    _, member, _ = trained(assembled(*words))
    found = train_at(run, [0.03, 0.01], [77, 78], steps=30)
    assert [len(of_rate) for of_rate in found] == [2, 2]
    assert found[0][0]["loss"] == pytest.approx(member.latest["val/loss"], rel=1e-3)
    assert found[0][0]["loss"] != found[1][0]["loss"]
