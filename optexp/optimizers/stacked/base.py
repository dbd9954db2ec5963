"""What all stacked update rules share: hyperparameters per member, slots, and the state of one member.

A stack trains R runs ("members") at once. Each parameter is one tensor [R, ...] whose first axis is the member, and so
are the slots (momentum buffers, moments). Hyperparameters are columns [R, 1, ...] that broadcast against them. Members
never meet in an operation, so a member's numbers depend neither on the others nor on how many there are: a NaN in one
leaves the rest bitwise as they were, and so does dropping members.

A rule is plain tensor operations, in place, which wait for nothing. On one CPU thread torch's fused kernels, where they
exist, do the same member by member (see `kernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp.errors import BadInput, Unstackable
from optexp.optimizers.fused_kernels import FusedKernel
from optexp.optimizers.stacked.kernels import MemberViews, pays_off
from optexp.transfers import to_device

Settings = dict[str, Any]
"""A param_group of a torch optimizer without its parameters."""

_HOW_NOT_WHAT = {"lr", "initial_lr", "foreach", "fused"}
"""Settings that do not change an update rule: which implementation, and rates, which `step` is given."""

_REFUSED = {"capturable", "differentiable"}


def settings_of(optimizer: Optimizer) -> list[Settings]:
    """Return the settings of each parameter group of a torch optimizer, as the stacked rules take them.

    That is its param_groups without the parameters, and `maximize` where the optimizer keeps it to itself (Lion).
    """
    apart = {key: value for key, value in vars(optimizer).items() if key == "maximize"}
    return [
        apart | {key: value for key, value in group.items() if key not in ("params", "param_names")}
        for group in optimizer.param_groups
    ]


class Columns:
    """Numbers of R members as tensors [R, 1, ...] that broadcast against stacked tensors of any rank.

    All columns travel to the device in one copy, see `to_device`. `more` are columns that are there already.
    """

    def __init__(
        self, like: Tensor, columns: Callable[[], Mapping[str, Sequence[float]]], more: Columns | None = None
    ) -> None:
        present = columns()
        self._names, self.nonzero = list(present), {name for name, column in present.items() if any(column)}
        computed = [present]

        def table() -> Tensor:  # computed already, but for the replays of a captured step
            return torch.tensor(list((computed.pop() if computed else columns()).values()), dtype=like.dtype)

        self._table = to_device(table, like.device)
        self._more = more
        self._shaped: dict[int, dict[str, Tensor]] = {}

    def at(self, rank: int) -> dict[str, Tensor]:
        """Return the columns by name, shaped for tensors of this rank."""
        if rank not in self._shaped:
            shaped = self._table.view(*self._table.shape, *[1] * (rank - 1)).unbind(0)
            more = self._more.at(rank) if self._more else {}
            self._shaped[rank] = more | dict(zip(self._names, shaped, strict=True))
        return self._shaped[rank]


class StackedOptimizer:
    """Base of the update rules; a rule adds its formula (`_update`), its slots, and perhaps a kernel.

    `parameters` are the trainable ones by name, [R, ...]; `groups` the names in each parameter group; `settings` holds
    for each member and group what the member's own torch optimizer has in `param_groups`, without the parameters.
    Raises Unstackable for members that cannot be trained together.
    """

    arguments: ClassVar[frozenset[str]]
    """The hyperparameters the rule knows; a setting of another name makes members unstackable."""
    shared: ClassVar[tuple[str, ...]] = ()
    """Those that decide which operations there are, and so must be the same for all members."""
    counts_steps: ClassVar[bool] = True
    """Whether torch keeps a `step` in the state of each parameter."""
    starts_with_state: ClassVar[bool] = False
    """Whether torch fills the state when it builds the optimizer, and not at the first gradient."""
    kernel: ClassVar[FusedKernel | None] = None
    """torch's fused kernel that does the same for one member."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        groups: Sequence[Sequence[str]],
        settings: Sequence[Sequence[Mapping[str, Any]]],
    ) -> None:
        self.parameters = dict(parameters)
        self.groups = [list(names) for names in groups]
        self.settings: list[list[Settings]] = [[dict(group) for group in member] for member in settings]
        self.slots: dict[str, dict[str, Tensor]] = {name: {} for name in self.parameters}
        # How many gradients each parameter has seen, or, in rules without a step counter, whether any.
        self.counts: dict[str, int] = dict.fromkeys(self.parameters, 0)
        # The same of members whose state was loaded since the last step; None where their state does not tell.
        self._loaded_counts: dict[int, dict[str, int | None]] = {}
        self._fixed_columns: dict[int, Columns] = {}
        self._rooms_like: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self._rooms_of: dict[str, tuple[Tensor, Tensor]] = {}
        self._views = MemberViews()
        # Decided at the first step and kept, because the two ways round differently; None: not yet.
        self.by_kernel: bool | None = None
        self._check_parameters()
        self._check_settings(self.settings)
        if self.starts_with_state:
            for group, names in enumerate(self.groups):
                self._create_slots(group, names)

    # ------------------------------------------------------------------------------------------------ what a rule adds

    def _slot_names(self, settings: Settings) -> tuple[str, ...]:
        """Return the slots that torch keeps for each parameter of a group with these settings, in torch's order."""
        raise NotImplementedError

    def _hyperparameters(self, settings: list[Settings]) -> dict[str, list[float]]:
        """Return the numbers of the members' settings that `_update` wants as columns, the same at every step.

        "weight_decay", "maximize" (0 or 1) and "sign" (-1 for maximize) are there anyway.
        """
        return {}

    def _update(self, group: int, names: Sequence[str], count: int) -> None:
        """Update parameters of a group from their gradients; `count` is the number of gradients seen before this.

        A captured update is repeated with other rates and counts (`self.counts`): what depends on them is a column.
        """
        raise NotImplementedError

    def _initial_value(self, slot: str, settings: Settings) -> float:
        return 0.0

    # ------------------------------------------------------------------------------------------------------- the step

    def step(self, learning_rates: Sequence[float]) -> None:
        """Update all members once, from `parameter.grad` and with one learning rate for each member.

        A parameter without a gradient is left alone, as torch does. The gradients are not changed.
        """
        self.prepare(learning_rates)
        self.update()
        self.advance()

    def prepare(self, learning_rates: Sequence[float]) -> None:
        """Take the learning rates of the next update, which is still to be made."""
        if self._loaded_counts:
            self._settle_counts()
        for member, rate in zip(self.settings, learning_rates, strict=True):
            for settings in member:
                settings["lr"] = rate

    @torch.no_grad()
    def update(self) -> None:
        """Do what a step does on the device; it may be captured and repeated, between `prepare` and `advance`."""
        for group, names in enumerate(self.groups):
            by_count: dict[int, list[str]] = {}
            for name in names:
                if self.parameters[name].grad is not None:
                    by_count.setdefault(self.counts[name], []).append(name)
            for count, batch in by_count.items():
                if count == 0:
                    self._create_slots(group, batch)
                self._update_batch(group, batch, count)

    def advance(self) -> None:
        """Count the step that was made."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.counts[name] = self.counts[name] + 1 if self.counts_steps else 1

    def _update_batch(self, group: int, names: list[str], count: int) -> None:
        if self.by_kernel is None:
            self.by_kernel = pays_off(self.kernel)
        if self.by_kernel and self.kernel and self._views.possible(names, self.parameters):
            steps = [torch.tensor(count + 1.0)] * len(names)
            for member, tensors in enumerate(self._views.cut(names, self.parameters, self.slots)):
                tensors["step"] = steps
                settings, gradients = self.settings[member][group], tensors["gradients"]
                self.kernel.update(settings, tensors["parameters"], gradients, tensors, None, count == 0)
        else:
            self._update(group, names, count)

    def _columns(self, columns: Callable[[], Mapping[str, Sequence[float]]], more: Columns | None = None) -> Columns:
        return Columns(next(iter(self.parameters.values())), columns, more)

    def _of_group(self, group: int) -> list[Settings]:
        """Return the settings of all members."""
        return [member[group] for member in self.settings]

    def _fixed(self, group: int) -> Columns:
        """Return the columns of a group that no step changes, made once."""
        if group not in self._fixed_columns:
            settings = self._of_group(group)
            common = {
                "maximize": [float(own.get("maximize", False)) for own in settings],
                "sign": [-1.0 if own.get("maximize", False) else 1.0 for own in settings],
                "weight_decay": [own["weight_decay"] for own in settings],
            }
            self._fixed_columns[group] = self._columns(lambda: common | self._hyperparameters(settings))
        return self._fixed_columns[group]

    def _gradient(self, name: str, column: Mapping[str, Tensor], fixed: Columns) -> Tensor:
        """Return the gradient to descend along: negated where a member maximizes, plus weight_decay * w.

        It is the parameter's own gradient or lies in the first of its rooms.
        """
        parameter = self.parameters[name]
        gradient = parameter.grad
        assert gradient is not None
        if "maximize" in fixed.nonzero:
            gradient = torch.mul(gradient, column["sign"], out=self._rooms(name)[0])
        if "weight_decay" in fixed.nonzero:
            gradient = torch.addcmul(gradient, parameter, column["weight_decay"], out=self._rooms(name)[0])
        return gradient

    def _rooms(self, name: str) -> tuple[Tensor, Tensor]:
        """Return memory for two intermediate results, in the shape and layout of a parameter."""
        if name not in self._rooms_of:
            parameter = self.parameters[name]
            key = (parameter.shape, parameter.stride())  # parameters of one shape take turns in the same rooms
            if key not in self._rooms_like:
                first, second = (torch.empty_like(parameter, requires_grad=False) for _ in range(2))
                self._rooms_like[key] = (first, second)
            self._rooms_of[name] = self._rooms_like[key]
        return self._rooms_of[name]

    # ------------------------------------------------------------------------------------------------------- members

    def select(self, rows: Tensor) -> None:
        """Keep these members (int64 [r]) in this order.

        The caller has already replaced the data of the parameters by those of these members.
        """
        kept = rows.tolist()
        if self._loaded_counts:
            self._settle_counts()
        self.settings = [[dict(group) for group in self.settings[row]] for row in kept]
        for group, names in enumerate(self.groups):
            needed = self._needed_slots(group)
            for name in names:
                self.slots[name] = {
                    slot: _laid_out_as(self.parameters[name], tensor.index_select(0, rows.to(tensor.device)))
                    for slot, tensor in self.slots[name].items()
                    if slot in needed
                }
        self._fixed_columns.clear()
        self._rooms_like.clear()
        self._rooms_of.clear()
        self._views.clear()

    def member_state(self, member: int) -> dict[str, Any]:
        """Return what `engine.state.optimizer_state` returns for the member's own torch optimizer after the same steps.

        The tensors are views of this stack's memory, as torch's are the optimizer's own.
        """
        counts = self._loaded_counts.get(member, self.counts)
        parameters: dict[str, dict[str, Tensor]] = {}
        for names, settings in zip(self.groups, self.settings[member], strict=True):
            slots = self._slot_names(settings)
            for name in names:
                count = counts[name] or 0
                if (count or self.starts_with_state) and (slots or self.counts_steps):
                    state = {"step": self._step_tensor(count, settings)} if self.counts_steps else {}
                    parameters[name] = state | {slot: self.slots[name][slot][member] for slot in slots}
        return {"parameters": parameters, "groups": [dict(settings) for settings in self.settings[member]]}

    def load_member_state(self, member: int, tree: dict[str, Any]) -> None:
        """Take what `member_state`, or `optimizer_state` of a single run, returned.

        The hyperparameters come with it. Raises BadInput when it is for other parameters, Unstackable when its
        hyperparameters do not fit the other members'. All members must have taken the same number of steps by the
        next step.
        """
        if unknown := sorted(tree["parameters"].keys() - self.parameters.keys()):
            raise BadInput(f"the checkpoint's optimizer state is for other parameters, such as '{unknown[0]}'")
        loaded = [own | dict(new) for own, new in zip(self.settings[member], tree["groups"], strict=True)]
        settings = [*self.settings[:member], loaded, *self.settings[member + 1 :]]
        self._check_settings(settings)
        self.settings = settings
        self._fixed_columns.clear()
        counts: dict[str, int | None] = {}
        for group, names in enumerate(self.groups):
            for name in names:
                state = tree["parameters"].get(name)
                counts[name] = self._load_slots(name, member, group, state)
        self._loaded_counts[member] = counts

    def _load_slots(self, name: str, member: int, group: int, state: Mapping[str, Tensor] | None) -> int | None:
        """Copy the state of one parameter and return the steps it has taken; None when it cannot tell."""
        settings = self.settings[member][group]
        slots = self._slot_names(settings)
        if state is not None:
            self._create_slots(group, [name])
        for slot, tensor in self.slots[name].items():
            if state is None or slot not in slots:
                tensor[member].fill_(self._initial_value(slot, settings))
            elif slot in state and state[slot].shape == tensor.shape[1:]:
                tensor[member].copy_(state[slot])
            else:
                raise BadInput(f"the checkpoint's optimizer state has no {slot} that fits '{name}'")
        if self.counts_steps:
            return 0 if state is None else int(state["step"])
        return int(state is not None) if slots else None

    def _settle_counts(self) -> None:
        for name in self.parameters:
            known = {
                count
                for member in range(len(self.settings))
                if (count := self._loaded_counts.get(member, self.counts)[name]) is not None
            }
            assert len(known) <= 1, f"the members have taken different numbers of steps in '{name}': {sorted(known)}"
            self.counts[name] = known.pop() if known else self.counts[name]
        self._loaded_counts.clear()

    def _needed_slots(self, group: int) -> list[str]:
        """Return the slots that any member keeps."""
        return list(dict.fromkeys(slot for member in self.settings for slot in self._slot_names(member[group])))

    def _create_slots(self, group: int, names: Sequence[str]) -> None:
        for name in names:
            for slot in self._needed_slots(group):
                if slot not in self.slots[name]:
                    tensor = torch.zeros_like(self.parameters[name], requires_grad=False)
                    for member, settings in enumerate(self.settings):
                        if value := self._initial_value(slot, settings[group]):
                            tensor[member].fill_(value)
                    self.slots[name][slot] = tensor
        self._views.clear()

    def _step_tensor(self, count: int, settings: Settings) -> Tensor:
        """Return a step counter as torch keeps it: on the device, and always float32, only for fused kernels."""
        if settings.get("fused"):
            device = next(iter(self.parameters.values())).device
            return torch.tensor(float(count), dtype=torch.float32, device=device)
        return torch.tensor(float(count), dtype=torch.get_default_dtype())

    # ------------------------------------------------------------------------------------------------- what may not be

    def _check_parameters(self) -> None:
        kinds = {(parameter.dtype, parameter.device) for parameter in self.parameters.values()}
        if len(kinds) > 1:
            raise Unstackable("its parameters have several dtypes or devices")
        for dtype, _ in kinds:
            if dtype not in (torch.float32, torch.float64):  # a column in bfloat16 would turn beta 0.999 into 1
                raise Unstackable(f"its parameters are {str(dtype).removeprefix('torch.')}")

    def _check_settings(self, settings: Sequence[Sequence[Settings]]) -> None:
        for member in settings:
            for group in member:
                self._check_group(group)
        for key in self.shared:
            for in_group in zip(*settings, strict=True):
                if len({bool(own.get(key)) for own in in_group}) > 1:
                    raise Unstackable(f"optimizer.{key} differs between members")

    def _check_group(self, settings: Settings) -> None:
        """Raise Unstackable for settings that have no stacked rule."""
        for key in _REFUSED:
            if settings.get(key):
                raise Unstackable(f"optimizer.{key} is true")
        for key, value in settings.items():
            if key not in self.arguments | _HOW_NOT_WHAT | _REFUSED:
                raise Unstackable(f"optimizer.{key} is not known to the stacked rule")
            values = value if isinstance(value, tuple | list) else [value]
            if key != "lr" and any(isinstance(item, Tensor) for item in values):
                raise Unstackable(f"optimizer.{key} is a tensor")


def _laid_out_as(parameter: Tensor, values: Tensor) -> Tensor:
    return torch.empty_like(parameter, requires_grad=False).copy_(values)
