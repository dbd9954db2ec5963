"""torch's fused kernels do what torch does with them, take rates of both kinds, and are called while they are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, AdamW
from twins import Kind, plant, weights

from optexp.optimizers.fused_kernels import FUSED_KERNELS, is_known
from optexp.optimizers.stacked.kernels import pays_off

SETTINGS: list[tuple[Kind, dict[str, Any]]] = [
    (SGD, {"weight_decay": 0.01}),
    (SGD, {"momentum": 0.9, "dampening": 0.5}),
    (SGD, {"momentum": 0.9, "nesterov": True, "maximize": True}),
    (Adam, {"weight_decay": 0.1, "amsgrad": True}),
    (AdamW, {"weight_decay": 0.1, "betas": (0.8, 0.95)}),
    (Adagrad, {"lr_decay": 0.01, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
]
OPERATORS = [(kernel, operator) for kernel in FUSED_KERNELS.values() for operator in kernel.arguments]
every_operator = pytest.mark.parametrize(("kernel", "operator"), OPERATORS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_with_a_number_or_a_tensor_as_the_rate_they_do_what_torch_does_with_the_number(
    kind: Any, settings: dict[str, Any], as_tensor: bool, dtype: torch.dtype
) -> None:
    ours, theirs = weights(dtype), weights(dtype)
    optimizers = [kind(parameters, lr=0.1, fused=True, **settings) for parameters in (ours, theirs)]
    for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
        for parameter in parameters:
            parameter.grad = parameter.detach().cos()
        for _ in range(3):
            optimizer.step()
    rate = torch.tensor(0.03, dtype=dtype)  # 0.03 as this dtype rounds it
    optimizers[1].param_groups[0]["lr"] = rate.item()
    group = {**optimizers[0].param_groups[0], "lr": rate if as_tensor else rate.item()}
    names = [name for name, value in optimizers[0].state[ours[0]].items() if value is not None]
    state = {name: [optimizers[0].state[parameter][name] for parameter in ours] for name in names}
    gradients: list[Any] = [parameter.grad for parameter in ours]
    for _ in range(2):
        with torch.no_grad():
            for count in state.get("step", []):
                count.add_(1)
            FUSED_KERNELS[kind].update(group, list(ours), gradients, state, None, False)
        optimizers[1].step()
    assert all(map(torch.equal, ours, theirs))
    for name in names:
        assert all(map(torch.equal, state[name], [optimizers[1].state[parameter][name] for parameter in theirs]))


def test_the_first_step_of_sgd_fills_its_buffers_undampened() -> None:
    parameter, gradient, buffer = torch.zeros(3), torch.ones(3), torch.full((3,), torch.nan)
    settings = SGD([parameter], lr=0.5, momentum=0.9, dampening=0.3).param_groups[0]
    FUSED_KERNELS[SGD].update(settings, [parameter], [gradient], {"momentum_buffer": [buffer]}, None, True)
    assert buffer.tolist() == [1.0] * 3
    assert parameter.tolist() == [-0.5] * 3


@pytest.mark.parametrize("overload", ["default", "tensor_lr"])
@every_operator
def test_a_kernel_with_other_arguments_is_not_known(
    kernel: Any, operator: str, overload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(operator, overload, "lr", "lr", monkeypatch)
    assert is_known(kernel), "the same schema, planted"
    monkeypatch.undo()
    assert is_known(kernel)
    plant(operator, overload, "weight_decay", "decay", monkeypatch)
    assert not is_known(kernel)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert not pays_off(kernel), "of a stack"


@every_operator
def test_a_kernel_that_is_gone_is_not_known(kernel: Any, operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, operator)
    assert not is_known(kernel)
    monkeypatch.undo()
    monkeypatch.setattr(torch.ops.aten, operator, None)
    assert not is_known(kernel)
