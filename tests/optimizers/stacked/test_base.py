"""What every stacked rule must do, tested on all of them, as plain operations and, where there is one, by kernel."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import pytorch_optimizer
import torch
from races import (
    ALIKE,
    GROUPS,
    MEMBERS,
    OFTEN_MISSING,
    RULES,
    Race,
    assert_bitwise,
    close,
    everything,
    new_optimizer,
    new_stack,
)
from torch import nn

from optexp.engine.checkpoint import pack, unpack
from optexp.engine.state import load_optimizer_state, optimizer_state
from optexp.errors import BadInput, Unstackable
from optexp.optimizers.stacked import settings_of, stacked_rule
from optexp.optimizers.stacked.base import StackedOptimizer
from optexp.optimizers.stacked.sgd import SGD

WAYS = [
    (target, by_kernel)
    for target in RULES
    for by_kernel in (False, True)
    if not by_kernel or stacked_rule(target).kernel
]
every_way = pytest.mark.parametrize(("target", "by_kernel"), WAYS)
every_rule = pytest.mark.parametrize("target", RULES)


@every_way
@pytest.mark.parametrize("members", [MEMBERS, ALIKE])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["float64", "float32"]
)
def test_members_train_as_alone(
    target: Any, by_kernel: bool, members: Any, dtype: torch.dtype, tolerance: float
) -> None:
    race = Race(target, members[target], dtype=dtype, by_kernel=by_kernel, foreach=False)
    race.assert_equal(0)  # before the first step
    race.step(3, missing=[OFTEN_MISSING])
    race.assert_equal(tolerance)
    race.step(20)
    race.step(2, missing=[OFTEN_MISSING, "conv"])
    race.step(10)
    race.assert_equal(tolerance)


@every_way
def test_gradients_and_parameters_in_another_layout_than_the_slots_expect(target: Any, by_kernel: bool) -> None:
    """Contiguous parameters with channels-last gradients, and the other way round."""
    for channels_last in (False, True):
        race = Race(target, MEMBERS[target], channels_last=channels_last, by_kernel=by_kernel, foreach=False)
        race.channels_last = not channels_last
        race.step(30)
        race.assert_equal(1e-12)


def test_parameters_that_are_not_dense_are_never_given_to_a_kernel() -> None:
    wide = torch.randn(2, 6, 8, dtype=torch.float64)
    parameters = {name: nn.Parameter(wide[:, :, start : start + 3]) for name, start in (("a", 0), ("b", 4))}
    settings = settings_of(torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1))
    expected = [nn.Parameter(value.detach().clone().contiguous()) for value in parameters.values()]
    optimizer = torch.optim.AdamW(expected, lr=0.1)
    stack = stacked_rule(torch.optim.AdamW)(parameters, [["a", "b"]], [settings] * 2)
    stack.by_kernel = True
    between = wide[:, :, 3].clone()
    for _ in range(5):
        for own, other in zip(parameters.values(), expected, strict=True):
            own.grad = torch.randn_like(other)
            other.grad = own.grad.clone()
        stack.step([0.1, 0.1])
        optimizer.step()
    for own, other in zip(parameters.values(), expected, strict=True):
        close(own.detach(), other.detach(), 1e-12, "a parameter of every other column")
    assert torch.equal(wide[:, :, 3], between)


@every_way
def test_a_nan_stays_with_its_member(target: Any, by_kernel: bool) -> None:
    races = [Race(target, MEMBERS[target], dtype=torch.float32, by_kernel=by_kernel) for _ in range(2)]
    others = [member for member in range(len(MEMBERS[target])) if member != 1]
    for race, poison in zip(races, (-1, 1), strict=True):
        race.step(4, singles=False)
        race.step(1, singles=False, poison=poison)
        race.step(4, singles=False)
    assert_bitwise(everything(races[1], others), everything(races[0], others))
    assert any(tensor.isnan().any() for tensor in everything(races[1], [1]))  # Lion: in its momentum, as sign(NaN) is 0


@every_way
def test_dropping_members_changes_no_bit_of_the_others(target: Any, by_kernel: bool) -> None:
    races = [Race(target, MEMBERS[target], dtype=torch.float32, by_kernel=by_kernel, foreach=False) for _ in range(2)]
    kept = [2, 0]
    for race in races:
        race.step(7, missing=[OFTEN_MISSING])
        race.step(3)
    races[1].keep(kept)
    for _ in range(10):
        gradients = {name: races[0].values(len(MEMBERS[target]), name) for name in races[0].parameters}
        for race, rows in zip(races, (slice(None), kept), strict=True):
            for name, parameter in race.parameters.items():
                parameter.grad = torch.empty_like(parameter).copy_(gradients[name][rows])
            race.stack.step(race.rates())
    assert_bitwise(everything(races[1], [0, 1]), everything(races[0], kept))


@every_way
def test_a_member_has_the_same_bits_in_any_company(target: Any, by_kernel: bool) -> None:
    """Nothing depends on the others' hyperparameters either: a member with momentum beside one without."""
    members = MEMBERS[target]
    whole = Race(target, members, dtype=torch.float32, by_kernel=by_kernel, foreach=False)
    parts = [Race(target, [member] * 2, dtype=torch.float32, by_kernel=by_kernel, foreach=False) for member in members]
    for row, part in enumerate(parts):
        for name, parameter in part.parameters.items():
            parameter.data.copy_(whole.parameters[name].detach()[row])
    for _ in range(10):
        whole.step(singles=False)
        for row, part in enumerate(parts):
            for name, parameter in part.parameters.items():
                gradient = whole.parameters[name].grad[row]
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
            part.stack.step([part.rates()[0]] * 2)
            part.taken += 1
    for row, part in enumerate(parts):
        assert_bitwise(everything(part, [1]), everything(whole, [row]))


@pytest.mark.parametrize("number", [1, 2])
def test_the_bits_do_not_depend_on_how_a_tensor_is_cut_up(number: int) -> None:
    """A tensor large enough to be shared out to threads, whose members fill neither them nor vector registers."""
    values, gradients = torch.randn(2, 3, 40_001).unbind(0)
    settings = settings_of(torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1))
    found = []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(number)
        for rows in (slice(0, 3), slice(1, 2)):
            parameter = nn.Parameter(values[rows].clone())
            stack = stacked_rule(torch.optim.AdamW)({"w": parameter}, [["w"]], [settings] * len(parameter))
            stack.by_kernel = False
            for _ in range(3):
                parameter.grad = gradients[rows]
                stack.step([0.1] * len(parameter))
            found.append(parameter.detach())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][1:2], found[1])


@every_way
def test_single_checkpoints_go_on_inside_a_stack(target: Any, by_kernel: bool) -> None:
    race = Race(target, MEMBERS[target], by_kernel=by_kernel, foreach=False)
    race.step(10, missing=[OFTEN_MISSING])
    race.step(2)
    fresh = [new_optimizer(target, copy.deepcopy(model), {"lr": 1.0}) for model in race.models]
    race.stack = new_stack(target, race.parameters, fresh, by_kernel)
    for member, (model, optimizer) in enumerate(zip(race.models, race.optimizers, strict=True)):
        tensors: dict[str, torch.Tensor] = {}
        tree = unpack(json.loads(json.dumps(pack(optimizer_state(model, optimizer), tensors))), tensors)
        load_optimizer_state(model, optimizer, tree)
        race.stack.load_member_state(member, tree)
    race.assert_equal(1e-12)
    race.step(20)
    race.assert_equal(1e-12)


@every_way
def test_members_go_on_alone(target: Any, by_kernel: bool) -> None:
    race = Race(target, MEMBERS[target], by_kernel=by_kernel, foreach=False)
    race.step(12, singles=False)
    for member, (model, optimizer) in enumerate(zip(race.models, race.optimizers, strict=True)):
        for name, parameter in race.parameters.items():
            model[name].data.copy_(parameter.detach()[member])
        load_optimizer_state(model, optimizer, race.stack.member_state(member))
    race.step(20)
    race.assert_equal(1e-12)


@every_way
def test_a_stack_goes_on_from_its_members_states_bitwise(target: Any, by_kernel: bool) -> None:
    race = Race(target, MEMBERS[target], dtype=torch.float32, by_kernel=by_kernel, foreach=False)
    race.step(6, missing=[OFTEN_MISSING], singles=False)
    race.step(6, singles=False)
    again = copy.deepcopy(race)
    again.stack = new_stack(target, again.parameters, again.optimizers, by_kernel)
    for member in range(len(race.models)):
        again.stack.load_member_state(member, race.stack.member_state(member))
    for each in (race, again):
        each.step(10, singles=False)
    members = range(len(race.models))
    assert_bitwise(everything(again, members), everything(race, members))


@every_rule
def test_states_of_torchs_fused_optimizers(target: Any) -> None:
    """Their step counters are float32 whatever the default type is."""
    fused = {"fused": True} if stacked_rule(target).kernel else {}
    members = [{**member, **fused} for member in ALIKE[target]]
    before = torch.get_default_dtype()
    try:
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            race = Race(target, members)
            race.assert_equal(0)
            race.step(3)
            race.assert_equal(1e-12)
    finally:
        torch.set_default_dtype(before)


@every_rule
def test_a_step_reads_nothing_back(target: Any) -> None:
    """Tensors on the meta device have no values: whatever needs one, as `.item()` does, raises."""
    race = Race(target, MEMBERS[target])
    parameters = {name: nn.Parameter(value.detach().to("meta")) for name, value in race.parameters.items()}
    stack = new_stack(target, parameters, race.optimizers, by_kernel=True)
    for _ in range(3):
        for parameter in parameters.values():
            parameter.grad = torch.empty_like(parameter)
        stack.step(race.rates())
    with pytest.raises(RuntimeError):
        parameters["hidden"].sum().item()


@every_rule
def test_gradients_are_left_as_they_were(target: Any) -> None:
    race = Race(target, MEMBERS[target])
    race.step(2)
    gradients = {name: parameter.grad.clone() for name, parameter in race.parameters.items()}
    race.stack.step(race.rates())
    assert all(torch.equal(parameter.grad, gradients[name]) for name, parameter in race.parameters.items())


def test_members_must_have_taken_the_same_number_of_steps() -> None:
    race = Race(torch.optim.Adam, MEMBERS[torch.optim.Adam])
    race.step(3)
    ahead = race.stack.member_state(0)
    race.stack = new_stack(torch.optim.Adam, race.parameters, race.optimizers, by_kernel=False)
    race.stack.load_member_state(0, ahead)
    with pytest.raises(AssertionError, match="different numbers of steps"):
        race.stack.step(race.rates())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"nobody": {}}, "for other parameters, such as 'nobody'"),
        ({"bias": {"momentum_buffer": torch.zeros(1, 5)}}, "has no momentum_buffer that fits 'bias'"),
        ({"bias": {"exp_avg": torch.zeros(5)}}, "has no momentum_buffer that fits 'bias'"),
    ],
)
def test_a_state_that_does_not_fit(state: dict[str, Any], message: str) -> None:
    race = Race(torch.optim.SGD, MEMBERS[torch.optim.SGD])
    tree = race.stack.member_state(1)
    with pytest.raises(BadInput, match=message):
        race.stack.load_member_state(1, {**tree, "parameters": state})


@pytest.mark.parametrize(
    ("target", "members", "reason"),
    [
        (torch.optim.Adam, [{}, {"amsgrad": True}], "optimizer.amsgrad differs between members"),
        (torch.optim.RMSprop, [{"centered": True}, {}], "optimizer.centered differs between members"),
        (torch.optim.Adam, [{}, {"capturable": True}], "optimizer.capturable is true"),
        (torch.optim.SGD, [{"differentiable": True}, {}], "optimizer.differentiable is true"),
        (torch.optim.SGD, [{"weight_decay": torch.tensor(0.1)}], "optimizer.weight_decay is a tensor"),
        (torch.optim.Adam, [{"betas": (torch.tensor(0.9), torch.tensor(0.99))}], "optimizer.betas is a tensor"),
        *[
            (RULES[-1], [{}, {unknown: True}], f"optimizer.{unknown} is not known to the stacked rule")
            for unknown in ("use_gc", "adanorm", "cautious")
        ],
    ],
)
def test_what_cannot_be_stacked(target: Any, members: list[dict[str, Any]], reason: str) -> None:
    parameter = nn.Parameter(torch.zeros(len(members), 3))
    settings = [settings_of(target([nn.Parameter(torch.zeros(3))], lr=0.1, **member)) for member in members]
    with pytest.raises(Unstackable, match=f"^{reason}$"):
        stacked_rule(target)({"a": parameter}, [["a"]], settings)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ([torch.zeros(2, 3, dtype=torch.bfloat16)], "its parameters are bfloat16"),
        ([torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.float64)], "its parameters have several dtypes or devices"),
    ],
)
def test_parameters_that_cannot_be_stacked(parameters: list[torch.Tensor], reason: str) -> None:
    named = {str(index): nn.Parameter(value) for index, value in enumerate(parameters)}
    settings = settings_of(torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1))
    with pytest.raises(Unstackable, match=reason):
        SGD(named, [list(named)], [settings] * 2)


def test_a_loaded_state_must_be_stackable_too() -> None:
    race = Race(torch.optim.Adam, ALIKE[torch.optim.Adam])
    tree = race.stack.member_state(0)
    tree["groups"] = [{**group, "amsgrad": False} for group in tree["groups"]]
    with pytest.raises(Unstackable, match="amsgrad differs"):
        race.stack.load_member_state(1, tree)


def test_other_optimizers_have_no_rule() -> None:
    class Own(torch.optim.SGD):
        pass

    others = (torch.optim.NAdam, Own, pytorch_optimizer.AdaBelief, torch.add, None)
    assert [stacked_rule(other) for other in others] == [None] * len(others)
    assert stacked_rule(torch.optim.SGD) is SGD


def test_a_coupling_between_members_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: they notice a millionth of the other members' weights."""
    update = StackedOptimizer._update_batch

    def coupled(self: StackedOptimizer, group: int, names: list[str], count: int) -> None:
        update(self, group, names, count)
        for name in names:
            self.parameters[name].add_(self.parameters[name].mean(0), alpha=1e-6)

    monkeypatch.setattr(StackedOptimizer, "_update_batch", coupled)
    with pytest.raises(AssertionError):
        test_a_nan_stays_with_its_member(torch.optim.SGD, by_kernel=False)
    with pytest.raises(AssertionError):
        test_dropping_members_changes_no_bit_of_the_others(torch.optim.SGD, by_kernel=False)
    with pytest.raises(AssertionError):
        test_members_train_as_alone(torch.optim.SGD, False, MEMBERS, torch.float64, 1e-12)


def test_the_second_group_has_no_weight_decay() -> None:
    race = Race(torch.optim.SGD, MEMBERS[torch.optim.SGD])
    assert [[group["weight_decay"] for group in member] for member in race.stack.settings][1] == [0.1, 0.0]
    assert race.stack.groups == GROUPS
