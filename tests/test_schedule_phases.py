"""Schedules of several phases: one cycle against torch's, the others against their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scheduling import BASE_LR, STEPS_PER_EPOCH, TOTAL, close, our_values, torch_values
from torch.optim import lr_scheduler

from optexp.schedules import Exponential, InverseSqrt, OneCycle, WarmupStableDecay

# Each with the arguments of torch's OneCycleLR, and over how many steps the cycle goes.
CYCLES: dict[str, tuple[int, dict[str, Any]]] = {
    "defaults": (TOTAL, {}),
    "linear": (TOTAL, {"anneal_strategy": "linear", "pct_start": 0.45, "div_factor": 7.0, "final_div_factor": 3.0}),
    "three_phase": (TOTAL, {"three_phase": True}),
    "three_phase_linear": (TOTAL, {"three_phase": True, "anneal_strategy": "linear", "pct_start": 0.21}),
    "no_rise": (TOTAL, {"pct_start": 0.0}),
    "odd": (37, {"pct_start": 0.3}),
    "two_steps": (2, {}),
    "one_step": (1, {}),
}


def torch_cycle(total: int, **arguments: Any) -> list[float]:
    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(optimizer, BASE_LR, total, cycle_momentum=False, **arguments)

    return torch_values(make, total)


@pytest.mark.parametrize("case", CYCLES)
def test_one_cycle_equals_torch(case: str) -> None:
    total, arguments = CYCLES[case]
    expected = torch_cycle(total, **arguments)
    assert our_values(OneCycle(**arguments), total, total=total) == close(expected)
    # In a longer run a cycle of its own length stays at its end, where torch raises; warm-up goes before it.
    ramp = [BASE_LR * (step + 1) / 9 for step in range(9)]
    longer = our_values(OneCycle(**arguments, total_steps=total, warmup_steps=9), total + 20, total=total + 20)
    assert longer == close([*ramp, *expected, *[expected[-1]] * 11])


def test_one_cycle_peaks_at_the_base_learning_rate() -> None:
    values = our_values(OneCycle(pct_start=0.5), TOTAL)
    assert values.index(max(values)) == 29
    assert max(values) == pytest.approx(BASE_LR)
    assert values[0] == pytest.approx(BASE_LR / 25)
    assert values[-1] == pytest.approx(BASE_LR / 25e4)
    assert our_values(OneCycle(pct_start=0.5), TOTAL + 5)[TOTAL:] == [values[-1]] * 5
    assert our_values(OneCycle(pct_start=1.0), TOTAL)[-1] == BASE_LR  # where torch divides by zero


@pytest.mark.parametrize(("warmup", "timescale", "meant"), [(16, None, 16), (0, None, 10_000), (16, 5, 5), (0, 3, 3)])
def test_inverse_sqrt_is_its_closed_form(warmup: int, timescale: int | None, meant: int) -> None:
    values = our_values(InverseSqrt(timescale=timescale, warmup_steps=warmup), TOTAL)
    after = [BASE_LR * (meant / (meant + t)) ** 0.5 for t in range(TOTAL - warmup)]
    assert values == close([BASE_LR * (step + 1) / 16 for step in range(warmup)] + after)


def test_inverse_sqrt_is_that_of_the_transformer_one_step_late() -> None:
    """Vaswani et al.: min(s^-0.5, s · w^-1.5), s from 1, here scaled to a peak of BASE_LR at s = w."""
    warmup = 12
    theirs = [BASE_LR * warmup**0.5 * min(s**-0.5, s * warmup**-1.5) for s in range(1, TOTAL + 1)]
    ours = our_values(InverseSqrt(warmup_steps=warmup), TOTAL)
    assert ours[:warmup] == close(theirs[:warmup])
    assert ours[warmup:] == close(theirs[warmup - 1 : -1])


FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda p: 1 - p,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
    "1-sqrt": lambda p: 1 - p**0.5,
}


@pytest.mark.parametrize("length", [{"decay_steps": 15}, {"decay_fraction": 0.25}])
@pytest.mark.parametrize("warmup", [0, 9])
@pytest.mark.parametrize("form", [*FALLS, "exponential"])
def test_warmup_stable_decay_is_its_closed_form(form: str, warmup: int, length: dict[str, Any]) -> None:
    end = 0.02
    schedule = WarmupStableDecay(decay_type=form, end_factor=end, warmup_steps=warmup, **length)  # type: ignore[arg-type]
    ramp = [BASE_LR * (step + 1) / 9 for step in range(warmup)]
    shares = [k / 15 for k in range(16)]
    factors = [end**p if form == "exponential" else end + (1 - end) * FALLS[form](p) for p in shares]
    stable = [BASE_LR] * (TOTAL - 15 - warmup)
    assert our_values(schedule, TOTAL + 1) == close([*ramp, *stable, *(BASE_LR * factor for factor in factors)])


def test_the_decay_is_a_fifth_where_nothing_is_said() -> None:
    fifth = our_values(WarmupStableDecay(decay_fraction=0.2), TOTAL)
    assert our_values(WarmupStableDecay(), TOTAL) == fifth
    assert fifth[47:50] == [BASE_LR, BASE_LR, pytest.approx(BASE_LR * (1 - (1 / 12) ** 0.5))]
    assert our_values(WarmupStableDecay(), 2, total=2) == [BASE_LR] * 2  # a fifth of two steps is none
    assert our_values(WarmupStableDecay(decay_steps=0), TOTAL + 1) == [BASE_LR] * (TOTAL + 1)


@pytest.mark.parametrize("total", range(1, 50))
@pytest.mark.parametrize("warmup", [0.1, 0.25, 0.5, 0.7, 0.9])
def test_fractions_that_add_up_to_one_fit_whatever_the_length(warmup: float, total: int) -> None:
    bound = WarmupStableDecay(warmup_fraction=warmup, decay_fraction=1 - warmup).bind(total, STEPS_PER_EPOCH)
    assert bound.lr(bound.warmup, 1.0) == 1.0


def test_a_rate_that_grows_beyond_all_numbers_is_infinite_and_no_error() -> None:
    assert Exponential(gamma=10.0).bind(10_000, 1.0).lr(9_999, 0.1) == math.inf
