"""torch's fused kernels, member by member: the bits of torch's fused optimizers, and only where they are sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from races import ALIKE, MEMBERS, RULES, Race, assert_bitwise, close, everything
from torch import nn

from optexp.optimizers.stacked import kernels, stacked_rule

WITH_KERNEL = [target for target in RULES if stacked_rule(target).kernel]
every_kernel = pytest.mark.parametrize("target", WITH_KERNEL)


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@every_kernel
@pytest.mark.parametrize("members", [MEMBERS, ALIKE])
@pytest.mark.parametrize("channels_last", [False, True])
def test_they_give_the_bits_of_torchs_fused_optimizers(target: Any, members: Any, channels_last: bool) -> None:
    race = Race(target, members[target], dtype=torch.float32, channels_last=channels_last, by_kernel=True, fused=True)
    race.step(30)
    race.assert_equal(0)


@every_kernel
def test_they_agree_with_plain_operations(target: Any) -> None:
    races = [Race(target, MEMBERS[target], by_kernel=by_kernel, foreach=False) for by_kernel in (True, False)]
    for race in races:
        race.step(30, singles=False)
    members = range(len(MEMBERS[target]))
    for mine, theirs in zip(*[everything(race, members) for race in races], strict=True):
        close(mine, theirs, 1e-12, "kernel and plain")


@every_kernel
def test_they_are_used_on_one_thread_only(target: Any, threads: Any) -> None:
    used = []
    for number in (1, 2):
        threads(number)
        race = Race(target, MEMBERS[target])
        race.stack.by_kernel = None
        race.step()
        used.append(race.stack.by_kernel)
    assert used == [True, False]


def test_the_choice_of_the_first_step_is_kept(threads: Any) -> None:
    threads(1)
    races = [Race(torch.optim.AdamW, MEMBERS[torch.optim.AdamW], dtype=torch.float32) for _ in range(2)]
    for race, number in zip(races, (1, 2), strict=True):
        race.stack.by_kernel = None
        threads(1)
        race.step(5, singles=False)
        threads(number)
        race.step(5, singles=False)
    assert_bitwise(*[everything(race, [0, 1, 2]) for race in races])


def test_a_torch_without_the_kernel_is_served_by_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "_fused_sgd_")
    race = Race(torch.optim.SGD, MEMBERS[torch.optim.SGD], foreach=False)
    race.stack.by_kernel = None
    race.step(5)
    assert race.stack.by_kernel is False
    race.assert_equal(1e-12)


def test_rules_without_a_kernel_never_ask_for_one() -> None:
    assert not kernels.pays_off(None)


@every_kernel
def test_a_gradient_of_another_layout_is_laid_out_anew(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels walk memory: without that, filters get each other's gradients, which `test_base` would notice."""
    monkeypatch.setattr(kernels, "_gradient", lambda parameter: parameter.grad)
    race = Race(target, MEMBERS[target], by_kernel=True, foreach=False)
    race.channels_last = False
    race.step(5)
    with pytest.raises(AssertionError, match="member 0, conv"):
        race.assert_equal(1e-12)


def test_axes_of_one_element_do_not_count_as_another_layout() -> None:
    """Filters of 1 x 1 lie the same in memory whatever the strides say."""
    parameter = nn.Parameter(torch.randn(2, 4, 3, 1, 1))
    parameter.grad = torch.randn(2, 4, 3, 1, 1).as_strided((2, 4, 3, 1, 1), (12, 3, 1, 3, 3))
    assert kernels._gradient(parameter) is parameter.grad


def test_views_follow_parameters_that_move() -> None:
    races = [Race(torch.optim.SGD, ALIKE[torch.optim.SGD], dtype=torch.float32, by_kernel=True) for _ in range(2)]
    for race, moves in zip(races, (False, True), strict=True):
        race.step(2, singles=False)
        for parameter in race.parameters.values():
            if moves:
                parameter.data = parameter.detach().clone()
        race.step(2, singles=False)
    assert_bitwise(*[everything(race, [0, 1]) for race in races])
