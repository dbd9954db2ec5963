"""Models and optimizers as they come from training code: wrapped, compiled, in mixed precision, scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from optexp.errors import BadInput
from optexp.instruments.rules import SingleRule


def innermost_model(model: Any) -> nn.Module:
    """Return the model inside DistributedDataParallel and torch.compile. Raises BadInput for what is no model."""
    while True:
        if isinstance(model, DistributedDataParallel | DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.Module):
            return model
        else:
            raise BadInput(f"model: is a {type(model).__name__}; allowed is a torch.nn.Module")


def innermost_optimizer(optimizer: Any) -> Optimizer:
    """Return the optimizer whose steps can be watched: wrappers such as accelerate's have no hooks of their own.

    Raises BadInput for what is no optimizer.
    """
    while not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        inner = getattr(optimizer, "optimizer", None)
        if not isinstance(inner, Optimizer):
            kind = type(optimizer).__name__
            raise BadInput(f"optimizer: is a {kind}; allowed is an object derived from torch.optim.Optimizer")
        optimizer = inner
    found: Optimizer = optimizer
    return found


def check_parameters(model: nn.Module, optimizer: Optimizer) -> None:
    """Raise BadInput where steps could not be measured: the optimizer has other parameters, or sharded or unmade ones.

    `model` is the innermost one.
    """
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for parameter in held):
        raise BadInput("optimizer: holds none of the model's parameters; give the model that it trains")
    if any(map(nn.parameter.is_lazy, held)):
        raise BadInput("model: has parameters without a shape yet; call it once before it is watched")
    if any(hasattr(parameter, "placements") for parameter in held):
        raise BadInput("model: its parameters are sharded (DTensor, FSDP2); allowed are whole ones, as with DDP")


class UserRule(SingleRule):
    """A torch optimizer whose parameters may differ in type and device, and whose gradients may be scaled.

    `model` is the innermost one.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        super().__init__(optimizer, model)
        self.grad_scale: Tensor | None = None  # what the gradients of this step are still to be divided by
        self.layers = {place: name.replace("_orig_mod.", "") for place, name in self.layers.items()}
        first = self.parameters[0]
        alike = all(p.dtype == first.dtype and p.device == first.device for p in self.parameters)
        self._common = None if alike and first.dtype in (torch.float32, torch.float64) else first.device

    def gradients(self) -> list[Tensor | None]:
        found, scale = super().gradients(), self.grad_scale
        return found if scale is None else [g if g is None else g / scale.to(g.device) for g in found]

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        return super().flat(self._alike(tensors))

    def norms(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return super().norms(self._alike(tensors))

    def _alike(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return tensors on one device, in single precision: the norm of many bfloat16 would have two digits."""
        if self._common is None:
            return tensors
        return [tensor.to(self._common, torch.float32) for tensor in tensors]

    def describes(self, optimizer: Optimizer) -> bool:
        """Return whether the optimizer still has the parameter groups that it had."""
        ends = [end for _, end in self.bounds]
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        return len(sizes) == len(ends) and all(sum(sizes[: i + 1]) == end for i, end in enumerate(ends))


class InputFacts:
    """A forward hook that keeps mean, standard deviation and largest size of the first floating-point input.

    It knows nothing of who registered it: a model may be copied or pickled with its hooks.
    """

    def __init__(self) -> None:
        self._found: Tensor | None = None  # of the three numbers

    @torch.no_grad()
    def __call__(self, module: nn.Module, positional: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if self._found is None:
            for value in (*positional, *named.values()):
                if isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 1:
                    numbers = value.float()
                    self._found = torch.stack([numbers.mean(), numbers.std(), numbers.abs().max()])
                    return

    def read(self) -> dict[str, float] | None:
        """Return `mean`, `std` and `largest`, None for a model without such an input; waits for the device."""
        if self._found is None:
            return None
        return dict(zip(("mean", "std", "largest"), self._found.tolist(), strict=True))
