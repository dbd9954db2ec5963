"""The loss that needs no inputs: predicting the same for every sample, as well as the training targets allow."""

from __future__ import annotations

import torch
from torch import Tensor

from optexp.datasets.base import Dataset, Split

_IGNORED = -100  # targets that are no predictions, see engine/objective.py


def trivial_baseline(dataset: Dataset) -> dict[str, float]:
    """Return the validation loss of predicting the same for every sample, under the name of what is predicted.

    `class frequencies` and `token frequencies` are those of the training split (each class counted once more, so that
    none is impossible), in nats; `training mean` is the mean of its targets, as a mean squared error. A run whose loss
    is no better has learned nothing of its inputs.
    """
    if dataset.objective == "regression":
        train, val = (_targets(split) for split in (dataset.train, dataset.val))
        return {"training mean": float((val - train.mean(0)).square().mean())}
    name = "token frequencies" if dataset.objective == "language" else "class frequencies"
    train, val = (
        torch.bincount(_targets(split), minlength=dataset.num_outputs) for split in (dataset.train, dataset.val)
    )
    log_likelihood = ((train + 1) / (train.sum() + len(train))).double().log()
    return {name: float(-(val * log_likelihood).sum() / val.sum())}


def _targets(split: Split) -> Tensor:
    targets = (split.inputs if split.targets is None else split.targets).flatten(0, -2 if _continuous(split) else -1)
    return targets if _continuous(split) else targets[targets != _IGNORED].long()


def _continuous(split: Split) -> bool:
    return split.targets is not None and split.targets.is_floating_point()
