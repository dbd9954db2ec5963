"""Update rules that train R runs at once, one for each torch optimizer that has one."""

from __future__ import annotations

from typing import Any

import torch

from optexp.optimizers.stacked.adagrad import Adagrad
from optexp.optimizers.stacked.adam import Adam
from optexp.optimizers.stacked.base import StackedOptimizer, Unstackable, settings_of
from optexp.optimizers.stacked.lion import Lion
from optexp.optimizers.stacked.rmsprop import RMSprop
from optexp.optimizers.stacked.sgd import SGD

__all__ = ["StackedOptimizer", "Unstackable", "settings_of", "stacked_rule"]

_RULES: dict[Any, type[StackedOptimizer]] = {
    torch.optim.SGD: SGD,
    torch.optim.Adam: Adam,
    torch.optim.AdamW: Adam,  # both have the setting in which they differ
    torch.optim.RMSprop: RMSprop,
    torch.optim.Adagrad: Adagrad,
}


def stacked_rule(target: Any) -> type[StackedOptimizer] | None:
    """Return the stacked rule that updates as an optimizer class does, or None where there is none.

    Subclasses have none: they may update in another way.
    """
    if str(getattr(target, "__module__", "")).startswith("pytorch_optimizer."):
        import pytorch_optimizer  # imported already, or the target would not exist

        return Lion if target is pytorch_optimizer.Lion else None
    return _RULES.get(target)
