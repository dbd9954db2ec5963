"""Any model as R models at once, by torch.func.vmap: for models that `stack` does not know, and as an oracle for it.

It is slower than the stacked layers, which see the member axis and can choose how to compute with it, but it needs to
know nothing about a model but that its forward pass does not depend on the values of its tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from optexp import streams
from optexp.errors import Unstackable
from optexp.nn.dropout import Dropout, StochasticDepth
from optexp.nn.stacked import Drawing, stacked_tensor


class _MemberState:
    """What a dropout layer reads inside of vmap: its member's keys, which vmap hands in."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}

    def uniform(self, purpose: str, layer: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return streams.uniform(self.keys[layer], shape)


class Vectorized(Drawing):
    """R models of one architecture: [R, B, ...] to [R, B, ...], parameters [R, ...] under the single model's names."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        """Raise Unstackable when the models differ in more than their weights."""
        super().__init__()
        one = copy.deepcopy(models[0])
        members = [list(model.modules()) for model in models]
        for index, module in enumerate(one.modules()):
            alike = [modules[index] for modules in members]
            if isinstance(module, Dropout | StochasticDepth) and len({layer.p for layer in alike}) > 1:
                raise Unstackable("its dropout differs between members")
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    tensors = [cast(Tensor, layer._parameters[name]) for layer in alike]
                    parameter.data = stacked_tensor(tensors)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.stack([cast(Tensor, layer._buffers[name]) for layer in alike])
        self.one = (one,)  # in a tuple: not a child, but this module has its children and parameters under their names
        self._modules, self._parameters, self._buffers = one._modules, one._parameters, one._buffers
        self._non_persistent_buffers_set = one._non_persistent_buffers_set
        self._layers = [module for module in one.modules() if isinstance(module, Dropout | StochasticDepth)]
        self._member = _MemberState()
        for index, layer in enumerate(self._layers):
            layer.layer_index = index
            layer.state = self._member

    def forward(self, x: Tensor) -> Tensor:
        self.one[0].training = self.training
        parameters: dict[str, Tensor] = dict(self.named_parameters())
        buffers = dict(self.named_buffers())
        keys = {}
        if self.training and self._layers:
            assert self.state is not None
            keys = {layer.layer_index: self.state.streams(layer.purpose, layer.layer_index) for layer in self._layers}
        forward = torch.vmap(self._forward_one, in_dims=(0, 0, 0, 0))
        outputs: Tensor = forward(parameters, buffers, keys, x)
        return outputs

    def _forward_one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], keys: dict[int, Tensor], x: Tensor
    ) -> Tensor:
        self._member.keys = keys
        outputs: Tensor = functional_call(self.one[0], (parameters, buffers), (x,))
        return outputs
