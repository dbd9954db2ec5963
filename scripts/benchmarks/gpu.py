"""One GPU, large models: images and tokens per second against loops that keep everything on the device.

The loops are those of two programs known for their speed, on optexp's models and in their own words: `ResidentLoop` of
airbench (K. Jordan, https://github.com/KellerJordan/cifar10-airbench) and nanoGPT's train.py (A. Karpathy,
https://github.com/karpathy/nanoGPT). Both keep the data on the device, use bf16 autocast and fused updates, and never
wait for the device. On a CPU, for tests, the same runs with tiny sizes. Small models are in gpu_small.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks import gpu_small, lightning_loop
from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.gpu_runs import (
    STEPS_ONLY,
    Clock,
    ResidentLoop,
    drive,
    fit_lightning,
    run_bare,
    run_lightning,
    timed,
    total_steps,
)
from benchmarks.optexp_loop import Source, rows_of, run_engine
from benchmarks.training import compared
from optexp.models.transformer import Transformer

REPEATS = 5
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


def contests(size: Size) -> list[Contest]:
    """Return all contests of the family; none without a GPU."""
    if not torch.cuda.is_available():
        return []
    large = [contest(workload, size.steps or (20 if size.quick else None)) for workload in WORKLOADS]
    return [*gpu_small.contests(size), *large]


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
        goals={RESIDENT: 1.5, RESIDENT_COMPILED: 1.0, lightning_loop.NAME: 8.0},
    ),
    Workload(
        "GPT-2 small",
        ("model=gpt2_small", "dataset=generated_tokens", "optimizer=adamw", "engine.clip_norm=1.0"),
        "tokens",
        steps=30,
        goals={RESIDENT_COMPILED: 1.15},
    ),
)
BF16 = "engine.precision=bf16"
LIGHTNING_BF16 = "bf16-mixed"


def contest(workload: Workload, steps: int | None = None, compiled: bool = True) -> Contest:
    """Milliseconds per step with optexp's default logging; speed and share of the peak beside it.

    Lightning takes part where there is a goal about it. A note tells when graphs were wanted and could not be had.
    """
    steps = steps or workload.steps
    words = (*workload.words, *STEPS_ONLY, BF16, f"engine.max_steps={total_steps(steps)}")
    eager, fast = Source(words), Source([*words, "engine.compile=true"])
    scale = _Scale(eager, workload.counted)
    notes: list[str] = []

    def cost(run: Callable[[Clock], None]) -> Cost:
        seconds, memory = timed(run, steps)
        return scale.cost(seconds / steps, memory)

    def engine(name: str, source: Source, clock: Clock) -> None:
        driven = drive(source, clock)
        if driven.asked_for_graphs and driven.eager is not None:
            notes.append(f"gpu: {workload.name}: the steps of '{name}' were not CUDA graphs: {driven.eager}")

    runs: dict[str, Callable[[Clock], None]] = {}
    if compiled:
        runs["optexp, compiled"] = partial(engine, "optexp, compiled", fast)
    runs["optexp"] = partial(engine, "optexp", eager)
    runs[RESIDENT] = partial(run_bare, ResidentLoop, eager)
    if compiled:
        runs[RESIDENT_COMPILED] = partial(run_bare, partial(ResidentLoop, compiled=True), eager)
    if lightning_loop.NAME in workload.goals:
        if lightning_loop.is_installed():
            runs[lightning_loop.NAME] = partial(run_lightning, eager, LIGHTNING_BF16)
        else:
            notes.append(lightning_loop.MISSING)
    return Contest(
        f"gpu: {workload.name}, bf16",
        "ms/step",
        [Contestant(name, partial(cost, run)) for name, run in runs.items()],
        goals=workload.goals,
        check=partial(largest_difference, workload),
        repeats=REPEATS,
        notes=notes,
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

    def cost(self, seconds_per_step: float, memory: Mapping[str, float]) -> Cost:
        also = {f"{self.counted}/s": self.number / seconds_per_step}
        if self.peak is not None and self.flops:
            also["MFU %"] = 100 * self.flops / seconds_per_step / self.peak
        return Cost(1000 * seconds_per_step, {**also, **memory})


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


def largest_difference(workload: Workload) -> float:
    """Return the largest relative difference between optexp's losses and those of its peers over the first steps.

    Raises AssertionError when it is above TOLERANCE.
    """
    source = Source([*workload.words, *STEPS_ONLY, BF16, "engine.log_every=1", f"engine.max_steps={CHECKED}"])
    training = source.training()
    ours = run_engine(training).losses
    loop = ResidentLoop(source.problem())
    rows = rows_of(training, CHECKED)
    theirs: dict[str, Sequence[Any]] = {
        RESIDENT: loop.train(loop.batches(ids.to(loop.inputs.device) for ids in rows), 0, CHECKED)
    }
    if lightning_loop.NAME in workload.goals and lightning_loop.is_installed():
        theirs[lightning_loop.NAME] = fit_lightning(source.problem(), LIGHTNING_BF16, CHECKED, rows)
    return max(compared(f"{workload.name}: {name}", ours, losses, TOLERANCE) for name, losses in theirs.items())
