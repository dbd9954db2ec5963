"""Muon for hidden matrices and AdamW for everything else, as one optimizer with one learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim._muon import muon
from torch.optim.adamw import adamw


class Muon(Optimizer):
    """Momentum orthogonalized by a Newton-Schulz iteration for matrices; AdamW for all other tensors.

    torch.optim.Muon refuses what is no matrix, so that no model can be trained with it alone. Here a parameter group
    with `use_muon` true is updated by torch's functions for Muon, a tensor of more than two axes as the matrix
    [first axis, all others]; one with `use_muon` false by torch's AdamW. Of groups without it, tensors of two axes or
    more go to Muon. A group's AdamW step takes `lr * adamw_lr_ratio`; its `weight_decay` is of both kinds.

    Sources: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), for the division and
    the flattened kernels; Liu et al., "Muon is Scalable for LLM Training" (arXiv 2502.16982) for match_rms_adamw.
    Raises ValueError for arguments out of range.
    """

    divides_matrices = True  # see build.py: `use_muon` by what a tensor is in the model, not by its axes alone

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 3e-3,
        adamw_lr_ratio: float = 1.0,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
        ns_steps: int = 5,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
    ) -> None:
        numbers = {"lr": lr, "adamw_lr_ratio": adamw_lr_ratio, "weight_decay": weight_decay, "eps": eps}
        for name, value in {**numbers, "adamw_eps": adamw_eps}.items():
            if not value >= 0:
                raise ValueError(f"{name}={value}: must be ≥ 0")
        for name, value in {"momentum": momentum, "beta1": adamw_betas[0], "beta2": adamw_betas[1]}.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value}: must lie in [0, 1)")
        if not 1 <= ns_steps < 100:
            raise ValueError(f"ns_steps={ns_steps}: must lie in 1 to 99")
        defaults = {
            "lr": lr,
            "adamw_lr_ratio": adamw_lr_ratio,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "adjust_lr_fn": adjust_lr_fn,
            "ns_steps": ns_steps,
            "ns_coefficients": tuple(ns_coefficients),
            "eps": eps,
            "adamw_betas": tuple(adamw_betas),
            "adamw_eps": adamw_eps,
        }
        super().__init__(_divided(params), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters: list[Any] = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                (self._orthogonal_step if group["use_muon"] else self._adamw_step)(group, parameters)
        return loss

    def _orthogonal_step(self, group: dict[str, Any], parameters: Sequence[Any]) -> None:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        last = [_channels_last(parameter) for parameter in parameters]
        muon(
            [_matrix(parameter, flag) for parameter, flag in zip(parameters, last, strict=True)],
            [_matrix(parameter.grad, flag) for parameter, flag in zip(parameters, last, strict=True)],
            [_matrix(buffer, flag) for buffer, flag in zip(buffers, last, strict=True)],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            ns_coefficients=group["ns_coefficients"],
            ns_steps=group["ns_steps"],
            eps=group["eps"],
            adjust_lr_fn=group["adjust_lr_fn"],
            has_complex=False,
        )

    def _adamw_step(self, group: dict[str, Any], parameters: Sequence[Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            list(parameters),
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            lr=group["lr"] * group["adamw_lr_ratio"],
            weight_decay=group["weight_decay"],
            beta1=group["adamw_betas"][0],
            beta2=group["adamw_betas"][1],
            eps=group["adamw_eps"],
            amsgrad=False,
            maximize=False,
        )


def _divided(params: Iterable[Any]) -> list[dict[str, Any]]:
    """Return parameter groups that all have `use_muon`."""
    given = list(params)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    divided = []
    for group in groups:
        if "use_muon" in group:
            divided.append(group)
            continue
        tensors = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        for use_muon in (True, False):
            chosen = [tensor for tensor in tensors if (tensor.ndim >= 2) == use_muon]
            if chosen:
                divided.append({**group, "params": chosen, "use_muon": use_muon})
    return divided


def _channels_last(parameter: Tensor) -> bool:
    return parameter.ndim == 4 and not parameter.is_contiguous()


def _matrix(tensor: Tensor, channels_last: bool) -> Tensor:
    """Return a tensor as the matrix [first axis, all others], a view where its memory is that of the parameter.

    In a channels_last kernel the columns stand in another order, which neither the iteration nor the norm minds.
    """
    if channels_last:
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(len(tensor), -1)
