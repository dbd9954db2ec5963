"""The step without torch's annotations is the same step, and the annotated one where somebody listens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optexp.optimizers.stepping import unannotated_step


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_it_is_the_same_update(kind: Any) -> None:
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
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with torch.profiler.profile() as profile:
        unannotated_step(optimizer)()
    assert not any("Optimizer.step" in event.key for event in profile.key_averages())
    calls: list[int] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    unannotated_step(optimizer)()
    assert calls == [1]
    assert weight.tolist() == pytest.approx([0.8, 0.8])
