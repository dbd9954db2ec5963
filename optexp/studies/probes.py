"""Numbers that need no training run: torch's own optimizers on problems whose answer is known, or nearly so.

A probe is a function that returns one number, or one for each random start. Everything is computed in float64 with the
update rules of torch.optim, so that what is judged is the optimizer that users have, and not our idea of it. An
optimizer is a mapping `{name: SGD, momentum: 0.9}`: its class in torch.optim and arguments of its constructor. What
torch lacks is named in full: `{name: pytorch_optimizer.Lion}`.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp.config.build import locate
from optexp.errors import BadInput, listed, nearest
from optexp.studies.range_test_probe import regret_of_range_test, shift_of_steepest

Settings = Mapping[str, Any]

SEEDS = 8

RATES = [10 ** (-1.5 + 2.5 * k / 59) for k in range(60)]
"""The grid of every optimizer on a quadratic: from 0.03 to 10, a tenth apart, in units of 1 / the largest curvature."""

TOKEN_RATES = [10 ** (k / 2) for k in range(-7, 5)]
"""The grid of every optimizer on tokens: 12 rates from 3e-4 to 1e2."""


def call(name: str, arguments: Mapping[str, Any]) -> Sequence[float]:
    """Return what a probe finds. Raises BadInput for an unknown probe, argument or optimizer."""
    check(name, arguments)
    with torch.random.fork_rng(devices=[]):
        return PROBES[name](**arguments)


def check(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise BadInput for an unknown probe, and for arguments that it does not know or that are missing."""
    if name not in PROBES:
        raise BadInput(f"probe={name}: no such probe{nearest(name, PROBES)}; there are {listed(PROBES)}")
    known = inspect.signature(PROBES[name]).parameters
    for argument, value in arguments.items():
        if argument not in known:
            raise BadInput(f"{name}.{argument}={value}: no such argument; there are {listed(known)}")
    for argument, parameter in known.items():
        if parameter.default is parameter.empty and argument not in arguments:
            raise BadInput(f"{name}.{argument}: is missing")


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
        before = weight.detach().item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return [math.log10(before - weight.detach().item())]


def state_per_parameter(optimizer: Settings, size: int = 4096, over: Settings | None = None) -> list[float]:
    """Return how many numbers an optimizer keeps for each parameter after a step, counters left out.

    With `over`, in units of what this other optimizer keeps.
    """
    kept = []
    for settings in (optimizer, *([] if over is None else [over])):
        weight = _parameter([0.0] * size)
        made = _optimizer(settings, weight, lr=0.1)
        weight.grad = torch.ones_like(weight)
        made.step()
        state = made.state[weight].values()
        kept.append(sum(value.numel() for value in state if isinstance(value, Tensor) and value.ndim) / size)
    return [kept[0] if over is None else kept[0] / kept[1]]


def steps_in_a_ravine(
    first: Settings, second: Settings, condition: float = 100.0, than_at: float | None = None, reduce_to: float = 1e-6
) -> list[float]:
    """Return for each start log2(steps of the first / steps of the second) down a quadratic ravine.

    f(x, y) = (x² + condition · y²) / 2 from a random start until f stays below `reduce_to` of its first value. Each
    optimizer has the best learning rate of the same grid of 60 for that start. With `than_at`, how much more that is
    than with this condition number in place of `condition`.
    """
    found = []
    for number in (condition, *([] if than_at is None else [than_at])):
        curvature, starts = _ravine(number)
        fewest = [_fastest(settings, curvature, starts, reduce_to)[0] for settings in (first, second)]
        found.append([math.log2(one / other) for one, other in zip(*fewest, strict=True)])
    return found[0] if than_at is None else [here - there for here, there in zip(*found, strict=True)]


def swing_in_a_ravine(
    first: Settings, second: Settings, condition: float = 100.0, rate: float | None = None, steps: int = 500
) -> list[float]:
    """Return for each start log2(swing of the first / swing of the second) across a quadratic ravine.

    The swing is the way travelled along y, the steep direction of `steps_in_a_ravine`, over the distance from the
    bottom at the start: 1 without any oscillation. Each optimizer takes the learning rate with which it comes down
    fastest; with `rate` both take this one, in units of 1 / the largest curvature.
    """
    curvature, starts = _ravine(condition)
    swings = []
    for settings in (first, second):
        rates = _fastest(settings, curvature, starts, 1e-6)[1] if rate is None else [rate / condition] * SEEDS
        paths = [_path(settings, curvature, start, lr, steps)[:, 1] for start, lr in zip(starts, rates, strict=True)]
        swings.append([float(path.diff().abs().sum() / path[0].abs()) for path in paths])
    return [math.log2(one / other) for one, other in zip(*swings, strict=True)]


def stable_rates(first: Settings, second: Settings, steps: int = 2000) -> list[float]:
    """Return log2(largest stable learning rate of the second / that of the first) on f(x) = x² / 2, to 1 %."""
    largest = []
    for settings in (first, second):
        low, high = 1e-3, 2e-3
        while _is_stable(settings, high, steps):
            low, high = high, 2 * high
        while high / low > 1.01:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if _is_stable(settings, middle, steps) else (low, middle)
        largest.append(low)
    return [math.log2(largest[1] / largest[0])]


def steps_across_a_saddle(
    first: Settings, second: Settings, lr: float = 0.01, offset: float = 1e-6, most: int = 20_000
) -> list[float]:
    """Return for each start log2(steps of the first / steps of the second) to leave a saddle, both with the same lr.

    f(x, y) = (x² − y²) / 2, from x = 1 and y within `offset` of the ridge, until |y| > 1; `most` steps where it stays.
    """
    curvature = torch.tensor([1.0, -1.0], dtype=torch.float64)
    needed = []
    for settings in (first, second):
        weight = nn.Parameter(_starts(torch.tensor([1.0, offset], dtype=torch.float64)))
        made = _optimizer(settings, weight, lr=lr)
        steps = torch.full([SEEDS], most)
        for step in range(1, most + 1):
            weight.grad = curvature * weight.detach()
            made.step()
            left = weight.detach()[:, 1].abs() > 1
            steps[left] = steps[left].clamp(max=step)
            if left.all():
                break
        needed.append(steps.tolist())
    return [math.log2(one / other) for one, other in zip(*needed, strict=True)]


def step_after(
    optimizer: Settings, early: int = 1000, late: int = 10_000, noise: float = 1.0, window: int = 10
) -> list[float]:
    """Return for each start log10(mean step at `late` / mean step at `early`), under gradients 1 + `noise` · N(0, 1).

    Steps are counted from 1; the mean is over `window` steps from there and over 64 weights.
    """
    weight = _parameter([[0.0] * 64] * SEEDS)
    made = _optimizer(optimizer, weight, lr=0.01)
    torch.manual_seed(0)
    sizes: dict[int, Tensor] = {early: torch.zeros(SEEDS), late: torch.zeros(SEEDS)}
    for step in range(1, late + window):
        before = weight.detach().clone()
        weight.grad = 1 + noise * torch.randn(SEEDS, 64, dtype=torch.float64)
        made.step()
        for begin in (early, late):
            if begin <= step < begin + window:
                sizes[begin] = sizes[begin] + (weight.detach() - before).abs().mean(1)
    return (sizes[late] / sizes[early]).log10().tolist()


def share_of_rising_rates(optimizer: Settings, steps: int = 1000) -> list[float]:
    """Return the share of steps at which the step per unit of gradient rises, under gradients between 0.5 and 1.5."""
    weight = _parameter([0.0])
    made = _optimizer(optimizer, weight, lr=0.01)
    torch.manual_seed(0)
    rates = []
    for gradient in (torch.rand(steps, dtype=torch.float64) + 0.5).tolist():
        before = weight.detach().item()
        weight.grad = torch.full_like(weight, gradient)
        made.step()
        rates.append((before - weight.detach().item()) / gradient)
    rises = sum(after > before * (1 + 1e-9) for before, after in itertools.pairwise(rates))
    return [rises / (steps - 1)]


def decay_under_noise(optimizer: Settings, small: float = 0.01, large: float = 1.0, steps: int = 500) -> list[float]:
    """Return for each start |log10| of the ratio of two weights that began equal: of small and of large gradients.

    Gradients are N(0, small²) and N(0, large²) and say nothing about the weights, so whatever shrinks weights by a
    fraction of themselves shrinks both alike: the answer is then 0. lr = 1e-3, weight decay 0.1, means of 256 weights
    that begin at 1.
    """
    weight = nn.Parameter(torch.ones(SEEDS, 2, 256, dtype=torch.float64))
    made = _optimizer(optimizer, weight, lr=1e-3, weight_decay=0.1)
    scales = torch.tensor([small, large], dtype=torch.float64)[:, None]
    torch.manual_seed(0)
    for _ in range(steps):
        weight.grad = scales * torch.randn(SEEDS, 2, 256, dtype=torch.float64)
        made.step()
    remaining = weight.detach().mean(2)
    return (remaining[:, 1] / remaining[:, 0]).log10().abs().tolist()


def excess_on_tokens(
    first: Settings,
    second: Settings,
    tokens: Literal["rare", "rare more than frequent"] = "rare",
    exponent: float = 1.0,
    steps: int = 400,
) -> list[float]:
    """Return for each seed how much more excess cross-entropy the first has than the second on rare tokens, in nats.

    Token x of 128 is drawn with probability ∝ x^−exponent (1 as in Zipf's law, 0 for all alike). The next token is
    a fixed successor of its own with probability 0.8, and otherwise drawn as x is. The model is an embedding of width
    16 and a linear layer, trained on batches of 64 pairs; Adam's advantage under such frequencies is the subject of
    Kunstner et al., "Heavy-tailed class imbalance and why Adam outperforms gradient descent on language models",
    NeurIPS 2024. The excess over the entropy is known exactly: it is the mean divergence of the model from the true
    distribution over the rarer 64 tokens, each counting the same (less that over the others for "rare more than
    frequent"). Each optimizer has the learning rate of `TOKEN_RATES` with the smallest excess over all tokens as they
    occur.
    """
    chance = torch.arange(1, 129, dtype=torch.float64).pow(-exponent)
    chance /= chance.sum()
    excess = []
    for settings in (first, second):
        by_rate = torch.stack([_trained_on_tokens(settings, lr, chance, steps) for lr in TOKEN_RATES])
        best = (by_rate @ chance).nan_to_num(math.inf).argmin(0)  # [S]
        of_token = by_rate[best, torch.arange(SEEDS)]
        rare, frequent = of_token[:, 64:].mean(1), of_token[:, :64].mean(1)
        excess.append(rare if tokens == "rare" else rare - frequent)
    return (excess[0] - excess[1]).tolist()


PROBES: dict[str, Callable[..., Sequence[float]]] = {
    probe.__name__: probe
    for probe in (
        buffer_coefficient,
        long_run_step,
        state_per_parameter,
        steps_in_a_ravine,
        swing_in_a_ravine,
        stable_rates,
        steps_across_a_saddle,
        step_after,
        share_of_rising_rates,
        decay_under_noise,
        excess_on_tokens,
        regret_of_range_test,
        shift_of_steepest,
    )
}


def _parameter(values: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def _optimizer(settings: Settings, parameters: nn.Parameter | list[nn.Parameter], **arguments: float) -> Optimizer:
    """Make an optimizer of `settings`, whose own arguments win over `arguments`."""
    name = settings.get("name")
    kind = locate("optimizer", name, ()) if "." in str(name) else getattr(torch.optim, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        raise BadInput(f"name={name}: torch.optim has no such optimizer")
    own = {key: value for key, value in settings.items() if key != "name"}
    of = parameters if isinstance(parameters, list) else [parameters]
    try:
        return kind(of, **(arguments | own))
    except TypeError as error:
        raise BadInput(f"name={name}: {error}") from None


def _starts(scale: Tensor) -> Tensor:
    """Return random starts [S, d]: every coordinate between 0.5 and 1.5 times `scale`, of either sign."""
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        size, sign = torch.rand(len(scale), dtype=torch.float64) + 0.5, torch.randint(2, (len(scale),)) * 2 - 1
        found.append(scale * size * sign)
    return torch.stack(found)


def _ravine(condition: float) -> tuple[Tensor, Tensor]:
    """Return the two curvatures of a ravine, and random starts."""
    return torch.tensor([1.0, condition], dtype=torch.float64), _starts(torch.ones(2, dtype=torch.float64))


def _path(settings: Settings, curvature: Tensor, start: Tensor, lr: float, steps: int) -> Tensor:
    """Return the iterates [steps + 1, d] from a start."""
    weight = nn.Parameter(start.clone())
    made = _optimizer(settings, weight, lr=lr)
    path = [start.clone()]
    for _ in range(steps):
        weight.grad = curvature * weight.detach()
        made.step()
        path.append(weight.detach().clone())
    return torch.stack(path)


def _fastest(
    settings: Settings, curvature: Tensor, starts: Tensor, reduce_to: float, most: int = 2000
) -> tuple[list[int], list[float]]:
    """Return for each start [S, d] the fewest steps to `reduce_to` of the first f, and the learning rate for it.

    Counted is the last step after which f lies above, as known when f has fallen a thousand times further; `most` where
    that never happens. A rate is given up for a start as soon as it can no longer win.
    """
    fewest, best = torch.full([len(starts)], most), torch.full([len(starts)], math.nan, dtype=torch.float64)
    target = reduce_to * (curvature * starts.square()).sum(1)
    for rate in sorted(RATES, key=lambda rate: abs(math.log(rate))):  # good rates first: they end the others early
        lr = rate / float(curvature.max())
        weight = nn.Parameter(starts.clone())
        made = _optimizer(settings, weight, lr=lr)
        needed = torch.ones_like(fewest)
        arrived = torch.zeros_like(fewest, dtype=torch.bool)
        for step in range(1, most):
            weight.grad = curvature * weight.detach()
            made.step()
            values = (curvature * weight.detach().square()).sum(1)
            needed[~(values <= target)] = step + 1  # nan lies above too
            arrived |= values <= 1e-3 * target
            if (arrived | (needed >= fewest)).all():
                break
        else:
            needed[~arrived] = most
        better = needed < fewest
        fewest[better], best[better] = needed[better], lr
    return fewest.tolist(), best.tolist()


def _is_stable(settings: Settings, lr: float, steps: int) -> bool:
    """Return whether x tends to 0 on f(x) = x² / 2 from x = 1."""
    weight = _parameter([1.0])
    made = _optimizer(settings, weight, lr=lr)
    before = now = 1.0
    for _ in range(steps):
        weight.grad = weight.detach().clone()
        made.step()
        before, now = now, abs(weight.detach().item())
        if now > 1e6 or before + now < 1e-6:
            break
    return before + now < 1


def _trained_on_tokens(settings: Settings, lr: float, chance: Tensor, steps: int) -> Tensor:
    """Return for each seed and token [S, V] how far the trained model is from the true next token, in nats."""
    vocabulary, width, batch = len(chance), 16, 64
    torch.manual_seed(0)
    successor = torch.stack([torch.randperm(vocabulary) for _ in range(SEEDS)])
    embedding = nn.Parameter(torch.randn(SEEDS, vocabulary, width, dtype=torch.float64))
    output = nn.Parameter(torch.randn(SEEDS, width, vocabulary, dtype=torch.float64) / math.sqrt(width))
    made = _optimizer(settings, [embedding, output], lr=lr)
    rows = torch.arange(SEEDS)[:, None]
    for _ in range(steps):
        drawn = torch.multinomial(chance, 2 * SEEDS * batch, replacement=True).view(2, SEEDS, batch)
        token, other = drawn
        following = torch.where(torch.rand(SEEDS, batch) < 0.8, successor.gather(1, token), other)
        logits = embedding[rows, token] @ output
        made.zero_grad()
        # Members share nothing: the sum over them gives each the gradient of its own mean.
        nn.functional.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="sum").div(batch).backward()
        made.step()
    true = 0.2 * chance.expand(SEEDS, vocabulary, vocabulary).clone()
    true.scatter_add_(2, successor[:, :, None], torch.full_like(true[:, :, :1], 0.8))
    predicted = (embedding.detach() @ output.detach()).log_softmax(2)
    return (true * (true.log() - predicted)).sum(2)
