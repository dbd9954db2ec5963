"""What an optimizer asks of whoever takes its steps, beyond gradients and a learning rate."""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer

from optexp.errors import BadInput

_READS_THE_LOSS = ("BSAM", "EmoFact", "EmoLynx", "EmoNavi")
"""Classes of pytorch_optimizer whose closure is optional by its signature and needed all the same."""

_NEVER_DRAWS = ("Lion", "ScheduleFreeAdamW")
"""Classes of pytorch_optimizer whose steps are known to be the same every time: seeding for a step takes time."""


def wants_closure(optimizer: Optimizer) -> bool:
    """Return whether `step` needs a function that evaluates loss and gradients, as that of L-BFGS does."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    required = closure is not None and closure.default is inspect.Parameter.empty
    return required or (_is_of("pytorch_optimizer", optimizer) and type(optimizer).__name__ in _READS_THE_LOSS)


def wants_hessian(optimizer: Optimizer) -> bool:
    """Return whether `step` takes estimates of the Hessian's diagonal, as those of Sophia-H and AdaHessian do."""
    return "hessian" in inspect.signature(type(optimizer).step).parameters


def has_modes(optimizer: Optimizer) -> bool:
    """Return whether it evaluates at other weights than it trains at, as schedule-free ones do."""
    return all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))


def may_draw(optimizer: Optimizer) -> bool:
    """Return whether its step may draw random numbers: torch's own, those of optexp, and those known here never do."""
    known = _is_of("pytorch_optimizer", optimizer) and type(optimizer).__name__ in _NEVER_DRAWS
    return not (known or _is_of("torch", optimizer) or _is_of("optexp", optimizer))


def is_paged(optimizer: Optimizer) -> bool:
    """Return whether its state lies in memory that only CUDA has, as that of bitsandbytes' paged ones does."""
    return _is_of("bitsandbytes", optimizer) and bool(getattr(optimizer, "is_paged", False))


def check(optimizer: Optimizer, precision: str, compiled: bool, device: torch.device) -> None:
    """Raise BadInput when a run of these engine settings cannot give an optimizer what it asks for."""
    name = type(optimizer).__name__
    if not isinstance(optimizer.param_groups[0].get("lr"), int | float):
        raise BadInput(f"optimizer.lr={optimizer.param_groups[0].get('lr')}: a schedule needs a number to multiply")
    if precision == "fp16" and (wants_closure(optimizer) or wants_hessian(optimizer)):
        raise BadInput(
            f"engine.precision=fp16: {name} needs more than one gradient per step, which loss scaling does not give; "
            "allowed are fp32, bf16 and fp64"
        )
    if compiled and wants_hessian(optimizer):
        raise BadInput(f"engine.compile=true: {name} differentiates twice, compiled models only once; allowed is false")
    if is_paged(optimizer) and device.type != "cuda":
        raise BadInput(f"engine.device={device.type}: {name} pages its state out of a GPU's memory; allowed is cuda")


def _is_of(package: str, optimizer: Optimizer) -> bool:
    return type(optimizer).__module__.split(".")[0] == package
