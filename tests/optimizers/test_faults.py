"""What is known to be wrong is still wrong, and is said."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import nn
from torch.optim import Optimizer

from optexp.errors import BadInput
from optexp.optimizers import demands
from optexp.optimizers.faults import KNOWN_FAULTS, ignored_schedule, known_faults
from optexp.optimizers.notes import optimizer_notes


def trajectory(target: type[Optimizer], rate: float = 1.0, **arguments: Any) -> torch.Tensor:
    """Minimize a quadratic; from the third step on the learning rate is multiplied by `rate`."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    optimizer = target([weight], **arguments)
    for step in range(6):
        weight.grad = weight.detach() * torch.tensor([1.0, 0.3])
        if step == 2:
            optimizer.param_groups[0]["lr"] *= rate
        optimizer.step()
    return weight.detach()


def test_what_the_table_says_of_the_installed_versions_is_true() -> None:
    light = pytorch_optimizer.SCIONLight
    assert torch.equal(trajectory(light, momentum=0.1), trajectory(light, momentum=0.9))
    for target in (pytorch_optimizer.AdaFactor, pytorch_optimizer.ApolloDQN, torch.optim.Rprop):
        assert torch.equal(trajectory(target), trajectory(target, rate=0.1))
        assert any("schedule has no effect" in line or "no effect" in line for line in known_faults(made(target)))
        assert "no effect" in str(ignored_schedule(made(target)))
    relative = {"relative_step": False, "lr": 1e-3}
    factor = pytorch_optimizer.AdaFactor
    assert not torch.equal(trajectory(factor, **relative), trajectory(factor, rate=0.1, **relative))
    assert known_faults(made(factor, **relative)) == []
    apollo = pytorch_optimizer.ApolloDQN
    assert not torch.equal(trajectory(apollo, warmup_steps=0), trajectory(apollo, rate=0.1, warmup_steps=0))
    assert known_faults(made(apollo, warmup_steps=0)) == []


def test_a_fault_that_leaves_the_schedule_its_effect_is_none_that_ignores_it() -> None:
    """ASGD is late by a step, SCIONLight has no momentum: both still go by the learning rate that is set."""
    for target in (torch.optim.ASGD, pytorch_optimizer.SCIONLight):
        assert len(known_faults(made(target, lr=0.1))) == 1
        assert ignored_schedule(made(target, lr=0.1)) is None
        assert not torch.equal(trajectory(target, lr=0.1), trajectory(target, rate=0.1, lr=0.1))


def made(target: type[Optimizer], **arguments: Any) -> Optimizer:
    return target([nn.Parameter(torch.ones(2))], **arguments)


def test_faults_are_told_of_the_versions_and_settings_that_have_them() -> None:
    sgdw = made(pytorch_optimizer.SGDW, momentum=0.9)
    (line,) = known_faults(sgdw, "3.11.0")
    assert line == (
        "SGDW of pytorch_optimizer 3.11.0: its momentum buffer starts as the weights, and its default implementation "
        "(foreach) ignores momentum (github.com/kozistr/pytorch_optimizer/issues/519; fixed in pytorch_optimizer 4.0.0)"
    )
    assert known_faults(sgdw, "4.0.0") == known_faults(sgdw, "10.0") == []
    assert known_faults(made(pytorch_optimizer.SGDW), "3.9.0") == []
    signs = made(pytorch_optimizer.SignSGD, momentum=0.9, weight_decay=0.1)
    assert len(known_faults(signs, "3.10.2")) == 2
    assert known_faults(made(torch.optim.SGD, lr=0.1)) == []


def test_every_entry_of_the_table_names_a_class() -> None:
    packages = {"pytorch_optimizer": pytorch_optimizer, "torch": torch.optim}
    for name in KNOWN_FAULTS:
        package, kind = name.split(".")
        assert issubclass(getattr(packages[package], kind), Optimizer)


def test_batches_and_clipping_that_do_not_suit_are_told() -> None:
    lbfgs = made(torch.optim.LBFGS)
    assert optimizer_notes(lbfgs) == []
    told = optimizer_notes(lbfgs, clip_norm=1.0, full_batch=False)
    assert [line.split()[0] for line in told] == ["engine.clip_norm", "LBFGS"]
    assert "dataset.batch_size=full" in optimizer_notes(made(torch.optim.Rprop), full_batch=False)[0]


def test_paged_state_needs_cuda() -> None:
    paged = type("PagedAdamW8bit", (torch.optim.AdamW,), {"__module__": "bitsandbytes.optim", "is_paged": True})
    with pytest.raises(BadInput, match=r"engine.device=cpu: PagedAdamW8bit pages its state .* allowed is cuda"):
        demands.check(made(paged), "fp32", False, torch.device("cpu"))
    demands.check(made(paged), "fp32", False, torch.device("cuda"))


def test_eight_bit_adamw_follows_adamw_on_a_cpu() -> None:
    eight = pytest.importorskip("bitsandbytes").optim.AdamW8bit
    torch.manual_seed(0)
    start, target = torch.randn(64, 64), torch.randn(64, 64)
    found = []
    for rule in (eight, torch.optim.AdamW):
        weight = nn.Parameter(start.clone())
        optimizer = rule([weight], lr=1e-2, weight_decay=0.01)
        for _ in range(50):
            weight.grad = (weight - target).detach()
            optimizer.step()
        found.append(weight.detach() - start)
    assert (found[0] - found[1]).norm() < 0.05 * found[1].norm()
