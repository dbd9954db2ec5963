"""The mean training loss over a fixed set of samples as a function of all weights, with gradient and Hessian products.

The weights of a model are one flat vector of P numbers here, in the order of `model.parameters()`. What is measured is
the function that a user evaluates: the model in evaluation mode, so without dropout and with the running statistics of
batch normalization, which are constants. It is smooth in the weights and the same at every call, and each sample
contributes on its own, so that it does not matter how the samples are cut into batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from optexp.datasets.batches import Batch
from optexp.engine.objective import Objective
from optexp.engine.runtime import Precision
from optexp.errors import BadInput


class MeanLoss:
    """The mean loss over batches; one batch at a time is in memory with its graph.

    The loss is the one that is minimized, label smoothing included; weight decay is not part of it. The model is put
    into evaluation mode and its weights are moved by `at`.
    """

    def __init__(self, model: nn.Module, objective: Objective, batches: Iterable[Batch], precision: Precision) -> None:
        """`batches` is gone through once for each evaluation, always in the same order."""
        self.model = model.eval()
        self.objective = objective
        self.batches = batches
        self.precision = precision
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.shapes = [parameter.shape for parameter in self.parameters]
        self._sizes = [parameter.numel() for parameter in self.parameters]
        self.size = sum(self._sizes)
        self._is_checked = False
        self.count = sum(int(objective.count(batch.targets)) for batch in batches)

    def weights(self) -> Tensor:
        """Return a copy of all weights, [P]."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])

    @torch.no_grad()
    def move(self, weights: Tensor) -> None:
        """Set all weights, [P]."""
        for parameter, part in zip(self.parameters, weights.split(self._sizes), strict=True):
            parameter.copy_(part.view(parameter.shape))

    @contextmanager
    def at(self, weights: Tensor) -> Iterator[None]:
        """Have the weights [P] inside the block, and those of before afterwards."""
        before = self.weights()
        self.move(weights)
        try:
            yield
        finally:
            self.move(before)

    def _loss(self, batch: Batch) -> Tensor:
        """Return what a batch contributes to the mean loss."""
        outputs = self.model(self.precision.cast(batch.inputs))
        return self.objective.loss(outputs, self.precision.cast(batch.targets), self.count)

    @torch.no_grad()
    def value(self) -> float:
        """Return the mean loss."""
        with sdpa_kernel(SDPBackend.MATH):
            return sum(float(self._loss(batch)) for batch in self.batches)

    def gradient(self) -> Tensor:
        """Return the gradient of the mean loss, [P]."""
        total = torch.zeros_like(self.weights())
        with sdpa_kernel(SDPBackend.MATH):
            for batch in self.batches:
                gradients = torch.autograd.grad(self._loss(batch), self.parameters, materialize_grads=True)
                total += torch.cat([gradient.reshape(-1) for gradient in gradients])
        return total

    def hessian_products(self, vectors: Tensor) -> Tensor:
        """Return the Hessian of the mean loss times each of the vectors, [k, P] to [k, P].

        The gradient is differentiated once more (Pearlmutter, "Fast Exact Multiplication by the Hessian", 1994): no
        finite differences. The vectors share the graph of a batch. Attention is computed by torch's plain kernel,
        because the fused ones have no second derivative. Raises BadInput for a model with another operation that has
        none.
        """
        products = torch.zeros_like(vectors)
        with sdpa_kernel(SDPBackend.MATH):
            for batch in self.batches:
                try:
                    self._add_products(batch, vectors, products)
                except RuntimeError as error:
                    raise _refusal(error) from error
        return products

    def _add_products(self, batch: Batch, vectors: Tensor, products: Tensor) -> None:
        loss = self._loss(batch)
        gradients = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
        if not self._is_checked:
            _check_twice_differentiable(gradients)
            self._is_checked = True
        # Weights in which the loss is linear have a constant gradient, and no second derivative to ask for.
        curved = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
        if not curved:
            return
        for number, vector in enumerate(vectors):
            parts = vector.split(self._sizes)
            seconds = torch.autograd.grad(
                [gradients[index] for index in curved],
                self.parameters,
                [parts[index].view(self.shapes[index]) for index in curved],
                retain_graph=number + 1 < len(vectors),
                materialize_grads=True,
            )
            products[number] += torch.cat([second.reshape(-1) for second in seconds])


def _check_twice_differentiable(gradients: Iterable[Tensor]) -> None:
    """Refuse gradients that went through a function marked as `once_differentiable`.

    torch raises for them only where it has to go through the mark, which never leads to the weights: asked for
    derivatives by weights, it takes such gradients for constants without a word.
    """
    waiting = [gradient.grad_fn for gradient in gradients if gradient.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name().rpartition("::")[2] in ("DelayedError", "Error"):
            raise BadInput("model: has an operation without a second derivative (it is marked once_differentiable)")
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                waiting.append(below)


def _refusal(error: RuntimeError) -> Exception:
    """Return what to raise for what torch raised while differentiating twice."""
    lines = str(error).strip().splitlines() or [""]
    if "is not implemented" in lines[0]:
        return BadInput(f"model: has an operation without a second derivative ({lines[0]})")
    return error
