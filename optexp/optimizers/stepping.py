"""Taking an optimizer's step without the annotations that torch wraps around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer


def unannotated_step(optimizer: Optimizer) -> Callable[[], Any]:
    """Return `optimizer.step` without torch's wrapper, which opens a profiler range and looks for hooks at each call.

    For a small model on a CPU the wrapper costs as much as the update itself. It is kept when somebody has registered
    hooks, has replaced `step` on the object, or when this version of torch wraps in another way.
    """
    wrapped = type(optimizer).step
    inner = getattr(wrapped, "__wrapped__", None)
    hooks = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
    )
    if "step" in vars(optimizer) or not getattr(wrapped, "hooked", False) or inner is None or any(hooks):
        return lambda: optimizer.step()
    return partial(inner, optimizer)
