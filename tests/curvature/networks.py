"""Small networks whose Hessian can be written down, and the dense Hessian of each by torch's own transforms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev

from optexp.curvature.loss import MeanLoss
from optexp.datasets.batches import Batch
from optexp.engine.objective import Objective
from optexp.engine.runtime import Precision
from optexp.models.mlp import MLP
from optexp.models.transformer import Transformer
from optexp.nn import BatchNorm2d, Conv2d, Dropout, GlobalAvgPool2d, Linear, ReLU, Sequential

FP64 = Precision("fp64", torch.device("cpu"))


def batches_of(inputs: Tensor, targets: Tensor, size: int) -> list[Batch]:
    return [Batch(i, t) for i, t in zip(inputs.split(size), targets.split(size), strict=True)]


def perceptron() -> MeanLoss:
    torch.manual_seed(0)
    model = MLP((5,), 3, hidden=(7, 6)).double()
    inputs, targets = torch.randn(23, 5, dtype=torch.float64), torch.randint(3, (23,))
    return MeanLoss(model, Objective("classification", 0.1), batches_of(inputs, targets, 10), FP64)


def convolutional() -> MeanLoss:
    """With batch normalization whose running statistics are those of other data, and dropout."""
    torch.manual_seed(1)
    model = Sequential(Conv2d(1, 4, 3), BatchNorm2d(4), ReLU(), GlobalAvgPool2d(), Dropout(0.5), Linear(4, 3)).double()
    model(3 * torch.randn(50, 1, 6, 6, dtype=torch.float64) + 1)
    inputs, targets = torch.randn(15, 1, 6, 6, dtype=torch.float64), torch.randint(3, (15,))
    return MeanLoss(model, Objective("classification"), batches_of(inputs, targets, 4), FP64)


def transformer() -> MeanLoss:
    torch.manual_seed(2)
    model = Transformer(num_outputs=7, context_length=6, layers=1, width=4, heads=2, dropout=0.3).double()
    tokens = torch.randint(7, (9, 7))
    targets = tokens[:, 1:].clone()
    targets[0, 3:] = -100  # padding: batches have different numbers of predictions
    return MeanLoss(model, Objective("language"), batches_of(tokens[:, :-1], targets, 4), FP64)


NETWORKS = {"perceptron": perceptron, "convolutional": convolutional, "transformer": transformer}


def dense_hessian(loss: MeanLoss) -> Tensor:
    """Return [P, P] of the mean loss over all samples at once, written here with torch.func alone."""
    batches = list(loss.batches)
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    named = dict(loss.model.named_parameters())
    sizes = [parameter.numel() for parameter in named.values()]

    def mean_loss(flat: Tensor) -> Tensor:
        parts = flat.split(sizes)
        weights = {name: part.view(p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}
        outputs = functional_call(loss.model, weights, (inputs,))
        return F.cross_entropy(
            outputs.flatten(0, -2), targets.flatten(), label_smoothing=loss.objective.label_smoothing
        )

    flat = torch.cat([parameter.detach().reshape(-1) for parameter in named.values()])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        hessian: Tensor = jacrev(grad(mean_loss), chunk_size=64)(flat)
    return hessian


def parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
