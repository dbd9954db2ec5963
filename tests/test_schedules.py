"""Every schedule against torch.optim.lr_scheduler, value by value."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from scheduling import BASE_LR, STEPS_PER_EPOCH, TOTAL, Torch, close, our_values, torch_values
from torch.optim import lr_scheduler

from optexp import schedules
from optexp.errors import BadInput
from optexp.schedules import (
    Constant,
    Cosine,
    CosineWarmRestarts,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Step,
    WarmupStableDecay,
)

ETA_MIN = 0.01
CONFIGS = Path(__file__).parents[1] / "conf" / "schedule"

# Our class, its arguments, and the same in torch.
CASES: dict[str, tuple[Callable[..., Schedule], dict[str, Any], Torch]] = {
    "constant": (Constant, {}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    "step": (Step, {"step_size": 3, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 3, 0.5)),
    "step_rare": (Step, {"step_size": 50}, lambda o: lr_scheduler.StepLR(o, 50)),
    "cosine": (Cosine, {"T_max": 70, "eta_min": ETA_MIN}, lambda o: lr_scheduler.CosineAnnealingLR(o, 70, ETA_MIN)),
    "restarts": (CosineWarmRestarts, {"T_0": 4}, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4)),
    "restarts_longer": (
        CosineWarmRestarts,
        {"T_0": 3, "T_mult": 2, "eta_min": ETA_MIN},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, ETA_MIN),
    ),
    "linear": (
        Linear,
        {"total_iters": 40, "end_factor": 0.1},
        lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, 40),
    ),
    "linear_rising": (
        Linear,
        {"total_iters": 5, "start_factor": 0.25, "end_factor": 1.0},
        lambda o: lr_scheduler.LinearLR(o, 0.25, 1.0, 5),
    ),
    "multi_step": (
        MultiStep,
        {"milestones": [2, 5, 6, 300], "gamma": 0.3},
        lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 6, 300], 0.3),
    ),
    "exponential": (Exponential, {"gamma": 0.9}, lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    "polynomial": (
        Polynomial,
        {"total_iters": 40, "power": 2.5},
        lambda o: lr_scheduler.PolynomialLR(o, 40, 2.5),
    ),
    "polynomial_root": (
        Polynomial,
        {"total_iters": 6, "power": 0.5},
        lambda o: lr_scheduler.PolynomialLR(o, 6, 0.5),
    ),
}


@pytest.mark.parametrize("warmup", [0, 1, 2, 9])
@pytest.mark.parametrize("case", CASES)
def test_steps_equal_torch(case: str, warmup: int) -> None:
    ours, arguments, theirs = CASES[case]
    schedule = ours(**arguments, warmup_steps=warmup)
    assert our_values(schedule, TOTAL) == close(torch_values(theirs, TOTAL, warmup))


@pytest.mark.parametrize("warmup", [0, 9])
@pytest.mark.parametrize("case", [case for case in CASES if case != "constant"])
def test_epochs_equal_torch(case: str, warmup: int) -> None:
    ours, arguments, theirs = CASES[case]
    per_epoch = torch_values(theirs, 1 + int(TOTAL / STEPS_PER_EPOCH))
    ramp = [BASE_LR * (step + 1) / warmup for step in range(warmup)]
    expected = ramp + [per_epoch[math.floor(step / STEPS_PER_EPOCH)] for step in range(TOTAL - warmup)]
    schedule = ours(**arguments, warmup_steps=warmup, unit="epoch")
    assert our_values(schedule, TOTAL) == close(expected)


@pytest.mark.parametrize("warmup", [0, 9])
@pytest.mark.parametrize("case", CASES)
def test_nothing_rises_after_the_end(case: str, warmup: int) -> None:
    ours, arguments, _ = CASES[case]
    bound = ours(**arguments, warmup_steps=warmup).bind(TOTAL, STEPS_PER_EPOCH)
    last = bound.lr(TOTAL - 1, BASE_LR)
    after = [bound.lr(step, BASE_LR) for step in range(TOTAL, 3 * TOTAL)]
    assert len(set(after)) == 1
    assert after[0] <= last


def test_a_cycle_that_would_start_after_the_last_step_does_not() -> None:
    schedule = CosineWarmRestarts(T_0=20).bind(40, STEPS_PER_EPOCH)
    assert schedule.lr(20, BASE_LR) == BASE_LR
    assert schedule.lr(40, BASE_LR) == schedule.lr(39, BASE_LR) < 0.01 * BASE_LR


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_cosine_stays_at_its_minimum_where_torch_rises(unit: str) -> None:
    schedule = Cosine(T_max=5, eta_min=ETA_MIN, unit=unit)  # type: ignore[arg-type]
    end = 5 if unit == "step" else math.ceil(5 * STEPS_PER_EPOCH)
    assert our_values(schedule, 2 * TOTAL)[end:] == pytest.approx([ETA_MIN] * (2 * TOTAL - end))
    assert torch_values(lambda o: lr_scheduler.CosineAnnealingLR(o, 5, ETA_MIN), 11)[10] == pytest.approx(BASE_LR)


@pytest.mark.parametrize("warmup", [0, 9])
def test_null_means_the_rest_of_the_run(warmup: int) -> None:
    rest = TOTAL - warmup
    cosine = torch_values(lambda o: lr_scheduler.CosineAnnealingLR(o, rest), TOTAL + 1, warmup)
    linear = torch_values(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, rest), TOTAL + 1, warmup)
    assert our_values(Cosine(warmup_steps=warmup), TOTAL + 1) == close(cosine)
    assert our_values(Linear(warmup_steps=warmup), TOTAL + 1) == close(linear)
    polynomial = torch_values(lambda o: lr_scheduler.PolynomialLR(o, rest, 2.0), TOTAL + 1, warmup)
    assert our_values(Polynomial(power=2.0, warmup_steps=warmup), TOTAL + 1) == close(polynomial)
    assert our_values(Linear(warmup_steps=warmup), TOTAL + 1)[-1] == 0


def test_null_in_epochs_counts_the_last_partial_epoch() -> None:
    values = our_values(Linear(unit="epoch"), 50, total=50)  # 50 / 7.5: six whole epochs and a part of the seventh
    assert values == close([BASE_LR * (1 - math.floor(step / STEPS_PER_EPOCH) / 7) for step in range(50)])


@pytest.mark.parametrize(("samples", "batch"), [(100, 3), (1258, 32), (1, 3), (7, 7), (7, 3), (9, 7)])
def test_an_epoch_begins_with_the_first_step_at_or_after_its_first_sample(samples: int, batch: int) -> None:
    bound = Step(step_size=1, gamma=0.5, unit="epoch").bind(10**6, samples / batch)
    for step in range(300):
        assert bound.lr(step, 1.0) == 0.5 ** (step * batch // samples)  # in integers


@pytest.mark.parametrize(("samples", "batch"), [(13, 3), (23, 10), (100, 3), (7, 3), (8, 4)])
@pytest.mark.parametrize("epochs", [1, 7, 30])
def test_the_rest_of_a_run_of_whole_epochs_is_that_many(samples: int, batch: int, epochs: int) -> None:
    exact = epochs * samples / batch
    for total in {max(1, math.floor(exact)), math.ceil(exact)}:  # whichever way the run is rounded to steps
        assert Cosine(unit="epoch").bind(total, samples / batch).duration == epochs


def test_warmup_as_a_fraction() -> None:
    assert our_values(Cosine(warmup_fraction=0.15), TOTAL) == our_values(Cosine(warmup_steps=9), TOTAL)
    assert our_values(Cosine(warmup_fraction=0.0), TOTAL) == our_values(Cosine(), TOTAL)
    assert our_values(Constant(warmup_steps=None), TOTAL) == [BASE_LR] * TOTAL
    assert our_values(Constant(warmup_fraction=1.0), TOTAL)[-1] == BASE_LR


@pytest.mark.parametrize("warmup", [1, 2, 9, TOTAL])
def test_the_first_step_is_not_zero_and_warmup_is_a_straight_line(warmup: int) -> None:
    values = our_values(Cosine(warmup_steps=warmup), warmup)
    assert values == pytest.approx([BASE_LR * k / warmup for k in range(1, warmup + 1)])
    assert values[0] > 0


def torch_plateau(history: list[float], **arguments: object) -> list[float]:
    """Return torch's learning rate before any evaluation and after each one."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE_LR)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)  # type: ignore[arg-type]
    values = [BASE_LR]
    for value in history:
        scheduler.step(value)
        values.append(optimizer.param_groups[0]["lr"])
    return values


@pytest.mark.parametrize("seed", range(60))
def test_plateau_equals_torch_on_random_histories(seed: int) -> None:
    draw = random.Random(seed)
    arguments: dict[str, object] = {
        "mode": draw.choice(["min", "max"]),
        "threshold_mode": draw.choice(["rel", "abs"]),
        "threshold": draw.choice([0.0, 1e-4, 0.05, 0.3]),
        "factor": draw.choice([0.1, 0.5, 0.9]),
        "patience": draw.choice([0, 1, 3]),
        "cooldown": draw.choice([0, 1, 4]),
        "min_lr": draw.choice([0.0, 0.04, 0.29]),
        "eps": draw.choice([1e-8, 0.02]),
    }
    drift = draw.choice([-0.02, 0.0, 0.02])
    history = [drift * i + draw.choice([draw.gauss(0, 0.2), 0.5]) for i in range(80)]
    if seed % 5 == 0:
        history[draw.randrange(80)] = math.nan
    bound = Plateau(**arguments).bind(1000, STEPS_PER_EPOCH)  # type: ignore[arg-type]
    ours = [bound.lr(10 * seen, BASE_LR, history[:seen]) for seen in range(len(history) + 1)]
    assert ours == torch_plateau(history, **arguments)
    # Pure: asking again, in any order and at any step with the same history, changes nothing.
    order = list(range(len(history) + 1))
    draw.shuffle(order)
    assert [bound.lr(999, BASE_LR, history[:seen]) for seen in order] == [ours[seen] for seen in order]


def test_plateau_does_reduce_in_those_histories() -> None:
    values = torch_plateau([1.0] * 80, factor=0.5, patience=3)
    bound = Plateau(factor=0.5, patience=3).bind(1000, STEPS_PER_EPOCH)
    assert values[-1] < 1e-4 * BASE_LR
    assert bound.lr(500, BASE_LR, [1.0] * 80) == values[-1]


def test_plateau_with_warmup() -> None:
    bound = Plateau(patience=0, factor=0.5, warmup_steps=10).bind(100, STEPS_PER_EPOCH)
    assert bound.lr(4, BASE_LR, [1.0, 1.0]) == pytest.approx(BASE_LR / 2)  # warm-up goes on
    assert bound.lr(10, BASE_LR, [1.0, 1.0]) == BASE_LR * 0.5  # and what was seen counts afterwards
    assert bound.lr(100, BASE_LR, [1.0] * 3) == bound.lr(99, BASE_LR, [1.0] * 3)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Step(step_size=0), "step_size"),
        (lambda: Step(step_size=1, gamma=0.0), "gamma"),
        (lambda: Step(step_size=1, gamma=math.nan), "gamma"),
        (lambda: Step(step_size=1, gamma=math.inf), "gamma"),
        (lambda: Cosine(T_max=0), "T_max"),
        (lambda: Cosine(eta_min=-0.1), "eta_min"),
        (lambda: Cosine(unit="week"), "unit"),  # type: ignore[arg-type]
        (lambda: CosineWarmRestarts(T_0=0), "T_0"),
        (lambda: CosineWarmRestarts(T_0=1, T_mult=0), "T_mult"),
        (lambda: CosineWarmRestarts(T_0=1, eta_min=math.nan), "eta_min"),
        (lambda: Linear(start_factor=0.0), "start_factor"),
        (lambda: Linear(end_factor=1.5), "end_factor"),
        (lambda: Linear(total_iters=0), "total_iters"),
        (lambda: Plateau(mode="best"), "mode"),  # type: ignore[arg-type]
        (lambda: Plateau(threshold_mode="x"), "threshold_mode"),  # type: ignore[arg-type]
        (lambda: Plateau(factor=1.0), "factor"),
        (lambda: Plateau(patience=-1), "patience"),
        (lambda: Plateau(cooldown=-1), "cooldown"),
        (lambda: Plateau(min_lr=-1.0), "min_lr"),
        (lambda: Plateau(eps=math.nan), "eps"),
        (lambda: MultiStep(milestones=[]), "milestones"),
        (lambda: MultiStep(milestones=[0, 3]), "milestones"),
        (lambda: MultiStep(milestones=[3, 3]), "milestones"),
        (lambda: MultiStep(milestones=[5, 3]), "milestones"),
        (lambda: MultiStep(milestones=[5], gamma=0.0), "gamma"),
        (lambda: Exponential(gamma=0.0), "gamma"),
        (lambda: Exponential(gamma=math.nan), "gamma"),
        (lambda: Polynomial(total_iters=0), "total_iters"),
        (lambda: Polynomial(power=0.0), "power"),
        (lambda: OneCycle(total_steps=0), "total_steps"),
        (lambda: OneCycle(pct_start=1.2), "pct_start"),
        (lambda: OneCycle(pct_start=0.6, three_phase=True), "pct_start"),
        (lambda: OneCycle(anneal_strategy="cosine"), "anneal_strategy"),  # type: ignore[arg-type]
        (lambda: OneCycle(div_factor=0.5), "div_factor"),
        (lambda: OneCycle(final_div_factor=math.inf), "final_div_factor"),
        (lambda: InverseSqrt(timescale=0), "timescale"),
        (lambda: WarmupStableDecay(decay_steps=-1), "decay_steps"),
        (lambda: WarmupStableDecay(decay_fraction=1.5), "decay_fraction"),
        (lambda: WarmupStableDecay(decay_steps=5, decay_fraction=0.1), "decay_fraction"),
        (lambda: WarmupStableDecay(decay_type="sqrt"), "decay_type"),  # type: ignore[arg-type]
        (lambda: WarmupStableDecay(end_factor=2.0), "end_factor"),
        (lambda: WarmupStableDecay(decay_type="exponential"), "end_factor"),
        (lambda: WarmupStableDecay(decay_steps=TOTAL + 1).bind(TOTAL, STEPS_PER_EPOCH), "decay_steps"),
        (lambda: WarmupStableDecay(warmup_fraction=0.9).bind(TOTAL, STEPS_PER_EPOCH), "decay_fraction"),
        (lambda: Constant(warmup_steps=-1), "warmup_steps"),
        (lambda: Constant(warmup_fraction=1.1), "warmup_fraction"),
        (lambda: Constant(warmup_steps=5, warmup_fraction=0.1), "warmup_fraction"),
        (lambda: Constant(warmup_steps=TOTAL + 1).bind(TOTAL, STEPS_PER_EPOCH), "warmup_steps"),
    ],
)
def test_bad_values_are_named(make: Callable[[], object], key: str) -> None:
    with pytest.raises(BadInput, match=rf"^schedule\.{key}=") as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_config_group_offers_every_argument(path: Path) -> None:
    text = path.read_text()
    node = yaml.safe_load(text)
    target = getattr(schedules, node.pop("_target_").removeprefix("optexp.schedules."))
    assert text.startswith("# ")
    assert set(node) == {field.name for field in dataclasses.fields(target)}
    values = our_values(target(**node), TOTAL)
    peak = values.index(max(values))
    assert max(values) == pytest.approx(BASE_LR)
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert peak == (17 if path.stem == "one_cycle" else 0)
