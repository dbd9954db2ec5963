"""Nothing that is not finite reaches the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from optexp.engine.guard import Guard, first_nonfinite


def test_first_nonfinite_names_step_and_quantity() -> None:
    assert first_nonfinite(5, [1.0, 2.0], [1.0, 1.0]) is None
    found = first_nonfinite(5, [1.0, 2.0, math.nan], [1.0, math.inf, math.nan])
    assert found is not None
    assert (found.step, found.quantity, found.value) == (6, "gradient norm", math.inf)
    assert str(found) == "gradient norm is inf at step 6; the update was not applied"


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_the_host_refuses_the_update(loss: float, norm: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    guard = Guard(optimizer, torch.device("cpu"))
    assert not guard.on_device
    assert guard.allows(1.0, 1.0)
    assert not guard.allows(loss, norm)
    assert guard.allows(torch.tensor(1.0), torch.tensor(1.0))
    assert not guard.allows(torch.tensor(loss), torch.tensor(norm))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_on_the_device_the_flag_masks_this_and_all_later_updates(kind: type[torch.optim.Optimizer]) -> None:
    """The kernels of torch's fused optimizers obey the flag on a CPU as well, so this runs everywhere."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.1, fused=True)  # type: ignore[call-arg]
    guard = Guard(optimizer, torch.device("cpu"), on_device=True)
    weight.grad = torch.ones(3)
    assert guard.allows(torch.tensor(1.0), torch.tensor(1.0))
    optimizer.step()
    after_one = weight.detach().clone()
    assert not torch.equal(after_one, torch.ones(3))
    weight.grad = torch.full((3,), math.nan)
    assert guard.allows(torch.tensor(math.nan), torch.tensor(1.0))
    optimizer.step()
    assert torch.equal(weight.detach(), after_one)
    weight.grad = torch.ones(3)
    guard.allows(torch.tensor(1.0), torch.tensor(1.0))
    optimizer.step()
    assert torch.equal(weight.detach(), after_one)
