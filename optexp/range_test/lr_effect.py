"""Whether an optimizer takes its steps with the learning rate that a schedule or a range test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from optexp.config import build
from optexp.errors import BadInput
from optexp.optimizers import collection
from optexp.optimizers.build import build_optimizer
from optexp.optimizers.faults import has_entry, ignored_schedule, known_faults


def refuse_ignored_lr(optimizer: Optimizer, name: str | None) -> None:
    """Raise BadInput for an optimizer that does not read the learning rate of every step: any loss curve of a range
    test would be that of something else. `name` is what was chosen of the group `optimizer`.
    """
    if (why := ignored_schedule(optimizer)) is not None:
        raise BadInput(f"optimizer={name}: a range test of it would mean nothing: {why}")


def faults_without_model(node: Mapping[str, Any], trusted: Sequence[str]) -> list[str]:
    """Return what is known to be wrong with the optimizer of a configuration's node, one line each.

    There is no model: only an optimizer that is known to have faults is built, over the weights of a small one.
    Raises BadInput for a target or arguments that are refused.
    """
    target = build.locate("optimizer", node.get("_target_"), trusted)
    by_name = target is collection.by_name
    if by_name:
        target = collection.named(str(node.get("name")))
    if not has_entry(target):
        return []
    arguments = build.arguments(dict(node), ["name"] if by_name else [])
    build.check_arguments("optimizer", target, arguments, ["params"])
    return known_faults(build_optimizer(target, arguments, nn.Linear(2, 2), decay_norm_and_bias=True))
