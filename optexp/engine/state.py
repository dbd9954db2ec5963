"""The state of a model and its optimizer as trees of named tensors, and the way back.

State is matched by parameter name and never by order: torch's `load_state_dict` of optimizers matches by order, casts
moments to the dtype of the parameter, and takes swapped tensors of equal shape without a word.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp.errors import BadInput

Tree = dict[str, Any]
_KIND = "__kind__"
_OBJECTS_OF = "pytorch_optimizer."
"""The package whose optimizers keep objects in their state: projections (GaLore) and preconditioners (Shampoo)."""


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> Tree:
    """Return {"parameters": {name: state}, "groups": [settings]} of an optimizer over `model`'s parameters.

    Optimizers that keep more have it under "shared" (state of no parameter) and "extra" (what their own `state_dict`
    adds to torch's).
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    of_parameters = {key: values for key, values in optimizer.state.items() if isinstance(key, Tensor)}
    # torch's rules keep tensors and numbers only, and treat elements alike or make their factors anew.
    known = type(optimizer).__module__.startswith(("torch.", "optexp."))
    tree: Tree = {
        "parameters": {
            names[parameter]: {key: value if known else _plain(value, parameter) for key, value in values.items()}
            for parameter, values in of_parameters.items()
        },
        "groups": [
            {key: _setting(value) for key, value in group.items() if key not in ("params", "param_names")}
            for group in optimizer.param_groups
        ],
    }
    if shared := {key: _plain(value) for key, value in optimizer.state.items() if not isinstance(key, Tensor)}:
        tree["shared"] = shared
    if type(optimizer).state_dict is not Optimizer.state_dict:
        saved = optimizer.state_dict()
        tree["extra"] = {key: _plain(saved[key]) for key in saved if key not in ("state", "param_groups")}
    return tree


def load_optimizer_state(model: nn.Module, optimizer: Optimizer, tree: Tree) -> None:
    """Give an optimizer the state that `optimizer_state` returned, by parameter name and in the dtypes it was saved."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    if unknown := sorted(set(tree["parameters"]) - set(names.values())):
        raise BadInput(f"the checkpoint's optimizer state is for other parameters, such as '{unknown[0]}'")
    if extra := tree.get("extra"):
        own = {key: _placed(value, None, False) for key, value in extra.items()}
        optimizer.load_state_dict({**optimizer.state_dict(), **own})
    optimizer.state.clear()
    shared: dict[Any, Any] = optimizer.state
    shared.update({key: _placed(value, None, False) for key, value in tree.get("shared", {}).items()})
    for group, settings in zip(optimizer.param_groups, tree["groups"], strict=True):
        group.update({key: _placed(value, None, False) for key, value in settings.items()})
        counts_on_device = bool(group.get("fused") or group.get("capturable"))
        for parameter in group["params"]:
            values = tree["parameters"].get(names[parameter])
            if values is not None:
                optimizer.state[parameter] = _placed(values, parameter, counts_on_device)


def _plain(value: Any, parameter: Tensor | None = None) -> Any:
    """Return a value of an optimizer's state made of what a checkpoint can hold: tensors, numbers, lists and dicts."""

    def plain(items: Iterable[Any]) -> list[Any]:
        return [_plain(item, parameter) for item in items]

    if isinstance(value, Tensor):
        return _laid_out(value, parameter)
    if isinstance(value, int | float | str | None):
        return value
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return dict(zip(value, plain(value.values()), strict=True))
        return {_KIND: "dict", "items": [plain(pair) for pair in value.items()]}
    if isinstance(value, list):
        return plain(value)
    if isinstance(value, tuple):
        return {_KIND: "tuple", "items": plain(value)}
    if isinstance(value, deque):
        return {_KIND: "deque", "items": plain(value), "maxlen": value.maxlen}
    if isinstance(value, torch.dtype):
        return {_KIND: "dtype", "name": str(value).removeprefix("torch.")}
    kind = type(value)
    if kind.__module__.startswith(_OBJECTS_OF) and hasattr(value, "__dict__"):
        name = f"{kind.__module__}.{kind.__qualname__}"
        return {_KIND: "object", "class": name, "vars": _plain(vars(value), parameter)}
    return value  # the checkpoint says what it cannot hold


def _laid_out(tensor: Tensor, parameter: Tensor | None) -> Any:
    """Return a tensor, with the order of its axes in memory where it is neither the usual nor the parameter's one.

    Factorizations return columns one after the other, and a product with them rounds in another way when they are rows.
    """
    if tensor.is_contiguous() or (parameter is not None and tensor.stride() == parameter.stride()):
        return tensor
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda axis: -strides[axis])
    if not tensor.permute(order).is_contiguous():
        return tensor
    return {_KIND: "axes", "order": order, "tensor": tensor.permute(order)}


def _setting(value: Any) -> Any:
    """Return a setting of a parameter group. Pairs such as betas may become the lists that JSON makes of them."""
    return value if isinstance(value, tuple) else _plain(value)


def _placed(value: Any, parameter: Tensor | None, counts_on_device: bool) -> Any:
    """Undo `_plain`, and put tensors of a parameter's state where the optimizer left them.

    Those shaped like the parameter get its memory layout, because fused kernels walk both together. Scalars such as
    torch's step counter live on the CPU unless the optimizer counts on the device.
    """

    def placed(item: Any) -> Any:
        return _placed(item, parameter, counts_on_device)

    if isinstance(value, dict) and value.get(_KIND) == "axes":
        own = _placed(value["tensor"], None, counts_on_device)
        on_device = own if parameter is None else own.to(parameter.device)
        return on_device.permute([value["order"].index(axis) for axis in range(own.ndim)])
    if isinstance(value, dict) and _KIND in value:
        return _of_kind({key: placed(item) for key, item in value.items()})
    if isinstance(value, dict):
        return {key: placed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [placed(item) for item in value]
    if not isinstance(value, Tensor):
        return value
    if parameter is None:
        return value.clone()
    if value.shape == parameter.shape and value.ndim > 0:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device) if value.ndim > 0 or counts_on_device else value.clone()


def _of_kind(saved: Tree) -> Any:
    """Return the value that `_plain` has described."""
    if saved[_KIND] == "dict":
        return dict(saved["items"])
    if saved[_KIND] == "tuple":
        return tuple(saved["items"])
    if saved[_KIND] == "deque":
        return deque(saved["items"], maxlen=saved["maxlen"])
    if saved[_KIND] == "dtype":
        return getattr(torch, saved["name"])
    module, _, name = saved["class"].rpartition(".")
    if saved[_KIND] != "object" or not module.startswith(_OBJECTS_OF):  # a checkpoint names no code of anybody else's
        raise BadInput(f"the checkpoint's optimizer state has a {saved['class']}, which is not read from files")
    kind = getattr(importlib.import_module(module), name)
    value = kind.__new__(kind)
    vars(value).update(saved["vars"])
    return value


@torch.no_grad()
def put(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into parameters, in place."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


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
