"""Published update rules in float64, one small function each, written from the formula and not from anyone's code.

A rule is `rule(h, state, w, g, t)`: hyperparameters by their names in the constructor, this parameter's state (a dict,
empty before the first step; the rule fills it), weights and gradient as float64 arrays, and the step t = 1, 2, … It
returns the new weights. `h["maximize"]` is dealt with before: g is the gradient to descend.

"torch docs" is the algorithm box on the page of the class in torch's documentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from optexp.audit.problems import Array

Settings = Mapping[str, Any]
State = dict[str, Any]


def sgd(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, SGD: `b_1 = g_1; b_t = mu b + (1 - tau) g; step = g + mu b (nesterov) or b`.

    With `weight_decouple` (SGDW, Loshchilov & Hutter 2019, arXiv 1711.05101) the weights shrink by lr * weight_decay
    instead of a penalty in the gradient.
    """
    lr, mu, decay = h["lr"], h["momentum"], h["weight_decay"]
    if h.get("weight_decouple"):
        w = w - lr * decay * w
    else:
        g = g + decay * w
    if mu != 0:
        state["b"] = g if t == 1 else mu * state["b"] + (1 - h["dampening"]) * g
        g = g + mu * state["b"] if h["nesterov"] else state["b"]
    return w - lr * g


def adagrad(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, Adagrad (Duchi, Hazan & Singer 2011): `w = w - lr/(1 + (t-1) lr_decay) g/(sqrt(sum of g²)+eps)`."""
    g = g + h["weight_decay"] * w
    state["s"] = state.get("s", np.full_like(w, h["initial_accumulator_value"])) + g * g
    return w - h["lr"] / (1 + (t - 1) * h["lr_decay"]) * g / (np.sqrt(state["s"]) + h["eps"])


def rmsprop(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, RMSprop (Tieleman & Hinton 2012; centered: Graves 2013, arXiv 1308.0850)."""
    g, alpha = g + h["weight_decay"] * w, h["alpha"]
    state["v"] = alpha * state.get("v", 0.0) + (1 - alpha) * g * g
    spread = state["v"]
    if h["centered"]:
        state["mean"] = alpha * state.get("mean", 0.0) + (1 - alpha) * g
        spread = spread - state["mean"] ** 2
    scaled = g / (np.sqrt(spread) + h["eps"])
    if h["momentum"] > 0:
        state["b"] = scaled = h["momentum"] * state.get("b", 0.0) + scaled
    return w - h["lr"] * scaled


def _moments(h: Settings, state: State, g: Array) -> None:
    beta1, beta2 = h["betas"][:2]
    state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g


def _decayed(h: Settings, w: Array, g: Array, decoupled: bool) -> tuple[Array, Array]:
    """Return weights and gradient after weight decay, decoupled (arXiv 1711.05101) or as an L2 penalty."""
    if decoupled:
        return w - h["lr"] * h["weight_decay"] * w, g
    return w, g + h["weight_decay"] * w


def adam(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, Adam (Kingma & Ba 2015, arXiv 1412.6980; amsgrad: Reddi et al. 2018, with the maximum over v)."""
    w, g = _decayed(h, w, g, bool(h.get("decoupled_weight_decay", False)))
    _moments(h, state, g)
    beta1, beta2 = h["betas"]
    second = state["v"]
    if h.get("amsgrad"):
        state["max"] = second = np.maximum(state.get("max", 0.0), second)
    return w - h["lr"] * (state["m"] / (1 - beta1**t)) / (np.sqrt(second / (1 - beta2**t)) + h["eps"])


def adamw(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101): Adam with decoupled weight decay."""
    return adam({**h, "decoupled_weight_decay": True}, state, w, g, t)


def nadam(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, NAdam (Dozat 2016): momentum mu_t = beta1 (1 - 0.5 * 0.96^(t psi)), one step ahead."""
    w, g = _decayed(h, w, g, h["decoupled_weight_decay"])
    _moments(h, state, g)
    beta1, beta2 = h["betas"]
    now, ahead = (beta1 * (1 - 0.5 * 0.96 ** (step * h["momentum_decay"])) for step in (t, t + 1))
    state["product"] = state.get("product", 1.0) * now
    direction = ahead * state["m"] / (1 - state["product"] * ahead) + (1 - now) * g / (1 - state["product"])
    return w - h["lr"] * direction / (np.sqrt(state["v"] / (1 - beta2**t)) + h["eps"])


def radam(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, RAdam (Liu et al. 2020, arXiv 1908.03265): momentum alone until the variance is tractable."""
    w, g = _decayed(h, w, g, h["decoupled_weight_decay"])
    _moments(h, state, g)
    beta1, beta2 = h["betas"]
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    step = h["lr"] * state["m"] / (1 - beta1**t)
    if length <= 5:
        return w - step
    rectified = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return w - step * rectified * math.sqrt(1 - beta2**t) / (np.sqrt(state["v"]) + h["eps"])


def adamax(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, Adamax (Kingma & Ba 2015, section 7.1): `u = max(beta2 u, |g| + eps)`."""
    g = g + h["weight_decay"] * w
    beta1, beta2 = h["betas"]
    state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    state["u"] = np.maximum(beta2 * state.get("u", 0.0), np.abs(g) + h["eps"])
    return w - h["lr"] / (1 - beta1**t) * state["m"] / state["u"]


def adadelta(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, Adadelta (Zeiler 2012, arXiv 1212.5701)."""
    g, rho = g + h["weight_decay"] * w, h["rho"]
    state["v"] = rho * state.get("v", 0.0) + (1 - rho) * g * g
    change = np.sqrt(state.get("u", 0.0) + h["eps"]) / np.sqrt(state["v"] + h["eps"]) * g
    state["u"] = rho * state.get("u", 0.0) + (1 - rho) * change * change
    return w - h["lr"] * change


def asgd(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """Polyak & Juditsky 1992: averaged SGD, with the step sizes of Bottou (2012, Stochastic Gradient Descent Tricks).

    `eta_t = lr / (1 + lambd lr (t-1))^alpha; w = w - eta_t (g + lambd w)`; the average beside w changes no step.
    """
    g = g + h["weight_decay"] * w
    eta = h["lr"] / (1 + h["lambd"] * h["lr"] * (t - 1)) ** h["alpha"]
    return w - eta * h["lambd"] * w - eta * g


def rprop(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, Rprop (Riedmiller & Braun 1993), without weight backtracking: a sign that changes is sat out."""
    (minus, plus), (low, high) = h["etas"], h["step_sizes"]
    sign = np.sign(g * state.get("previous", np.zeros_like(g)))
    size = state.get("size", np.full_like(w, h["lr"])) * np.where(sign > 0, plus, np.where(sign < 0, minus, 1.0))
    state["size"] = np.clip(size, low, high)
    state["previous"] = g = np.where(sign < 0, 0.0, g)
    return w - state["size"] * np.sign(g)


def adafactor(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, Adafactor (Shazeer & Stern 2018, arXiv 1804.04235; lr and eps[0] as torch documents them)."""

    def rms(x: Array) -> float:
        return float(np.sqrt(np.mean(x * x)))

    tiny, floor = h["eps"]
    tiny = float(np.finfo(np.float64).eps) if tiny is None else tiny
    beta2 = 1 - t ** h["beta2_decay"]
    rate = max(floor, rms(w)) * min(h["lr"], 1 / math.sqrt(t))
    w = w - h["lr"] * h["weight_decay"] * w
    square = g * g
    if g.ndim > 1:
        state["row"] = beta2 * state.get("row", 0.0) + (1 - beta2) * square.mean(-1, keepdims=True)
        state["column"] = beta2 * state.get("column", 0.0) + (1 - beta2) * square.mean(-2, keepdims=True)
        second = state["row"] * state["column"] / np.maximum(state["row"].mean(-2, keepdims=True), tiny)
    else:
        state["v"] = second = beta2 * state.get("v", 0.0) + (1 - beta2) * square
    update = g / np.maximum(np.sqrt(second), tiny)
    return w - rate * update / max(1.0, rms(update) / h["d"])


def muon(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """torch docs, Muon (Jordan et al. 2024): momentum, orthogonalized by Newton-Schulz, decoupled weight decay.

    The buffer is Jordan's running mean; torch's page has the sum, whose factor the orthogonalization removes.
    """
    state["b"] = h["momentum"] * state.get("b", 0.0) + (1 - h["momentum"]) * g
    x = (1 - h["momentum"]) * g + h["momentum"] * state["b"] if h["nesterov"] else state["b"]
    rows, columns = x.shape
    x = x / max(float(np.linalg.norm(x)), h["eps"])
    x = x.T if rows > columns else x
    a, b, c = h["ns_coefficients"]
    for _ in range(h["ns_steps"]):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.T if rows > columns else x
    wide = 0.2 * math.sqrt(max(rows, columns)) if h["adjust_lr_fn"] == "match_rms_adamw" else 0.0
    return w - h["lr"] * h["weight_decay"] * w - h["lr"] * (wide or math.sqrt(max(1, rows / columns))) * x


def muon_and_adamw(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """Jordan et al. 2024: Muon for matrices, AdamW (with settings of its own) for everything else."""
    if g.ndim > 1:
        return muon(h, state, w, g, t)
    own = {**h, "lr": h["lr"] * h["adamw_lr_ratio"], "betas": h["adamw_betas"], "eps": h["adamw_eps"]}
    return adamw(own, state, w, g, t)


def lion(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """Chen et al. 2023 (arXiv 2302.06675, algorithm 2): the sign of an interpolation, decoupled weight decay."""
    w, g = _optional_decay(h, w, g)
    beta1, beta2 = h["betas"]
    momentum = state.get("m", np.zeros_like(w))
    state["m"] = beta2 * momentum + (1 - beta2) * g
    return w - h["lr"] * np.sign(beta1 * momentum + (1 - beta1) * g)


def sophia(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """Liu et al. 2023 (arXiv 2305.14342, algorithm 3): the Hessian's diagonal is given, and the clip is p."""
    w, g = _optional_decay(h, w, g)
    beta1, beta2 = h["betas"]
    state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    state["h"] = beta2 * state.get("h", 0.0) + (1 - beta2) * h["hessian"]
    return w - h["lr"] * np.clip(state["m"] / np.maximum(state["h"], h["eps"]), -h["p"], h["p"])


def _optional_decay(h: Settings, w: Array, g: Array) -> tuple[Array, Array]:
    """Weight decay as pytorch_optimizer documents it: decoupled or not, scaled by lr or fixed."""
    if not h.get("weight_decouple", True):
        return w, g + h["weight_decay"] * w
    return w - h["weight_decay"] * (1.0 if h.get("fixed_decay") else h["lr"]) * w, g


def schedule_free_adamw(h: Settings, state: State, w: Array, g: Array, t: int) -> Array:
    """Defazio et al. 2024 (arXiv 2405.15682, algorithm 1), in training mode: w is y, between the average x and z.

    `z = z - lr (g / (sqrt(v̂) + eps) + weight_decay y);  x = (1 - c) x + c z;  y = (1 - beta1) z + beta1 x`
    where c is the share of this step in the sum of all weights `t^r max(lr)^weight_lr_power`.
    """
    beta1, beta2 = h["betas"]
    x, z = state.get("x", w), state.get("z", w)
    state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g * g
    second = state["v"] / (1 - beta2**t)
    if h.get("ams_bound"):
        state["max"] = second = np.maximum(state.get("max", 0.0), second)
    lr = h["lr"] * min(1.0, t / h["warmup_steps"] if h["warmup_steps"] else 1.0)
    state["largest"] = max(state.get("largest", 0.0), lr)
    weight = t ** h["r"] * state["largest"] ** h["weight_lr_power"]
    state["sum"] = state.get("sum", 0.0) + weight
    share = weight / state["sum"] if state["sum"] else 0.0
    state["z"] = z - lr * (g / (np.sqrt(second) + h["eps"]) + h["weight_decay"] * w)
    state["x"] = (1 - share) * x + share * state["z"]
    return (1 - beta1) * state["z"] + beta1 * state["x"]
