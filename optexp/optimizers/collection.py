"""Any optimizer of the collection pytorch_optimizer (Kim, 2021) by name, and which of them a run cannot use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from optexp.errors import BadInput, nearest

REFUSED = {
    "a2grad": "it has no learning rate that a schedule could multiply",
    "adalomo": "it takes the model and updates inside the backward pass",
    "adammini": "it takes the model in place of its parameters",
    "alig": "it has no lr that a schedule could multiply",
    "demo": "it needs the package einops and several processes",
    "distributedmuon": "it needs several processes",
    "lomo": "it takes the model and updates inside the backward pass",
    "magma": "it takes another optimizer in place of parameters",
    "spectralsphere": "it takes matrices only, and models have biases",
}
"""Names of the collection that cannot be built from parameters and numbers, with the reason."""

WITH_MATRICES = ("adago", "adamuon", "muon", "muonclip", "normuon")
"""Names of those that want to be told which parameters are hidden matrices; see `groups.hidden_matrices`."""


def by_name(params: Iterable[Any], name: str, **arguments: Any) -> Optimizer:
    """Build the optimizer of this name. Raises BadInput as `named` does, and whatever its constructor raises."""
    optimizer: Optimizer = named(name)(params, **arguments)
    return optimizer


def named(name: str) -> type[Optimizer]:
    """Return the class of a name, such as adopt or ADOPT. Raises BadInput for unknown names, and those of REFUSED."""
    import pytorch_optimizer

    known = pytorch_optimizer.get_supported_optimizers()
    own = str(name).lower()
    if own not in known:
        raise BadInput(
            f"optimizer.name={name}: pytorch_optimizer has no such optimizer{nearest(own, known)}; "
            f"it has {len(known)}, such as adopt, ademamix, lamb and prodigy"
        )
    if own in REFUSED:
        raise BadInput(f"optimizer.name={name}: cannot be used here: {REFUSED[own]}")
    return pytorch_optimizer.load_optimizer(own)


def wants_matrices(target: Any) -> bool:
    """Return whether an optimizer's parameter groups must say `use_muon`."""
    if getattr(target, "divides_matrices", False):
        return True
    module = str(getattr(target, "__module__", ""))
    return module.startswith("pytorch_optimizer.") and str(getattr(target, "__name__", "")).lower() in WITH_MATRICES
