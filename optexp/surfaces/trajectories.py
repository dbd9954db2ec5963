"""Paths of real torch optimizers over a surface, at many learning rates and from many starts at once, in float64."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp import streams
from optexp.instruments.step_size import effective_lr
from optexp.optimizers.stepping import direct_step
from optexp.surfaces.functions import Surface

Make = Callable[[nn.Module, float], Optimizer]
"""Builds an optimizer over the parameters of a module, at a learning rate."""

ELEMENTWISE = frozenset(
    {
        *(f"torch.{name}" for name in ("SGD", "Adagrad", "RMSprop", "Adadelta", "ASGD", "Rprop")),
        *(f"torch.{name}" for name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax")),
        *(f"pytorch_optimizer.{name}" for name in ("Lion", "ScheduleFreeAdamW", "SophiaH")),
    }
)
"""Optimizers in whose update no element of a tensor knows the others: starts may share a tensor."""


class Point(nn.Module):
    """One place on a surface, or several, as the parameter of a model. It lies in the memory of the tensor given."""

    def __init__(self, place: Tensor) -> None:
        super().__init__()
        self.place = nn.Parameter(place)


@dataclass(frozen=True)
class Descent:
    """Paths [L, T + 1, B, 2] at L learning rates from B starts, T counted in gradients.

    Their losses [L, T + 1, B] are without noise; effective learning rates [L]. `evaluations` is the largest number of
    gradients that one step has taken.
    """

    points: Tensor
    losses: Tensor
    effective_lrs: list[float]
    evaluations: int


def noise(surface: Surface, seed: int, purpose: str, steps: int, number: int) -> Tensor | None:
    """Return what is added to the gradients of `number` paths, [T, B, 2], for every optimizer; None for no noise."""
    if not surface.noise:
        return None
    generator = streams.generator(seed, f"surface/{surface.name}/{purpose}")
    return surface.noise * torch.randn(steps, number, 2, generator=generator, dtype=torch.float64)


def descend(
    surface: Surface,
    make: Make,
    rates: Sequence[float],
    starts: Tensor,
    steps: int,
    added: Tensor | None = None,
    seed: int = 0,
    together: bool = True,
) -> Descent:
    """Walk from each of `starts` [B, 2] at each learning rate, with a budget of `steps` gradients.

    An optimizer that evaluates several gradients in a step takes as many fewer steps: it rests while others walk.
    Where the update is known to be elementwise, the starts of a learning rate are one tensor; else, and with `together`
    false, each start has an optimizer of its own. `added` [T, B, 2] is added to the gradients. `seed` is for optimizers
    that draw random numbers. A path whose loss is not finite ends there; in a shared tensor it goes on, without effect
    on the others.
    """
    places = starts.to(torch.float64).repeat(len(rates), 1, 1)  # all parameters lie in here,
    gradients = torch.zeros_like(places)  # and their gradients in here: one copy serves all
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph")  # the cycle is broken each time
        torch.manual_seed(streams.key(seed, "surface"))
        shared = together and _name(make(Point(starts.clone()), rates[0])) in ELEMENTWISE
        parts: list[Any] = [slice(None)] if shared else list(range(len(starts)))
        walkers = [
            [_Walker(surface, make, rate, (row, part), places, gradients) for part in parts]
            for row, rate in enumerate(rates)
        ]
        every = [places.clone()]
        for step in range(steps):
            _take_step(surface, walkers, step, places, gradients, None if added is None else added[step])
            every.append(places.clone())
            for walker in (walker for line in walkers for walker in line if walker.switches or walker.needs_closure):
                walker.correct(every[-1], step + 1)
    points = torch.stack(every, 1)
    effective = [effective_lr(line[0].optimizer, rate) for line, rate in zip(walkers, rates, strict=True)]
    most = max(walker.most_evaluations for line in walkers for walker in line)
    return Descent(points, surface.f(points), effective, most)


class _Walker:
    """One optimizer and what it moves: the part `where` of all places."""

    def __init__(
        self, surface: Surface, make: Make, rate: float, where: tuple[int, Any], places: Tensor, gradients: Tensor
    ) -> None:
        self.surface, self.where = surface, where
        self.point = Point(places[where])
        self.gradient = gradients[where]
        self.before = self.point.place.detach()
        self.optimizer = make(self.point, rate)
        closure = inspect.signature(type(self.optimizer).step).parameters.get("closure")
        self.needs_closure = closure is not None and closure.default is inspect.Parameter.empty
        self.needs_graph = hasattr(self.optimizer, "compute_hutchinson_hessian")
        self.take = direct_step(self.optimizer)
        self.switches = callable(getattr(self.optimizer, "train", None))
        self.evaluations = self.most_evaluations = 0
        if self.switches:
            self.optimizer.train()  # type: ignore[attr-defined]

    def correct(self, places: Tensor, budget: int) -> None:
        """Write into `places` where it counts as being after `budget` gradients.

        Schedule-free optimizers are evaluated elsewhere than where they take gradients; a step of several gradients
        has been taken when the budget pays for all of them.
        """
        if self.switches:
            self.optimizer.eval()  # type: ignore[attr-defined]
            places[self.where] = self.point.place.detach()
            self.optimizer.train()  # type: ignore[attr-defined]
        if self.evaluations > budget:
            places[self.where] = self.before

    def step(self, added: Tensor | None) -> None:
        """Take a step, with a loss of its own where the optimizer evaluates it or differentiates its gradient."""
        before = self.evaluations
        if self.needs_closure:
            self.before = self.point.place.detach().clone()
            self.optimizer.step(lambda: self._loss(added))  # type: ignore[arg-type, return-value]
        elif self.needs_graph:
            self._loss(added)
            self.take()
        else:
            self.evaluations += 1
            self.point.place.grad = self.gradient
            self.take()
        self.point.place.grad = None
        self.most_evaluations = max(self.most_evaluations, self.evaluations - before)

    def _loss(self, added: Tensor | None) -> Tensor:
        """Return the loss where the optimizer is, after computing its gradient."""
        self.evaluations += 1
        place = self.point.place
        place.grad = None
        with torch.enable_grad():
            loss = self.surface.f(place).sum()
            if added is not None:
                loss = loss + (added[self.where[1]] * place).sum()
            loss.backward(create_graph=self.needs_graph)
        return loss


def _take_step(
    surface: Surface,
    walkers: Sequence[Sequence[_Walker]],
    step: int,
    places: Tensor,
    gradients: Tensor,
    added: Tensor | None,
) -> None:
    """Let every walker that has not used up its gradients, nor lost all its paths, take a step."""
    now = places.clone().requires_grad_()
    losses = surface.f(now)
    (found,) = torch.autograd.grad(losses.sum(), now)
    gradients.copy_(found if added is None else found + added)
    finite = losses.isfinite().tolist()
    for line, of_line in zip(walkers, finite, strict=True):
        for walker in line:
            part = walker.where[1]
            if walker.evaluations <= step and (any(of_line) if isinstance(part, slice) else of_line[part]):
                walker.step(added)


def _name(optimizer: Optimizer) -> str:
    return f"{type(optimizer).__module__.split('.')[0]}.{type(optimizer).__name__}"
