"""The cases of the sweeps as a hand-written program sets them up: with optexp's data and model classes only."""

from __future__ import annotations

import torch

from benchmarks.bare import Problem, windows
from optexp.datasets.digits import digits
from optexp.datasets.language import pydocs
from optexp.models.mlp import MLP
from optexp.models.resnet import ResNet
from optexp.models.transformer import Transformer

CLIP_NORM = 1.0  # of the MLP


def problem(model: str, lr: float, weight_decay: float, seed: int, batch_size: int, steps: int) -> Problem:
    """Return one member of a sweep; `model` is mlp, resnet or transformer."""
    torch.manual_seed(seed)
    if model == "transformer":
        text = pydocs()
        length = text.input_shape[0]
        network: torch.nn.Module = Transformer(text.num_outputs, length)
        inputs, targets = windows(text.train.inputs, length)
        val_inputs, val_targets = (kind[::length] for kind in windows(text.val.inputs, length))
    else:
        images = digits()
        length = 1
        network = {"mlp": MLP, "resnet": ResNet}[model](images.input_shape, images.num_outputs)
        assert images.train.targets is not None
        assert images.val.targets is not None
        inputs, targets = images.train.inputs, images.train.targets
        val_inputs, val_targets = images.val.inputs, images.val.targets
    arguments: dict[str, object] = {"lr": lr, "weight_decay": weight_decay}
    return Problem(
        model=network,
        inputs=inputs,
        targets=targets,
        val_inputs=val_inputs,
        val_targets=val_targets,
        optimizer=torch.optim.SGD if model == "resnet" else torch.optim.AdamW,
        arguments={**arguments, "momentum": 0.9} if model == "resnet" else arguments,
        batch_size=batch_size,
        clip_norm=CLIP_NORM if model == "mlp" else None,
        total_steps=steps,
        stride=length,
    )
