"""The optimizers of a comparison by the names of their config files, with changes to their arguments behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from optexp.config import build
from optexp.config.check import check
from optexp.config.compose import Composed, Composer
from optexp.errors import BadInput
from optexp.optimizers.build import build_optimizer
from optexp.override_words import key_of
from optexp.surfaces.trajectories import Point


@dataclass(frozen=True)
class Contestant:
    """An optimizer as it was asked for: `adam`, or `adam eps=1e-4`."""

    name: str
    target: Callable[..., Any]
    arguments: dict[str, Any]

    def make(self, model: nn.Module, lr: float) -> Optimizer:
        """Build the optimizer over a model's parameters; raises BadInput for what its constructor refuses."""
        return build_optimizer(self.target, {**self.arguments, "lr": lr}, model, decay_norm_and_bias=True)

    @property
    def weight_decay(self) -> float:
        """The weight decay among its arguments; 0 where there is none."""
        return float(self.arguments.get("weight_decay") or 0)


def contestants(composed: Composed, names: Sequence[str], weight_decay: float | None) -> list[Contestant]:
    """Return the optimizers of these names, from the groups of the request, those of --config-dir included.

    `weight_decay`, where given, replaces that of every optimizer that has one. Raises BadInput naming the entry.
    """
    composer = Composer(composed.config_dir)
    build.trust(composed.config["trust"])
    return [_contestant(composer, name, composed.config["trust"], weight_decay) for name in names]


def _contestant(composer: Composer, name: str, trusted: Sequence[str], weight_decay: float | None) -> Contestant:
    entry, *changes = name.split()
    try:
        for change in changes:
            if key_of(change) == "lr":
                raise BadInput(
                    f"{change}: the learning rate is tuned (task.lowest_rate, task.highest_rate); "
                    "allowed are other arguments"
                )
        found = composer.compose([f"optimizer={entry}", *map(_word, changes)])
        check(found.config, found.choices)
        node = found.config["optimizer"]
        target = build.locate("optimizer", node.get("_target_"), trusted)
        arguments = build.arguments(node)
        if weight_decay is not None and "weight_decay" in arguments:
            arguments["weight_decay"] = weight_decay
        build.check_arguments("optimizer", target, arguments, ["params"])
        contestant = Contestant(name, target, arguments)
        contestant.make(_probe(), 0.1)
    except BadInput as error:
        raise BadInput(f"task.optimizers: {name}: {error}") from None
    return contestant


def _word(change: str) -> str:
    """Return the override word of `eps=1e-4`, or of `+key=value`, which adds a key."""
    return f"+optimizer.{change[1:]}" if change.startswith("+") else f"optimizer.{change}"


def _probe() -> nn.Module:
    return Point(torch.zeros(2, dtype=torch.float64))
