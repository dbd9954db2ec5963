"""One GPU: images and tokens per second against loops that keep everything on the device, and the share of its peak.

The loops are those of two programs known for their speed, on optexp's models and in their own words:
`ResidentLoop` of airbench (K. Jordan, https://github.com/KellerJordan/cifar10-airbench) and nanoGPT's train.py
(A. Karpathy, https://github.com/karpathy/nanoGPT). Both keep the data on the device, use bf16 autocast and fused
updates, and never wait for the device. On a CPU, for tests, the same runs with tiny sizes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.bare import Loop, Problem, cosine, cross_entropy
from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.optexp_loop import LOG_EVERY, NEVER, Source, rows_of, run_engine
from benchmarks.training import compared
from optexp.models.transformer import Transformer

REPEATS = 5
WARM_UP = 30  # steps: compilation and cuDNN's search for the fastest kernels
CHECKED = 10  # steps whose losses must agree
TOLERANCE = 0.03  # relative; bf16 has 8 bits, and compiled kernels round at other places
NO_GPU = "the family 'gpu' is left out: no CUDA device is available"

# Dense bf16 peak of the tensor cores in FLOP/s, from NVIDIA's data sheets; the first name that the device's contains.
PEAKS: Mapping[str, float] = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}


@dataclass(frozen=True)
class Workload:
    """What is trained (overrides of optexp's defaults), in what unit speed is told, and the smallest ratios wanted."""

    name: str
    words: tuple[str, ...]
    counted: str  # "img" or "tokens"
    steps: int
    goals: Mapping[str, float]


RESIDENT, RESIDENT_COMPILED = "resident loop", "resident loop, compiled"
WORKLOADS = (
    Workload(
        "ResNet-18, CIFAR shapes",
        ("model=resnet", "model.depth=18", "model.width=64", "dataset=generated_images", "optimizer=sgd"),
        "img",
        steps=100,
        goals={RESIDENT: 1.5, RESIDENT_COMPILED: 1.0},
    ),
    Workload(
        "GPT-2 small",
        ("model=gpt2_small", "dataset=generated_tokens", "optimizer=adamw", "engine.clip_norm=1.0"),
        "tokens",
        steps=30,
        goals={RESIDENT_COMPILED: 1.15},
    ),
)


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file; none without a GPU."""
    if not torch.cuda.is_available():
        return []
    return [contest(workload, size.steps or (20 if size.quick else None)) for workload in WORKLOADS]


def contest(workload: Workload, steps: int | None = None, compiled: bool = True) -> Contest:
    """Milliseconds per step with optexp's default logging; speed and share of the peak beside it."""
    steps = steps or workload.steps
    total = WARM_UP + steps + LOG_EVERY
    fixed = ("engine.precision=bf16", f"engine.eval_every={NEVER}", "engine.checkpoint_every=null")
    words = (*workload.words, *fixed, f"engine.max_steps={total}")
    eager, fast = Source(words), Source([*words, "engine.compile=true"])
    scale = _Scale(eager, workload.counted)

    def engine(source: Source) -> Cost:
        seconds = run_engine(source.training()).seconds
        return scale.cost((seconds[WARM_UP + steps] - seconds[WARM_UP]) / steps)

    def resident(compiled: bool) -> Cost:
        loop = ResidentLoop(eager.problem(), compiled)
        batches = loop.batches()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # as airbench does
            loop.train(batches, 0, WARM_UP)
            _wait(loop.inputs.device)
            start = time.perf_counter()
            loop.train(batches, WARM_UP, WARM_UP + steps)
            _wait(loop.inputs.device)
        return scale.cost((time.perf_counter() - start) / steps)

    contestants = [Contestant("optexp, compiled", partial(engine, fast))] if compiled else []
    contestants += [Contestant("optexp", partial(engine, eager)), Contestant(RESIDENT, partial(resident, False))]
    if compiled:
        contestants.append(Contestant(RESIDENT_COMPILED, partial(resident, True)))
    return Contest(
        f"gpu: {workload.name}, bf16",
        "ms/step",
        contestants,
        goals=workload.goals,
        check=partial(largest_difference, workload),
        repeats=REPEATS,
    )


class _Scale:
    """From seconds per step to a cost that also tells samples per second and the share of the device's peak."""

    def __init__(self, source: Source, counted: str) -> None:
        training = source.training()
        samples, facts = training.plan.samples_per_step, training.model_facts
        self.counted = counted
        self.number = samples * (training.dataset.input_shape[0] if counted == "tokens" else 1)
        self.flops: float = samples * 3 * (facts["flops_per_sample"] or 0)
        if counted == "tokens":
            assert isinstance(training.model, Transformer)
            self.flops = self.number * transformer_flops_per_token(training.model)
        self.peak = peak_flops(training.device)

    def cost(self, seconds_per_step: float) -> Cost:
        also = {f"{self.counted}/s": self.number / seconds_per_step}
        if self.peak is not None and self.flops:
            also["MFU %"] = 100 * self.flops / seconds_per_step / self.peak
        return Cost(1000 * seconds_per_step, also)


def transformer_flops_per_token(model: Transformer) -> float:
    """Return 6 N + 12 L C T, the FLOPs of training on one token as nanoGPT and PaLM (appendix B) count them.

    N are all parameters but the positions' (the tied embedding multiplies as the output projection), L the layers, C
    the width and T the context length.
    """
    context, width = model.positions.weight.shape
    layers = len(model.blocks)
    parameters = sum(parameter.numel() for parameter in model.parameters()) - context * width
    return 6 * parameters + 12 * layers * width * context


def peak_flops(device: torch.device) -> float | None:
    """Return the dense bf16 peak of a CUDA device (FLOP/s); None when it is another device or not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


class ResidentLoop(Loop):
    """bf16 autocast, channels_last images kept in bf16, fused updates, optionally compiled; nothing is ever read."""

    def __init__(self, problem: Problem, compiled: bool = False) -> None:
        super().__init__(problem, tuned=True)
        if self.inputs.is_floating_point():
            self.inputs = self.inputs.to(torch.bfloat16)
        self.forward = torch.compile(self.model) if compiled else self.model

    def train(self, batches: object, start: int, stop: int) -> list[Tensor]:
        problem, optimizer, parameters = self.problem, self.optimizer, list(self.model.parameters())
        device_type = self.inputs.device.type
        losses = []
        self.model.train()
        for step, (inputs, targets) in zip(range(start, stop), batches, strict=False):  # type: ignore[call-overload]
            for group in optimizer.param_groups:
                group["lr"] = problem.arguments["lr"] * cosine(step, problem.total_steps)
            with torch.autocast(device_type, dtype=torch.bfloat16):
                loss = cross_entropy(self.forward(inputs), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if problem.clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, problem.clip_norm)
            optimizer.step()
            losses.append(loss.detach())
        return losses


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def largest_difference(workload: Workload) -> float:
    """Return the largest relative difference between optexp's losses and the resident loop's over the first steps.

    Raises AssertionError when it is above TOLERANCE.
    """
    words = ("engine.precision=bf16", "engine.log_every=1", f"engine.max_steps={CHECKED}", f"engine.eval_every={NEVER}")
    source = Source([*workload.words, *words])
    training = source.training()
    ours = run_engine(training).losses
    loop = ResidentLoop(source.problem())
    rows = (ids.to(loop.inputs.device) for ids in rows_of(training, CHECKED))
    return compared(f"{workload.name}: {RESIDENT}", ours, loop.train(loop.batches(rows), 0, CHECKED), TOLERANCE)
