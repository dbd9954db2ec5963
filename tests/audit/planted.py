"""Small optimizers that are right, and the same with one bug each: what people have shipped, planted on purpose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

MOMENTUM_IGNORED = "momentum ignored"
DAMPED_FIRST = "dampening applied to the first step"
BUFFER_OF_WEIGHTS = "buffer initialised with the weights"
DECAY_IGNORED = "weight decay ignored"
DECAY_TWICE = "weight decay applied twice"
LR_BAKED = "lr baked into the buffer"
DECAY_EVERYWHERE = "decay applied to excluded groups"
BETAS_SWAPPED = "betas swapped"
NO_BIAS_CORRECTION = "bias correction missing"
FIRST_GROUPS_LR = "the first group's lr used for all"
STATE_FORGOTTEN = "state not saved"
FOREACH_WITHOUT_MOMENTUM = "momentum ignored by foreach"
NO_MAXIMIZE = "maximize ignored"
EPS_IGNORED = "eps ignored"


class _Planted(Optimizer):
    bug: str | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    sign = -1 if group["maximize"] and self.bug != NO_MAXIMIZE else 1
                    self.update(group, parameter, sign * parameter.grad)

    def update(self, group: dict[str, Any], w: Tensor, g: Tensor) -> None:
        raise NotImplementedError

    def decay(self, group: dict[str, Any]) -> float:
        if self.bug == DECAY_IGNORED:
            return 0.0
        if self.bug == DECAY_TWICE:
            return 2 * float(group["weight_decay"])
        if self.bug == DECAY_EVERYWHERE:
            return float(self.param_groups[0]["weight_decay"])
        return float(group["weight_decay"])

    def rate(self, group: dict[str, Any]) -> float:
        return float((self.param_groups[0] if self.bug == FIRST_GROUPS_LR else group)["lr"])


class Momentum(_Planted):
    """torch.optim.SGD with decay, momentum, dampening and Nesterov momentum."""

    def __init__(
        self,
        params: Any,
        lr: float = 0.05,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        given = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**given, "nesterov": nesterov, "maximize": maximize, "foreach": foreach})

    def update(self, group: dict[str, Any], w: Tensor, g: Tensor) -> None:
        state, lr, momentum = self.state[w], self.rate(group), group["momentum"]
        g = g + self.decay(group) * w
        if self.bug == MOMENTUM_IGNORED or (self.bug == FOREACH_WITHOUT_MOMENTUM and group["foreach"]):
            state["b"] = momentum * state.get("b", torch.zeros_like(w)) + g  # kept, and not used
            w.sub_(lr * g)
            return
        if momentum == 0:
            w.sub_(lr * g)
            return
        factor = lr if self.bug == LR_BAKED else 1.0
        new = (1 - group["dampening"]) * factor * g
        if "b" in state:
            state["b"] = momentum * state["b"] + new
        elif self.bug == BUFFER_OF_WEIGHTS:
            state["b"] = momentum * w.clone() + new
        else:
            state["b"] = new if self.bug == DAMPED_FIRST else factor * g
        step = factor * g + momentum * state["b"] if group["nesterov"] else state["b"]
        w.sub_(step if self.bug == LR_BAKED else lr * step)


class Moments(_Planted):
    """torch.optim.AdamW."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        maximize: bool = False,
    ) -> None:
        given = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, given)
        self.count: dict[Tensor, int] = {}

    def update(self, group: dict[str, Any], w: Tensor, g: Tensor) -> None:
        state, lr = self.state[w], self.rate(group)
        beta1, beta2 = reversed(group["betas"]) if self.bug == BETAS_SWAPPED else group["betas"]
        if self.bug == STATE_FORGOTTEN:
            step = self.count[w] = self.count.get(w, 0) + 1
        else:
            step = state["step"] = state.get("step", 0) + 1
        w.mul_(1 - lr * self.decay(group))
        first = w if self.bug == BUFFER_OF_WEIGHTS else torch.zeros_like(w)
        state["m"] = beta1 * state.get("m", first) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", torch.zeros_like(w)) + (1 - beta2) * g * g
        corrections = (1.0, 1.0) if self.bug == NO_BIAS_CORRECTION else (1 - beta1**step, 1 - beta2**step)
        eps = 1e-8 if self.bug == EPS_IGNORED else group["eps"]
        w.sub_(lr * (state["m"] / corrections[0]) / ((state["v"] / corrections[1]).sqrt() + eps))


def with_bug(kind: type[_Planted], bug: str | None) -> type[_Planted]:
    """Return the class with a bug, or the right one."""
    return type(kind.__name__, (kind,), {"bug": bug, "__init__": kind.__init__})


class ReleasedSGDW(_Planted):
    """SGDW of pytorch_optimizer 3.10.0, both of its paths (kozistr/pytorch_optimizer#519): no bug was planted here."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        weight_decouple: bool = True,
        dampening: float = 0.0,
        nesterov: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "weight_decouple": weight_decouple}
        more = {"dampening": dampening, "nesterov": nesterov, "foreach": foreach, "maximize": maximize}
        super().__init__(params, {**given, **more})

    def update(self, group: dict[str, Any], w: Tensor, g: Tensor) -> None:
        buffer = self.state[w].setdefault("momentum_buffer", w.clone())
        if group["foreach"] is not False:
            g = self._penalized(group, w, g)
            buffer.lerp_(g, 1 - group["dampening"])
            w.sub_(group["lr"] * buffer)
            return
        if group["momentum"] > 0:
            buffer.mul_(group["momentum"]).add_(g, alpha=1 - group["dampening"])
            g = g + group["momentum"] * buffer if group["nesterov"] else buffer.clone()
        w.sub_(group["lr"] * self._penalized(group, w, g))

    @staticmethod
    def _penalized(group: dict[str, Any], w: Tensor, g: Tensor) -> Tensor:
        if not group["weight_decouple"]:
            return g + group["weight_decay"] * w
        w.mul_(1 - group["lr"] * group["weight_decay"])
        return g


class LosesState(torch.optim.SGD):
    """SGD whose state cannot be loaded."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        raise KeyError("momentum_buffer")


class OneGroup(torch.optim.SGD):
    """SGD whose constructor, or step, takes no second parameter group."""

    at = "constructor"

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(params, *args, **kwargs)
        if self.at == "constructor" and len(self.param_groups) > 1:
            raise IndexError("list index out of range")

    def step(self, closure: Any = None) -> Any:
        if self.at == "step" and len(self.param_groups) > 1:
            raise IndexError("list index out of range")
        return super().step(closure)


class SaysOneGroup(torch.optim.SGD):
    """SGD that says that it takes one parameter group only, as torch's L-BFGS does."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        if len(self.param_groups) > 1:
            raise ValueError("SaysOneGroup doesn't support per-parameter options (parameter groups)")


class NeedsGradients(torch.optim.SGD):
    """SGD that divides by the gradient's length, and raises where it is 0."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for own in group["params"]:
                if own.grad is not None:
                    1 / float(own.grad.norm())
        return super().step(closure)


class FixedLR(torch.optim.SGD):
    """SGD that raises once the learning rate is not the first one."""

    def step(self, closure: Any = None) -> Any:
        lrs = [group["lr"] for group in self.param_groups]
        if vars(self).setdefault("lrs", lrs) != lrs:
            raise RuntimeError("lr changed")
        return super().step(closure)


class CrashesWithMomentum(_Planted):
    """Momentum whose step raises for a momentum of 0, which its constructor takes."""

    def __init__(self, params: Any, lr: float = 0.05, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "maximize": False})

    def update(self, group: dict[str, Any], w: Tensor, g: Tensor) -> None:
        if group["momentum"] != 0.9:
            raise KeyError("momentum")
        w.sub_(group["lr"] * g)


class SaysWhatItRefuses(CrashesWithMomentum):
    """The same, whose first step says which argument it does not take."""

    def update(self, group: dict[str, Any], w: Tensor, g: Tensor) -> None:
        if group["momentum"] != 0.9:
            raise RuntimeError("momentum must be 0.9 on this device")
        super().update(group, w, g)


class Rounding(torch.optim.SGD):
    """SGD that takes weights in float64 and rounds them to float32, as bitsandbytes does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for group in self.param_groups:
            for own in group["params"]:
                own.copy_(own.float())
