"""The state of a model and its optimizer as trees of named tensors, and the way back.

State is matched by parameter name and never by order: torch's `load_state_dict` of optimizers matches by order, casts
moments to the dtype of the parameter, and takes swapped tensors of equal shape without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp.errors import BadInput

Tree = dict[str, Any]


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> Tree:
    """Return {"parameters": {name: state}, "groups": [settings]} of an optimizer over `model`'s parameters."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        "parameters": {names[parameter]: dict(values) for parameter, values in optimizer.state.items()},
        "groups": [
            {key: value for key, value in group.items() if key not in ("params", "param_names")}
            for group in optimizer.param_groups
        ],
    }


def load_optimizer_state(model: nn.Module, optimizer: Optimizer, tree: Tree) -> None:
    """Give an optimizer the state that `optimizer_state` returned, by parameter name and in the dtypes it was saved."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    if unknown := sorted(set(tree["parameters"]) - set(names.values())):
        raise BadInput(f"the checkpoint's optimizer state is for other parameters, such as '{unknown[0]}'")
    optimizer.state.clear()
    for group, settings in zip(optimizer.param_groups, tree["groups"], strict=True):
        group.update(settings)
        counts_on_device = bool(group.get("fused") or group.get("capturable"))
        for parameter in group["params"]:
            values = tree["parameters"].get(names[parameter])
            if values is not None:
                optimizer.state[parameter] = _placed(values, parameter, counts_on_device)


def _placed(value: Any, parameter: Tensor, counts_on_device: bool) -> Any:
    """Put tensors of a parameter's state where the optimizer left them.

    Those shaped like the parameter get its memory layout, because fused kernels walk both together. Scalars such as
    torch's step counter live on the CPU unless the optimizer counts on the device.
    """
    if isinstance(value, dict):
        return {key: _placed(item, parameter, counts_on_device) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, parameter, counts_on_device) for item in value]
    if not isinstance(value, Tensor):
        return value
    if value.shape == parameter.shape and value.ndim > 0:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device) if value.ndim > 0 or counts_on_device else value.clone()


def load_model_state(model: nn.Module, saved: dict[str, Tensor]) -> None:
    """Load a whole model; raises BadInput when names or shapes differ."""
    check_fits(model.state_dict(), saved)
    model.load_state_dict(saved)


def check_fits(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raise BadInput when the names or shapes of a model's tensors and of a checkpoint's differ."""
    for name in sorted(own.keys() | saved.keys()):
        if name not in saved or name not in own:
            raise BadInput(f"the checkpoint does not fit the model: '{name}' is only in one of them")
        if own[name].shape != saved[name].shape:
            raise BadInput(
                f"the checkpoint does not fit the model: '{name}' is {tuple(saved[name].shape)}, "
                f"the model's is {tuple(own[name].shape)}"
            )


def load_matching(model: nn.Module, saved: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Copy the entries whose name and shape fit and return (taken, left as initialized); for `engine.init_from`."""
    own = model.state_dict()
    taken = [name for name, value in own.items() if name in saved and saved[name].shape == value.shape]
    model.load_state_dict({name: saved[name] for name in taken}, strict=False)
    return taken, [name for name in own if name not in taken]
