"""Numbers that need no training run: torch's own optimizers on problems whose answer is known in closed form.

A probe is a function that returns one number, or one for each seed. Everything is computed in float64 with the update
rules of torch.optim, so that what is judged is the optimizer that users have, and not our idea of it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optexp.errors import BadInput, listed, nearest

Gradient = Callable[[Tensor], Tensor]

SEEDS = 8


def call(name: str, arguments: Mapping[str, Any]) -> Sequence[float]:
    """Return what a probe finds. Raises BadInput for an unknown probe or argument."""
    if name not in PROBES:
        raise BadInput(f"probe={name}: no such probe{nearest(name, PROBES)}; there are {listed(PROBES)}")
    known = inspect.signature(PROBES[name]).parameters
    for argument, value in arguments.items():
        if argument not in known:
            raise BadInput(f"{name}.{argument}={value}: no such argument; there are {listed(known)}")
    with torch.random.fork_rng(devices=[]):
        return PROBES[name](**arguments)


def buffer_coefficient(dampening: float = 0.9, momentum: float = 0.9, step: int = 2) -> list[float]:
    """Return the share of a new gradient that enters SGD's momentum buffer at a step (counted from 1)."""
    weight = _parameter([0.0])
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=momentum, dampening=dampening)
    before = 0.0
    for _ in range(step):
        buffer = optimizer.state[weight].get("momentum_buffer")
        before = 0.0 if buffer is None else float(buffer)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return [float(optimizer.state[weight]["momentum_buffer"]) - momentum * before]


def long_run_step(lr: float, dampening: float, momentum: float = 0.9, steps: int = 400) -> list[float]:
    """Return log10 of the step that SGD takes per unit of a constant gradient in the long run."""
    weight = _parameter([0.0])
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=momentum, dampening=dampening)
    before = 0.0
    for _ in range(steps):
        before = float(weight)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return [math.log10(before - float(weight))]


def state_per_parameter(optimizer: str, arguments: Mapping[str, Any] | None = None, size: int = 4096) -> list[float]:
    """Return how many numbers an optimizer of torch keeps for each parameter, counters left out."""
    weight = _parameter([0.0] * size)
    made = _optimizer(optimizer, weight, dict(arguments or {}))
    weight.grad = torch.ones_like(weight)
    made.step()
    kept = sum(value.numel() for value in made.state[weight].values() if isinstance(value, Tensor) and value.ndim)
    return [kept / size]


def steps_in_a_ravine(
    first: Mapping[str, Any], second: Mapping[str, Any], condition: float = 100.0, reduce_to: float = 1e-6
) -> list[float]:
    """Return for each seed log2(steps of the first / steps of the second) down a quadratic ravine.

    f(x, y) = (x² + condition · y²) / 2 from a random start until f has fallen to `reduce_to` of its first value. Each
    optimizer ({"name": "SGD", "momentum": 0.9}) has the best learning rate of a grid of 40 for that start.
    """
    curvature = torch.tensor([1.0, condition], dtype=torch.float64)
    counts = [
        [_fewest_steps(settings, curvature, start, reduce_to) for settings in (first, second)]
        for start in _starts(torch.tensor([1.0, 1.0], dtype=torch.float64))
    ]
    return [math.log2(one / other) for one, other in counts]


def overshoot_in_a_ravine(
    first: Mapping[str, Any], second: Mapping[str, Any], condition: float = 100.0, steps: int = 200
) -> list[float]:
    """Return for each seed how much more often the first changes sides of the valley than the second, per 100 steps.

    Both take the learning rate with which each comes down fastest.
    """
    curvature = torch.tensor([1.0, condition], dtype=torch.float64)
    found = []
    for start in _starts(torch.ones(2, dtype=torch.float64)):
        crossings = []
        for settings in (first, second):
            lr = _best_lr(settings, curvature, start, 1e-6)
            path = _path(settings, lambda x: curvature * x, start, lr, steps)[:, 1]
            crossings.append(int((path[1:] * path[:-1] < 0).sum()) * 100 / steps)
        found.append(crossings[0] - crossings[1])
    return found


def steps_across_a_saddle(
    first: Mapping[str, Any], second: Mapping[str, Any], lr: float = 0.01, offset: float = 1e-6
) -> list[float]:
    """Return for each seed log2(steps of the first / steps of the second) to leave a saddle, both with the same lr.

    f(x, y) = (x² − y²) / 2, from x = 1 and y within `offset` of the ridge, until |y| > 1.
    """
    curvature = torch.tensor([1.0, -1.0], dtype=torch.float64)
    found = []
    for start in _starts(torch.tensor([1.0, offset], dtype=torch.float64)):
        needed = []
        for settings in (first, second):
            path = _path(settings, lambda x: curvature * x, start, lr, 20_000)
            beyond = (path[:, 1].abs() > 1).nonzero()
            needed.append(int(beyond[0]) if len(beyond) else len(path))
        found.append(math.log2(needed[0] / needed[1]))
    return found


def step_after(
    optimizer: Mapping[str, Any], early: int = 10, late: int = 10_000, lr: float = 0.01, noise: float = 1.0
) -> list[float]:
    """Return for each seed log10(mean step at `late` / mean step at `early`), for noisy gradients of constant size."""
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        gradients = 1.0 + noise * torch.randn(late + early, 64, dtype=torch.float64)
        weight = _parameter([0.0] * 64)
        made = _optimizer(optimizer["name"], weight, {**_rest(optimizer), "lr": lr})
        sizes = []
        for gradient in gradients:
            before = weight.detach().clone()
            weight.grad = gradient.clone()
            made.step()
            sizes.append(float((weight.detach() - before).abs().mean()))
        window = early
        found.append(math.log10(sum(sizes[-window:]) / sum(sizes[:window])))
    return found


def decay_under_noise(optimizer: str, small: float = 0.01, large: float = 1.0, steps: int = 2000) -> list[float]:
    """Return for each seed log10 of the ratio of two weights that began equal: of small and of large gradient noise.

    Gradients have mean zero, so a weight decay that deserves its name shrinks both alike: the answer is 0.
    """
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        scales = torch.tensor([small, large], dtype=torch.float64)[:, None]
        weight = _parameter([[10.0] * 256] * 2)
        made = _optimizer(optimizer, weight, {"lr": 1e-3, "weight_decay": 0.1})
        for _ in range(steps):
            weight.grad = scales * torch.randn(2, 256, dtype=torch.float64)
            made.step()
        remaining = weight.detach().mean(1)
        found.append(math.log10(float(remaining[1] / remaining[0])))
    return found


PROBES: dict[str, Callable[..., Sequence[float]]] = {
    probe.__name__: probe
    for probe in (
        buffer_coefficient,
        long_run_step,
        state_per_parameter,
        steps_in_a_ravine,
        overshoot_in_a_ravine,
        steps_across_a_saddle,
        step_after,
        decay_under_noise,
    )
}


def _parameter(values: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def _rest(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "name"}


def _optimizer(name: str, weight: nn.Parameter, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    kind = getattr(torch.optim, name, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise BadInput(f"optimizer={name}: torch.optim has no such optimizer")
    made: torch.optim.Optimizer = kind([weight], **({"lr": 0.1} | arguments))
    return made


def _starts(scale: Tensor) -> list[Tensor]:
    """Return a random start for each seed: every coordinate between 0.5 and 1.5 times `scale`, of either sign."""
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        size, sign = torch.rand(len(scale), dtype=torch.float64) + 0.5, torch.randint(2, (len(scale),)) * 2 - 1
        found.append(scale * size * sign)
    return found


def _path(settings: Mapping[str, Any], gradient: Gradient, start: Tensor, lr: float, steps: int) -> Tensor:
    """Return the iterates [steps + 1, d] from a start; what grows beyond all bounds stays at infinity."""
    weight = nn.Parameter(start.clone())
    made = _optimizer(settings["name"], weight, {**_rest(settings), "lr": lr})
    path = [start.clone()]
    for _ in range(steps):
        weight.grad = gradient(weight.detach())
        made.step()
        path.append(weight.detach().clone())
    return torch.stack(path)


def _fewest_steps(settings: Mapping[str, Any], curvature: Tensor, start: Tensor, reduce_to: float) -> int:
    return min(_steps_needed(settings, curvature, start, lr, reduce_to) for lr in _rates(curvature))


def _best_lr(settings: Mapping[str, Any], curvature: Tensor, start: Tensor, reduce_to: float) -> float:
    return min(_rates(curvature), key=lambda lr: _steps_needed(settings, curvature, start, lr, reduce_to))


def _rates(curvature: Tensor) -> list[float]:
    """Return 40 learning rates around 1 / the largest curvature, within which all that converge lie."""
    return [float(10 ** (-2.5 + 3.5 * k / 39) / curvature.max()) for k in range(40)]


def _steps_needed(
    settings: Mapping[str, Any], curvature: Tensor, start: Tensor, lr: float, reduce_to: float, most: int = 2000
) -> int:
    """Return the steps after which f stays below `reduce_to` of its first value; `most` when it never does."""
    path = _path(settings, lambda x: curvature * x, start, lr, most)
    values = 0.5 * (curvature * path.square()).sum(1)
    above = (~(values <= reduce_to * values[0])).nonzero()
    return min(int(above[-1]) + 1, most)
