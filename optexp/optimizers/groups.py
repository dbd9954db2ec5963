"""Parameter groups: which parameters weight decay acts on."""

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
