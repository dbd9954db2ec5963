"""Parameter groups: which parameters weight decay acts on, and which are matrices between hidden layers."""

from __future__ import annotations

from typing import Any

from torch import nn

_NORMALIZATIONS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)
_MATRIX_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)


def decayed_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay acts on by default: all but biases and normalization ones.

    A bias is a parameter whose own name ends in `bias`; parameters of one dimension (gains, scales) count as
    normalization parameters wherever they stand.
    """
    names = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if not (isinstance(module, _NORMALIZATIONS) or parameter.ndim <= 1 or name.endswith("bias")):
                names.add(name)
    return names


def parameter_groups(model: nn.Module, decay_norm_and_bias: bool, takes_weight_decay: bool) -> list[dict[str, Any]]:
    """Return one group of all trainable parameters, or two: with and without weight decay.

    The second group exists only when the optimizer has a `weight_decay` argument and the model has such parameters.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if decay_norm_and_bias or not takes_weight_decay:
        return [{"params": list(trainable.values())}]
    names = decayed_names(model)
    decayed = [parameter for name, parameter in trainable.items() if name in names]
    exempt = [parameter for name, parameter in trainable.items() if name not in names]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": exempt, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def hidden_matrices(model: nn.Module, num_outputs: int | None = None) -> set[nn.Parameter]:
    """Return the weights of linear, convolution and attention layers, but for those of the output layer.

    The output layer is the last of them, in the order in which the model names them. With `num_outputs` it must have as
    many outputs: a language model whose embedding is its output projection too has no output layer of its own.
    """
    weights: list[nn.Parameter] = []
    shared = {module.weight for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    for module in model.modules():
        if isinstance(module, _MATRIX_LAYERS):
            own = [parameter for parameter in module.parameters(recurse=False) if parameter.ndim >= 2]
            weights += [parameter for parameter in own if parameter not in shared]
    if weights and num_outputs in (None, len(weights[-1])):
        weights.pop()
    return {weight for weight in weights if weight.requires_grad}


def divided(groups: list[dict[str, Any]], matrices: set[nn.Parameter]) -> list[dict[str, Any]]:
    """Divide each group into matrices, which get `use_muon` true, and the others, which get `use_muon` false."""
    parts = [
        {**group, "params": [p for p in group["params"] if (p in matrices) == use_muon], "use_muon": use_muon}
        for use_muon in (True, False)
        for group in groups
    ]
    return [part for part in parts if part["params"]]
