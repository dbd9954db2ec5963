"""Up to which curvature an optimizer with these settings is stable.

On a quadratic of curvature λ, gradient descent with learning rate lr and a buffer `b = μ b + (1 − τ) g` stays bounded
iff λ < 2(1 + μ)/(lr(1 − τ)); Nesterov's step iff λ < 2(1 + μ)/(lr(1 + 2 μ)) (Cohen et al., "Gradient Descent on Neural
Networks Typically Occurs at the Edge of Stability", ICLR 2021, appendix B). What divides each coordinate by a number
that changes slowly, as Adam does, is such a method for the preconditioned Hessian P^-1/2 H P^-1/2, with P the diagonal
of these numbers; for Adam μ = τ = β1, which gives 38/lr at β1 = 0.9 (Cohen et al., "Adaptive Gradient Methods at the
Edge of Stability", 2022, arXiv 2207.14484). These are statements about full batches; with small ones training usually
stays below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop


@dataclass(frozen=True)
class Stability:
    """What is known of an optimizer's stability at a checkpoint.

    The curvature must stay below `factor`/lr; it is the Hessian's largest eigenvalue, or that of the Hessian
    preconditioned by the positive `preconditioner` [P]. `formula` says it in words. Where nothing is known, `factor`
    is None and `formula` says why.
    """

    factor: float | None
    formula: str
    preconditioner: Tensor | None = None

    def limit(self, lr: float) -> float | None:
        """Return the largest stable curvature at a learning rate; None where there is none."""
        return None if self.factor is None or lr <= 0 else self.factor / lr


def stability(optimizer: Optimizer, model: nn.Module) -> Stability:
    """Return the statement that applies to an optimizer with the state it has; momentum as in its first group."""
    group = optimizer.param_groups[0]
    name = type(optimizer).__name__
    if group.get("maximize"):
        return Stability(None, f"{name} with maximize=true climbs: no curvature of a minimum applies")
    if type(optimizer) is SGD:
        return _of_sgd(group)
    if type(optimizer) not in _DENOMINATORS:
        return Stability(None, f"no stability limit is known for {name}")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(not optimizer.state.get(parameter) for parameter in parameters):
        return Stability(None, f"{name} has no state for some parameters yet, and so no preconditioner")
    if group.get("centered"):
        return Stability(None, "RMSprop with centered=true: its denominator is no slow average of squares")
    denominator = _DENOMINATORS[type(optimizer)]
    parts = [denominator(optimizer.state[parameter], group) for parameter in parameters]
    preconditioner = torch.cat([part.to(parameters[0].dtype).reshape(-1) for part in parts])
    if not bool((preconditioner > 0).all()):
        return Stability(None, f"{name} divides some coordinates by zero: there is no preconditioned Hessian")
    if type(optimizer) in (Adam, AdamW):
        beta = float(group["betas"][0])
        return Stability(2 * (1 + beta) / (1 - beta), "2(1+β1)/(lr(1−β1))", preconditioner)
    momentum = group.get("momentum", 0.0)
    return Stability(2 * (1 + momentum), "2(1+μ)/lr" if momentum else "2/lr", preconditioner)


def _of_sgd(group: dict[str, Any]) -> Stability:
    momentum, dampening = group["momentum"], group["dampening"]
    if momentum == 0:  # torch then has no buffer, and ignores dampening
        return Stability(2.0, "2/lr")
    if group["nesterov"]:
        return Stability(2 * (1 + momentum) / (1 + 2 * momentum), "2(1+μ)/(lr(1+2μ))")
    if dampening == 1:
        return Stability(None, "SGD with dampening=1 moves by its first gradient only: any curvature is stable")
    return Stability(2 * (1 + momentum) / (1 - dampening), "2(1+μ)/(lr(1−τ))")


def _of_adam(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    step = float(state["step"])
    beta1, beta2 = (float(beta) for beta in group["betas"])
    squares = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    return (1 - beta1**step) * ((squares / (1 - beta2**step)).sqrt() + group["eps"])


def _of_rmsprop(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    return state["square_avg"].sqrt() + group["eps"]


def _of_adagrad(state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    slowed = 1 + (float(state["step"]) - 1) * group["lr_decay"]
    return slowed * (state["sum"].sqrt() + group["eps"])


_DENOMINATORS: dict[type[Optimizer], Callable[[dict[str, Any], dict[str, Any]], Tensor]] = {
    Adam: _of_adam,
    AdamW: _of_adam,
    RMSprop: _of_rmsprop,
    Adagrad: _of_adagrad,
}
"""What each coordinate of a gradient is divided by, from the state of a parameter and the settings of its group.

torch's own classes only: what derives from them may compute something else.
"""
