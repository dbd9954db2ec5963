"""A sweep as one program: many models trained at once with torch.func, each with its own data order and settings.

This is what HFTA ("Horizontally Fused Training Array", MLSys 2021) is for, in the form that torch itself offers
(https://docs.pytorch.org/tutorials/intermediate/ensembling.html): stack_module_state, vmap over the members, and update
rules written for stacked parameters. It trains and does nothing else: no records, no evaluation, no checkpoints.

python -m benchmarks.programs.vmap_sweep --model mlp --batch-size 32 --steps 440 --lr 1e-3,3e-3 --weight-decay 0 \\
    --seed 0,1
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from benchmarks.bare import Problem, cosine, cross_entropy
from benchmarks.programs.problems import problem

BETAS, EPS = (0.9, 0.999), 1e-8  # torch's defaults of AdamW

Tensors = dict[str, Tensor]


class Together:
    """R problems that differ in initial weights, data order, learning rate and weight decay only."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problem = problems[0]
        self.parameters, self.buffers = stack_module_state([each.model for each in problems])
        self.parameters = {name: tensor.detach() for name, tensor in self.parameters.items()}
        self.lrs = torch.tensor([each.arguments["lr"] for each in problems])
        self.weight_decays = torch.tensor([each.arguments["weight_decay"] for each in problems])
        self.first = {name: torch.zeros_like(tensor) for name, tensor in self.parameters.items()}
        self.second = {name: torch.zeros_like(tensor) for name, tensor in self.parameters.items()}
        skeleton = copy.deepcopy(self.problem.model).to("meta").train()

        def loss(parameters: Tensors, buffers: Tensors, inputs: Tensor, targets: Tensor) -> Tensor:
            return cross_entropy(functional_call(skeleton, (parameters, buffers), (inputs,)), targets)

        self.gradients = vmap(grad_and_value(loss))

    def train(self, rows: Iterable[Tensor], steps: int) -> list[Tensor]:
        """Take `steps` steps on batches of the given rows [R, B]; return the losses [R] of each."""
        losses = []
        update = self._sgd if self.problem.optimizer is torch.optim.SGD else self._adamw
        for step, ids in zip(range(steps), rows, strict=False):
            inputs, targets = self.problem.inputs[ids], self.problem.targets[ids]
            gradients, loss = self.gradients(self.parameters, self.buffers, inputs, targets)
            if self.problem.clip_norm is not None:
                self._clip(gradients, self.problem.clip_norm)
            update(gradients, self.lrs * cosine(step, self.problem.total_steps), step)
            losses.append(loss)
        return losses

    def _clip(self, gradients: Tensors, clip_norm: float) -> None:
        norm = sum(gradient.flatten(1).square().sum(1) for gradient in gradients.values()).sqrt()  # type: ignore[union-attr]
        factor = (clip_norm / (norm + 1e-6)).clamp(max=1)
        for gradient in gradients.values():
            gradient.mul_(_along(factor, gradient))

    def _sgd(self, gradients: Tensors, lrs: Tensor, step: int) -> None:
        momentum = self.problem.arguments["momentum"]
        for name, parameter in self.parameters.items():
            gradient, buffer = gradients[name], self.first[name]
            if parameter.ndim > 2:  # a matrix or kernel of each member
                gradient = gradient.addcmul_(_along(self.weight_decays, parameter), parameter)
            buffer.mul_(momentum).add_(gradient)
            parameter.addcmul_(_along(-lrs, parameter), buffer)

    def _adamw(self, gradients: Tensors, lrs: Tensor, step: int) -> None:
        correction1, correction2 = (1 - beta ** (step + 1) for beta in BETAS)
        for name, parameter in self.parameters.items():
            gradient, first, second = gradients[name], self.first[name], self.second[name]
            if parameter.ndim > 2:
                parameter.mul_(_along(1 - lrs * self.weight_decays, parameter))
            first.lerp_(gradient, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            denominator = second.sqrt().div_(math.sqrt(correction2)).add_(EPS)
            parameter.addcmul_(_along(-lrs / correction1, parameter), first.div(denominator))


def _along(values: Tensor, tensor: Tensor) -> Tensor:
    """Shape values [R] so that they multiply along the leading axis of a tensor."""
    return values.view(-1, *[1] * (tensor.ndim - 1))


def shuffled(given: Problem, seeds: Sequence[int]) -> Iterator[Tensor]:
    """Yield the rows [R, B] of each batch: every seed has its own order, epoch after epoch."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    count, size = len(given.inputs) // given.stride, given.batch_size
    while True:
        orders = torch.stack([torch.randperm(count, generator=generator) for generator in generators]) * given.stride
        for start in range(0, count - size + 1, size):
            yield orders[:, start : start + size]


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=_numbers, required=True)
    parser.add_argument("--weight-decay", type=_numbers, required=True)
    parser.add_argument("--seed", type=lambda text: [int(part) for part in text.split(",")], required=True)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args(argv)
    torch.set_num_threads(flags.threads)
    members = list(itertools.product(flags.lr, flags.weight_decay, flags.seed))
    problems = [problem(flags.model, *member, flags.batch_size, flags.steps) for member in members]
    rows = shuffled(problems[0], [seed for _, _, seed in members])
    losses = Together(problems).train(rows, flags.steps)
    for member, loss in zip(members, losses[-1].tolist(), strict=True):
        print(*member, f"{loss:.6g}")


if __name__ == "__main__":
    main()
