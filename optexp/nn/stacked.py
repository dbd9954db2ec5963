"""Layers that carry a leading axis of runs: R models of one architecture as a single module.

Inside a stacked model every tensor is [R, B, ...] where a single model has [B, ...]; parameters and buffers are
[R, ...] under the names they have in the single model. A model is written once: `stack` copies its containers, whose
`forward` runs unchanged, and replaces each layer by the one here that does R times the same work in one call. Members
share no number, so the gradient of the sum of their losses is the gradient of each.

Source of the idea: Wang et al., "HFTA: Horizontally Fused Training Array", MLSys 2021.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optexp.errors import Unstackable
from optexp.nn.dropout import Dropout, StackedStepState, StochasticDepth
from optexp.nn.operations import Embedding, GlobalAvgPool2d, LearnedPositions


def stack(models: Sequence[nn.Module]) -> nn.Module:
    """Return one module of all `models`, which differ in their weights and dropout probabilities only.

    The weights are copied. Raises Unstackable for layers and containers that are not known here: only the models of
    `optexp.models` promise a `forward` that does not mind one more leading axis.
    """
    first = models[0]
    if any(type(model) is not type(first) for model in models):
        raise Unstackable(f"{type(first).__name__} beside another layer")
    kind = type(first)
    if kind in _LAYERS:
        return _LAYERS[kind](models)
    if kind in _POINTWISE:
        return copy.copy(first)
    if kind not in (nn.Sequential, nn.ModuleList) and not kind.__module__.startswith("optexp.models."):
        raise Unstackable(f"{kind.__name__} is not written for it")
    if first._parameters or first._buffers:
        raise Unstackable(f"{kind.__name__} has parameters outside of layers")
    stacked = copy.copy(first)
    stacked._modules = {name: stack_children(models, name) for name in first._modules}
    return stacked


def stack_children(models: Sequence[nn.Module], name: str) -> nn.Module | None:
    children = [model._modules[name] for model in models]
    if any(child is None for child in children):  # an optional layer: absent in all, as the architecture is the same
        return None
    return stack(cast("list[nn.Module]", children))


def stacked_tensor(tensors: Sequence[Tensor]) -> Tensor:
    """Return [R, ...] of R equal-shaped tensors, each member with the memory layout that the single tensors have."""
    first = tensors[0].detach()
    strides = first.stride()
    order = sorted(range(first.ndim), key=lambda axis: (-strides[axis], axis))
    back = [order.index(axis) + 1 for axis in range(first.ndim)]
    return torch.stack([tensor.detach().permute(order) for tensor in tensors]).permute(0, *back)


class _Stacked(nn.Module):
    """What all layers here share: R models' tensors under their names, and the settings of the first model's layer."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layer = (layers[0],)  # in a tuple, so that it does not count as a child with parameters of its own
        for name, parameter in layers[0]._parameters.items():
            if parameter is None:
                self.register_parameter(name, None)
                continue
            tensors = [cast(Tensor, layer._parameters[name]) for layer in layers]
            self.register_parameter(name, nn.Parameter(stacked_tensor(tensors), parameter.requires_grad))
        for name, buffer in layers[0]._buffers.items():
            stacked = None if buffer is None else torch.stack([cast(Tensor, layer._buffers[name]) for layer in layers])
            self.register_buffer(name, stacked, persistent=name not in layers[0]._non_persistent_buffers_set)

    def refuse_unless(self, condition: bool, what: str) -> None:
        if not condition:
            raise Unstackable(f"{type(self.layer[0]).__name__} with {what}")


class _Products(torch.autograd.Function):
    """x [R, N, in] and weights [R, out, in] to [R, N, out], one batched product each for result and gradients.

    torch's own derivative of `bmm` gives the gradient of transposed weights with its axes swapped in memory,
    and autograd then copies it: a quarter of the time of a step of small layers.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        return (
            torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None,
            torch.bmm(gradient.transpose(1, 2), x) if ctx.needs_input_grad[1] else None,
            gradient.sum(1) if ctx.needs_input_grad[2] else None,
        )


def products(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply x [R, B, ..., in] by each member's matrix [R, out, in], and add its bias [R, out]."""
    if torch.is_autocast_enabled(x.device.type):  # which cannot look into a Function: its derivative would mix types
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    out: Tensor = _Products.apply(x.flatten(1, -2), weight, bias)
    return out.view(*x.shape[:-1], out.shape[-1])


class StackedLinear(_Stacked):
    """x [R, B, ..., in] to [R, B, ..., out], by one batched matrix product."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return products(x, self.weight, self.bias)


def members_as_channels(x: Tensor) -> Tensor:
    """Return images [R, B, C, H, W] as [B, R · C, H, W]: a view, when they come out of a layer that computes so."""
    return x.transpose(0, 1).flatten(1, 2)


def channels_as_members(x: Tensor, members: int) -> Tensor:
    """Undo `members_as_channels`; always a view."""
    return x.unflatten(1, (members, -1)).transpose(0, 1)


class StackedConv2d(_Stacked):
    """x [R, B, in, H, W] to [R, B, out, H', W'], as one convolution in which each member is a group of channels."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        layer = cast(nn.Conv2d, self.layer[0])
        self.refuse_unless(layer.padding_mode == "zeros", f"padding mode {layer.padding_mode}")

    def forward(self, x: Tensor) -> Tensor:
        layer, members = cast(nn.Conv2d, self.layer[0]), len(self.weight)
        out = F.conv2d(
            members_as_channels(x),
            self.weight.flatten(0, 1),
            None if self.bias is None else self.bias.flatten(),
            layer.stride,
            layer.padding,
            layer.dilation,
            members * layer.groups,
        )
        return channels_as_members(out, members)


class StackedBatchNorm2d(_Stacked):
    """x [R, B, C, H, W] to the same shape: statistics over B, H and W of R · C channels, so each member has its own."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        layer = cast(nn.BatchNorm2d, self.layer[0])
        self.refuse_unless(layer.track_running_stats and layer.momentum is not None, "other than default statistics")

    def forward(self, x: Tensor) -> Tensor:
        layer, members = cast(nn.BatchNorm2d, self.layer[0]), len(self.running_mean)
        if self.training:
            self.num_batches_tracked.add_(1)
        out = F.batch_norm(
            members_as_channels(x),
            self.running_mean.flatten(),  # views: updated in place
            self.running_var.flatten(),
            None if self.weight is None else self.weight.flatten(),
            None if self.bias is None else self.bias.flatten(),
            self.training,
            cast(float, layer.momentum),
            layer.eps,
        )
        return channels_as_members(out, members)


class StackedLayerNorm(_Stacked):
    """x [R, B, ..., *normalized_shape] to the same shape, with each member's own gain and bias."""

    weight: Tensor | None
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        layer = cast(nn.LayerNorm, self.layer[0])
        out = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
        if self.weight is None:
            return out
        shape = (len(self.weight), *(1,) * (x.ndim - self.weight.ndim), *layer.normalized_shape)
        if self.bias is None:
            return out * self.weight.view(shape)
        return torch.addcmul(self.bias.view(shape), out, self.weight.view(shape))


class StackedEmbedding(_Stacked):
    """Tokens [R, B, T] to vectors [R, B, T, width]: one look-up in the R vocabularies, one behind the other."""

    weight: Tensor

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        layer = cast(nn.Embedding, self.layer[0])
        plain = layer.padding_idx is None and layer.max_norm is None and not (layer.scale_grad_by_freq or layer.sparse)
        self.refuse_unless(plain, "padding, a norm, or sparse or scaled gradients")

    def forward(self, tokens: Tensor) -> Tensor:
        members, entries, _ = self.weight.shape
        first = torch.arange(0, members * entries, entries, device=tokens.device)
        return F.embedding(tokens + first[:, None, None], self.weight.flatten(0, 1))

    def unembed(self, x: Tensor) -> Tensor:
        """Return the score of every entry: [R, B, T, width] to [R, B, T, entries]."""
        return products(x, self.weight)


class StackedPositions(_Stacked):
    """Add each member's vector of each position: x [R, B, T, width] to the same shape."""

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[:, None, : x.shape[-2]]


class StackedFlatten(_Stacked):
    """x [R, B, ...] to [R, B, numbers of a sample]."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        layer = cast(nn.Flatten, self.layer[0])
        self.refuse_unless((layer.start_dim, layer.end_dim) == (1, -1), "other axes than all but the first")

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2)


class Drawing(nn.Module):
    """A module that draws random numbers for R members; `attach_stacked_state` gives it the state to draw from."""

    state: StackedStepState | None = None
    layer_index = 0


class _StackedDrop(_Stacked, Drawing):
    """What is dropped is drawn for each member from its own seed, with its own probability `p` [R]."""

    p: Tensor
    scale: Tensor

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        self.probabilities = [float(cast(Any, layer).p) for layer in layers]
        p = torch.tensor(self.probabilities, dtype=torch.float64)
        self.register_buffer("p", p.float(), persistent=False)
        self.register_buffer("scale", 1 / (1 - p), persistent=False)

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of one member's mask, as the single layer has it."""
        raise NotImplementedError

    def kept(self, shape: tuple[int, ...]) -> Tensor:
        assert self.state is not None
        drawn = self.state.uniform(cast(Any, self.layer[0]).purpose, self.layer_index, shape)
        return drawn >= self.p.view(-1, *(1,) * len(shape))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not any(self.probabilities):
            return x
        # The factor is never rounded to half precision: a single layer multiplies by a Python number.
        scale = self.scale.to(torch.promote_types(x.dtype, torch.float32)).view(-1, *(1,) * (x.ndim - 1))
        return torch.where(self.kept(self.mask_shape(x)), (x * scale).to(x.dtype), 0.0)


class StackedDropout(_StackedDrop):
    """Dropout of single elements of x [R, B, ...]."""

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape[1:])


class StackedStochasticDepth(_StackedDrop):
    """Dropout of whole samples of x [R, B, ...]."""

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        return (x.shape[1],) + (1,) * (x.ndim - 2)


_LAYERS: dict[type, Callable[[Sequence[nn.Module]], nn.Module]] = {
    nn.Linear: StackedLinear,
    nn.Conv2d: StackedConv2d,
    nn.BatchNorm2d: StackedBatchNorm2d,
    nn.LayerNorm: StackedLayerNorm,
    nn.Flatten: StackedFlatten,
    nn.Embedding: StackedEmbedding,
    Embedding: StackedEmbedding,
    LearnedPositions: StackedPositions,
    Dropout: StackedDropout,
    StochasticDepth: StackedStochasticDepth,
}
# They do the same to every element, or act on the last axes only.
_POINTWISE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, GlobalAvgPool2d)


def select_members(model: nn.Module, rows: Sequence[int]) -> None:
    """Keep the given members of a stacked model, in this order. Gradients are dropped."""
    for parameter in model.parameters():  # those that several layers share, once
        parameter.grad = None
        parameter.data = stacked_tensor([parameter[row] for row in rows])
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer[list(rows)]
        if isinstance(module, _StackedDrop):
            module.probabilities = [module.probabilities[row] for row in rows]


def attach_stacked_state(model: nn.Module, seeds: Sequence[int], device: torch.device) -> StackedStepState:
    """Number the dropout layers of a stacked model as `attach_step_state` does and give them one shared state."""
    state = StackedStepState(list(seeds), device)
    layers = (module for module in model.modules() if isinstance(module, Drawing))
    for index, layer in enumerate(layers):
        layer.layer_index = index
        layer.state = state
        layer.to(device)  # the probabilities of a stack are new tensors
    return state
