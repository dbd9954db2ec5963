"""A step without what torch does around it is the same step, and torch's own where somebody listens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from twins import Kind, Twins, plant

from optexp.optimizers.flat import FlatStep
from optexp.optimizers.stepping import FusedStep, direct_step, unannotated_step

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
FUSED: list[tuple[Kind, dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    (Adam, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    (AdamW, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1}),
]


@pytest.mark.parametrize("kind", [SGD, AdamW, RMSprop, Adagrad])
def test_the_unannotated_step_is_the_same_update(kind: Any) -> None:
    results = []
    for unannotated in (False, True):
        weight = nn.Parameter(torch.arange(1.0, 5.0))
        optimizer = kind([weight], lr=0.1)
        step = unannotated_step(optimizer) if unannotated else optimizer.step
        for _ in range(5):
            weight.grad = weight.detach() * 0.3
            step()
        results.append(weight.detach())
    assert torch.equal(*results)


def test_it_bypasses_the_wrapper_and_hooks_bring_it_back() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = SGD([weight], lr=0.1)
    with torch.profiler.profile() as profile:
        unannotated_step(optimizer)()
    assert not any("Optimizer.step" in event.key for event in profile.key_averages())
    calls: list[int] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    unannotated_step(optimizer)()
    assert calls == [1]
    assert weight.tolist() == pytest.approx([0.8, 0.8])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "settings"), FUSED)
def test_a_fused_step_is_torchs(kind: Kind, settings: dict[str, Any], dtype: torch.dtype) -> None:
    twins = Twins(kind, dtype, fused=True, **settings)
    assert isinstance(twins.step, FusedStep)
    twins.train(8)
    twins.set(lr=0.03, weight_decay=0.2)
    twins.train(4)
    twins.set(lr=torch.tensor(0.02, dtype=dtype))
    twins.train(2)
    twins.assert_equal()


@pytest.mark.parametrize(("kind", "settings"), FUSED)
def test_after_the_first_fused_step_torchs_python_is_out_of_the_way(
    kind: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    twins = Twins(kind, fused=True, **settings)
    twins.train(1)
    before = [parameter.detach().clone() for parameter in twins.parameters[0]]
    monkeypatch.setattr(kind, "_init_group", None)  # where torch collects its tensors
    twins.step()
    assert not any(torch.equal(old, new) for old, new in zip(before, twins.parameters[0], strict=True))
    with pytest.raises(TypeError):
        twins.theirs.step()


@pytest.mark.parametrize(("kind", "settings"), FUSED)
def test_a_fused_step_skips_parameters_without_a_gradient_as_torch_does(kind: Kind, settings: dict[str, Any]) -> None:
    twins = Twins(kind, fused=True, **settings)
    if not settings.get("momentum"):  # with which torch 2.12 fails when a gradient comes later than the others
        twins.train(2, without=[0, 4])
        twins.assert_equal()
    twins.train(3)
    twins.train(2, without=[1])
    twins.train(2)
    twins.assert_equal()


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize(("kind", "settings"), FUSED)
def test_a_fused_step_goes_on_from_a_loaded_state(kind: Kind, settings: dict[str, Any], whose: str) -> None:
    twins = Twins(kind, fused=True, **settings)
    twins.train(5)
    twins.reload(whose)
    twins.train(5)
    twins.assert_equal()


@pytest.mark.parametrize(("kind", "settings"), FUSED[:-1])  # the kernel of Adagrad for CPUs knows no such flag
def test_the_flag_of_the_guard_masks_a_fused_step(kind: Kind, settings: dict[str, Any]) -> None:
    twins = Twins(kind, fused=True, **settings)
    twins.train(3)
    flags = [torch.zeros(()) for _ in range(2)]
    for optimizer, flag in zip((twins.ours, twins.theirs), flags, strict=True):
        optimizer.found_inf = flag  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
    twins.train(2)
    twins.assert_equal()
    before = [parameter.detach().clone() for parameter in twins.parameters[0]]
    for flag in flags:
        flag.fill_(1.0)
    twins.train(2)
    twins.assert_equal()
    assert all(torch.equal(old, new) for old, new in zip(before, twins.parameters[0], strict=True))


class Own(SGD):
    """A subclass may do anything in its step."""


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Own, {"lr": 0.1, "fused": True}),
        (SGD, {"lr": 0.1, "differentiable": True}),
        (Adam, {"lr": torch.tensor(0.1), "fused": True}),
        (torch.optim.Rprop, {"lr": 0.1}),
    ],
)
def test_what_is_not_known_is_left_to_torch(kind: Any, settings: dict[str, Any]) -> None:
    step = direct_step(kind([nn.Parameter(torch.ones(2))], **settings))
    assert not isinstance(step, FusedStep)


def test_hooks_and_replaced_steps_are_called() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer: Any = SGD([weight], lr=0.1, fused=True)
    calls: list[int] = []
    handle = optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    direct_step(optimizer)()
    handle.remove()
    optimizer.step = lambda: calls.append(2)
    direct_step(optimizer)()
    assert calls == [1, 2]


@pytest.mark.parametrize("kernel", ["_fused_adam_", "_fused_adamw_"])
def test_kernels_with_other_arguments_are_left_to_torch(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = Adam([nn.Parameter(torch.ones(2))], fused=True)
    assert isinstance(direct_step(optimizer), FusedStep)
    plant(kernel, "default", "lr", "rate", monkeypatch)
    assert not isinstance(direct_step(optimizer), FusedStep | FlatStep)


@pytest.mark.parametrize(("fused", "expected"), [(True, FusedStep), (False, FlatStep)])
def test_the_implementation_a_user_asks_for_is_used(fused: bool, expected: type) -> None:
    optimizer: Optimizer = AdamW([nn.Parameter(torch.ones(2))], fused=fused)
    assert type(direct_step(optimizer)) is expected


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize(("kind", "settings"), FUSED)
def test_on_a_gpu_a_fused_step_is_torchs_and_waits_for_nothing(kind: Kind, settings: dict[str, Any]) -> None:
    twins = Twins(kind, device="cuda", fused=True, **settings)
    for optimizer in (twins.ours, twins.theirs):
        optimizer.found_inf = torch.zeros((), device="cuda")  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
    twins.train(5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        twins.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    twins.theirs.step()
    twins.ours.found_inf.fill_(1.0)  # type: ignore[attr-defined]
    twins.theirs.found_inf.fill_(1.0)  # type: ignore[attr-defined]
    twins.train(2)
    twins.assert_equal()
