"""Estimates of the Hessian's diagonal for optimizers that divide by it (Sophia-H, AdaHessian)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer


class HutchinsonBackward:
    """Adds gradients as `loss.backward()` does and, at the steps of an estimate, z · (H z) with random z.

    The mean of z · (H z) over z with independent entries of mean 0 and variance 1 is the diagonal of H (Hutchinson,
    1990). H is the Hessian of the losses of one step together: their products add up, part by part, with the same z,
    so that accumulating saves memory here too. The estimate is of the loss itself, whatever clipping does later.

    An estimate is made where the optimizer would make its own: at the first step and every `update_period` ones.
    """

    def __init__(self, optimizer: Optimizer, generator: Callable[[], torch.Generator]) -> None:
        """`generator` returns the stream of random numbers of the step that is being taken, on the CPU."""
        settings: Any = optimizer
        self._optimizer = optimizer
        self._generator = generator
        self._period = int(getattr(settings, "update_period", 1))
        self._samples = int(getattr(settings, "num_samples", 1))
        self._signs = getattr(settings, "distribution", "gaussian") == "rademacher"
        self._parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self._draws: list[list[Tensor]] = []
        self._estimate: list[Tensor] = []

    def is_due(self) -> bool:
        """Return whether the step that comes next is one with an estimate."""
        return int(self._optimizer.param_groups[0].get("step", 0)) % self._period == 0

    def differentiable(self) -> Any:
        """Return the context for a forward pass: attention's fast kernels cannot be differentiated twice."""
        return sdpa_kernel(SDPBackend.MATH) if self.is_due() else contextlib.nullcontext()

    def __call__(self, loss: Tensor) -> None:
        if not self.is_due():
            loss.backward()
            return
        if not self._estimate:
            generator = self._generator()
            self._draws = [[self._draw(p, generator) for p in self._parameters] for _ in range(self._samples)]
            self._estimate = [torch.zeros_like(p) for p in self._parameters]
        gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
        curved = [index for index, gradient in enumerate(gradients) if gradient is not None and gradient.requires_grad]
        for sample, draws in enumerate(self._draws if curved else []):
            products = torch.autograd.grad(
                [gradients[index] for index in curved],
                self._parameters,
                [draws[index] for index in curved],
                retain_graph=sample + 1 < len(self._draws),
                allow_unused=True,
            )
            for estimate, product, z in zip(self._estimate, products, draws, strict=True):
                if product is not None:
                    estimate.addcmul_(product, z, value=1 / self._samples)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:
                own = gradient.detach()
                parameter.grad = own if parameter.grad is None else parameter.grad + own

    def _draw(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Return numbers of mean 0 and variance 1, the same on every device."""
        if self._signs:
            numbers = torch.randint(0, 2, parameter.shape, generator=generator, dtype=torch.float32) * 2 - 1
        else:
            numbers = torch.randn(parameter.shape, generator=generator)
        return numbers.to(parameter.device, parameter.dtype)

    def update(self) -> None:
        """Take the optimizer's step, with the estimate if this is a step of one."""
        estimate, self._estimate, self._draws = self._estimate, [], []
        step: Callable[..., Any] = self._optimizer.step
        if estimate:
            step(hessian=estimate)
        else:
            step()
