"""torch's fused CPU kernels, called member by member.

They take one set of hyperparameters for a list of tensors, so a stack is cut into its members: views, made once. One
call for several members with equal hyperparameters would be faster still, but the kernels round the last elements of a
tensor (those that fill no vector register) differently, so a member's numbers would depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from optexp.optimizers.fused_kernels import FusedKernel, is_known


def pays_off(kernel: FusedKernel | None) -> bool:
    """Return whether there is a kernel, known in this version of torch, and faster than plain operations.

    On one thread it is: AdamW on 64 MLPs of 26 k parameters takes 1.7 ms instead of 3.5, on two of them 0.06 instead of
    0.19. With more threads each call opens a parallel region for every tensor, however small, while plain operations
    share out all members at once.
    """
    return kernel is not None and is_known(kernel) and torch.get_num_threads() == 1


class MemberViews:
    """The members of stacked tensors as views, kept as long as the parameters stay where they are in memory."""

    def __init__(self) -> None:
        self._pointers: dict[tuple[str, ...], list[int]] = {}
        self._possible: dict[tuple[str, ...], bool] = {}
        self._cut: dict[tuple[str, ...], list[dict[str, list[Tensor]]]] = {}

    def clear(self) -> None:
        """Forget all views; to be called when slots have moved."""
        self._pointers.clear()
        self._possible.clear()
        self._cut.clear()

    def possible(self, names: Sequence[str], parameters: Mapping[str, Tensor]) -> bool:
        """Return whether a kernel can take these: it walks memory, so members must lie dense, on the CPU."""
        key = tuple(names)
        pointers = [parameters[name].data_ptr() for name in names]
        if self._pointers.get(key) != pointers:
            self._pointers[key] = pointers
            self._cut.pop(key, None)
            self._possible[key] = all(parameters[name].is_cpu and _dense(parameters[name][0]) for name in names)
        return self._possible[key]

    def cut(
        self, names: Sequence[str], parameters: Mapping[str, Tensor], slots: Mapping[str, Mapping[str, Tensor]]
    ) -> Iterator[dict[str, list[Tensor]]]:
        """Yield for each member lists of its "parameters", "gradients" and slots."""
        key = tuple(names)
        if key not in self._cut:
            stacks = {"parameters": [parameters[name].detach() for name in names]}
            stacks |= {slot: [slots[name][slot] for name in names] for slot in slots[names[0]]}
            cut = {
                role: zip(*[tensor.unbind(0) for tensor in tensors], strict=True) for role, tensors in stacks.items()
            }
            self._cut[key] = [
                dict(zip(cut, map(list, member), strict=True)) for member in zip(*cut.values(), strict=True)
            ]
        gradients = zip(*[_gradient(parameters[name]).unbind(0) for name in names], strict=True)
        for views, own in zip(self._cut[key], gradients, strict=True):
            yield views | {"gradients": list(own)}


def _dense(tensor: Tensor) -> bool:
    """Return whether a tensor fills its memory; only then does `empty_like` repeat its strides."""
    return torch.empty_like(tensor).stride() == tensor.stride()


def _gradient(parameter: Tensor) -> Tensor:
    """Return the gradient in the memory layout of the parameter."""
    gradient = parameter.grad
    assert gradient is not None
    strides = zip(parameter.shape, parameter.stride(), gradient.stride(), strict=True)
    if all(own == other or size == 1 for size, own, other in strides):
        return gradient
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient)
