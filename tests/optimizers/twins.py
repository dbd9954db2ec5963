"""Two equal optimizers over equal parameters: one is stepped as the engine does it, the other by torch itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp.optimizers.stepping import direct_step

Kind = type[Optimizer]


def weights(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[nn.Parameter]:
    """Return a channels-last kernel, a transposed matrix, two vectors and a number; no length is a multiple of 16."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(5, 3, 3, 3), (7, 5), (7,), (3,), (1,)]
    tensors = [torch.randn(shape, generator=generator, dtype=dtype).to(device) for shape in shapes]
    tensors[0] = tensors[0].to(memory_format=torch.channels_last)
    tensors[1] = tensors[1].t()
    return [nn.Parameter(tensor) for tensor in tensors]


class Twins:
    """`ours` is stepped by `step`, `theirs` by torch; both always get the same gradients."""

    def __init__(self, kind: Kind, dtype: torch.dtype = torch.float32, device: str = "cpu", **settings: Any) -> None:
        """Both have two groups, of which the second has no weight decay."""
        self.parameters = [weights(dtype, device) for _ in range(2)]
        groups = [[{"params": own[:2]}, {"params": own[2:], "weight_decay": 0.0}] for own in self.parameters]
        self.ours, self.theirs = (kind(own, **settings) for own in groups)  # type: ignore[arg-type]
        self.step = direct_step(self.ours)
        self._generator = torch.Generator().manual_seed(5)

    def train(self, steps: int, without: Sequence[int] = ()) -> None:
        """Take steps; the parameters at the places `without` have no gradient in them."""
        for _ in range(steps):
            for place, pair in enumerate(zip(*self.parameters, strict=True)):
                gradient = torch.randn(pair[0].shape, generator=self._generator, dtype=torch.float64)
                for parameter in pair:
                    like = torch.empty_like(parameter).copy_(gradient)
                    parameter.grad = None if place in without else like
            self.step()
            self.theirs.step()

    def set(self, **settings: Any) -> None:
        """Change settings of all groups of both."""
        for optimizer in (self.ours, self.theirs):
            for group in optimizer.param_groups:
                group.update(settings)

    def reload(self, whose: str) -> None:
        """Give both the state of one of them, as a checkpoint would."""
        saved = copy.deepcopy(getattr(self, whose).state_dict())
        for optimizer in (self.ours, self.theirs):
            optimizer.load_state_dict(copy.deepcopy(saved))

    def assert_equal(self, **tolerances: Any) -> None:
        """Compare parameters and the whole state; bit by bit without tolerances."""
        tolerances = tolerances or {"rtol": 0, "atol": 0}
        for ours, theirs in zip(*self.parameters, strict=True):
            torch.testing.assert_close(ours, theirs, **tolerances)
            assert ours.stride() == theirs.stride()
            states: tuple[dict[str, Tensor], ...] = (self.ours.state.get(ours, {}), self.theirs.state.get(theirs, {}))
            assert states[0].keys() == states[1].keys()
            for name, value in states[1].items():
                assert states[0][name].dtype == value.dtype
                assert states[0][name].stride() == value.stride()
                torch.testing.assert_close(states[0][name], value, **tolerances)


def plant(operator: str, overload: str, name: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an operator of torch be one of a version in which an argument of one overload has another name."""
    found = getattr(torch.ops.aten, operator)
    overloads = {own: getattr(found, own) for own in found.overloads()}
    text = str(overloads[overload]._schema)
    assert text.count(f" {name},") == 1
    schema = torch._C.parse_schema(text.replace(f" {name},", f" {other},"))
    overloads[overload] = SimpleNamespace(_schema=schema)
    monkeypatch.setattr(torch.ops.aten, operator, SimpleNamespace(**overloads))
