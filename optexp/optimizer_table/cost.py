"""What an optimizer costs: bytes of state, peak memory of a step, and time of a step next to that of plain SGD.

Memory is counted where it is allocated: on CUDA by the caching allocator, on a CPU by the allocation events of torch's
profiler, which sees every tensor (and not what libraries such as oneDNN take from the system for themselves). Times are
taken in turns in one process, because a machine is never quite idle: each repeat times every optimizer for about as
long, begins with another one, and forms its ratios within itself.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optexp.assemble import Training, assemble
from optexp.config.check import engine_settings
from optexp.config.compose import Composed
from optexp.engine.single import SingleRun
from optexp.engine.state import optimizer_state

MEMORY_STEPS = 12
"""Steps that the peak is taken over: Sophia looks at the curvature at every tenth."""

BLOCK_SECONDS, LONGEST_BLOCK = 0.05, 50
"""A repeat times each optimizer for about so long, or so many steps."""


@dataclass(frozen=True)
class Memory:
    """Bytes. `peak` is the most that is allocated during steps beyond weights and gradients, state included."""

    state: int
    peak: int
    parameters: int
    grows: bool  # the state was still growing at the last step

    @property
    def state_per_parameter(self) -> float:
        return self.state / self.parameters

    @property
    def peak_per_parameter(self) -> float:
        return self.peak / self.parameters


@dataclass(frozen=True)
class StepTime:
    """The median time of a step in seconds, and the median and quartiles of its ratio to the reference's."""

    seconds: float
    ratio: float
    low: float
    high: float


def state_bytes(training: Training) -> int:
    """Return the bytes of all tensors of an optimizer's state as a checkpoint holds it, counters included."""
    return _size(state_tensors(training))


def state_tensors(training: Training) -> list[Tensor]:
    """Return all tensors of an optimizer's state as a checkpoint holds it."""
    return list(_tensors(optimizer_state(training.model, training.optimizer), {}).values())


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _tensors(value: Any, found: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return the different tensors in lists and mappings, by their identity."""
    if isinstance(value, Tensor):
        found[id(value)] = value
    elif isinstance(value, Mapping):
        for entry in value.values():
            _tensors(entry, found)
    elif isinstance(value, list | tuple):
        for entry in value:
            _tensors(entry, found)
    return found


def training_of(composed: Composed, **engine: Any) -> Training:
    """Assemble a checked configuration, with changes to its engine."""
    config = {**composed.config, "engine": {**composed.config["engine"], **engine}}
    return assemble(config, engine_settings(config["engine"]), composed.choices)


def measure_memory(composed: Composed, lr: float) -> Memory:
    """Measure the memory of a run's first steps at a learning rate, without CUDA graphs."""
    training = training_of(composed, cuda_graph=False)
    training.batches.at(lambda: 0)  # the data come first, so that they do not count
    parameters = [parameter for parameter in training.model.parameters() if parameter.requires_grad]
    before = state_tensors(training)  # Adagrad's is as old as itself; held, because what is freed must be known
    meter = _CudaMeter(training.device) if training.device.type == "cuda" else _ProfilerMeter()
    with meter:
        program = training.program  # the vectors that some optimizers work on belong to their cost
        sizes = []
        for step in range(MEMORY_STEPS):
            program.step(step, [lr])
            sizes.append(state_bytes(training))
    numbers = sum(parameter.numel() for parameter in parameters)
    return Memory(sizes[-1], max(_size(before) + meter.peak - _size(parameters), 0), numbers, sizes[-1] > sizes[-2])


class _CudaMeter:
    """The most that is allocated on a device inside of the `with` block, beyond what was before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak = 0

    def __enter__(self) -> None:
        gc.collect()
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self._before = torch.cuda.memory_allocated(self.device)

    def __exit__(self, *_: object) -> None:
        torch.cuda.synchronize(self.device)
        self.peak = torch.cuda.max_memory_allocated(self.device) - self._before


class _ProfilerMeter:
    """The most that is allocated on the CPU inside of the `with` block, by the profiler's allocation events."""

    def __init__(self) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it reports its own start and stop on the screen
        self.peak = 0
        self._profiler = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
        )

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()  # what others have left must not be freed in here
        self._profiler.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._profiler.__exit__(kind, error, trace)
        gc.enable()
        assert self._profiler.profiler is not None
        results = self._profiler.profiler.kineto_results
        assert results is not None
        events = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]  # type: ignore[attr-defined]
        allocated = 0
        for _, size in sorted(events, key=lambda event: event[0]):
            allocated += size
            self.peak = max(self.peak, allocated)


def measure_times(
    trainings: Mapping[str, Training], rates: Mapping[str, float], reference: str, repeats: int
) -> dict[str, StepTime | None]:
    """Time a whole step (forward, backward, update) of each training, in turns, at its constant learning rate.

    None for one whose loss is no longer finite: its updates are not made, so its time would be another's.
    """
    runners = {name: _Runner(training.program, rates[name]) for name, training in trainings.items()}
    for runner in runners.values():
        runner.take(3)  # compiles, captures, makes the state
    names = list(runners)
    steps = {name: max(1, min(LONGEST_BLOCK, round(BLOCK_SECONDS / runners[name].take(3)))) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for repeat in range(repeats):
            turn = repeat % len(names)
            for name in names[turn:] + names[:turn]:
                times[name].append(runners[name].take(steps[name]))
    finally:
        gc.enable()
    return {
        name: None if runners[name].program.divergences else _step_time(times[name], times[reference]) for name in names
    }


def _step_time(own: Sequence[float], reference: Sequence[float]) -> StepTime:
    ratios = [one / other for one, other in zip(own, reference, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return StepTime(statistics.median(own), middle, low, high)


@dataclass
class _Runner:
    """A program on its way."""

    program: SingleRun
    lr: float
    steps: int = 0
    _synchronize: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        on_cuda = self.program.device.type == "cuda"
        self._synchronize = torch.cuda.synchronize if on_cuda else lambda: None

    def take(self, steps: int) -> float:
        """Take so many steps; return the seconds of one."""
        self._synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            self.program.step(self.steps, [self.lr])
            self.steps += 1
        self._synchronize()
        seconds = (time.perf_counter() - start) / steps
        self.program.read().rows()  # forgets the losses, and sees whether all of them were finite
        return seconds
