"""Several runs as one program: the stack of their models, of their optimizers, and all they differ in as lists."""

from __future__ import annotations

import copy
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from optexp.assemble import Training
from optexp.engine.fused import FEWEST, FusedRuns
from optexp.engine.objective import StackedObjective
from optexp.engine.program import Program
from optexp.engine.runtime import prepare
from optexp.errors import Unstackable
from optexp.nn.stacked import stack
from optexp.nn.vectorized import Vectorized
from optexp.optimizers.stacked import settings_of, stacked_rule

SIZES = (8, 16, 32, 64, 128, 256)
"""The numbers of members that `group_size` tries."""
WARM_UP, TIMED = 2, 5  # steps
SMALL_GAIN = 0.9
"""Trained together, a member must take at most this part of the time that it takes alone."""
SMALL_LOSS = 1.1
"""A larger program may be slower by this factor: it saves on everything that is done once for all members."""


def unfusable(training: Training) -> str | None:
    """Return why a run can be no member of a program, as far as one can tell without trying, or None."""
    if stacked_rule(type(training.optimizer)) is None:
        return f"{type(training.optimizer).__name__} has no update rule for many members at once"
    if training.precision.scaler.is_enabled():
        return "engine.precision=fp16 scales the loss of each run by itself"
    return None


def fuse(trainings: Sequence[Training]) -> FusedRuns:
    """Return the program that trains all of them at once, from their initial weights.

    They differ in numbers and seeds only (see `optexp.assemble.sibling`). The models of optexp become stacks of
    layers, others are vectorized as a whole. Raises Unstackable when an optimizer or a model has no such form.
    """
    first = trainings[0]
    rule, reason = stacked_rule(type(first.optimizer)), unfusable(first)
    if rule is None or reason is not None:
        raise Unstackable(reason)
    filled = [*trainings, *[trainings[-1]] * (FEWEST - len(trainings))]
    models = [training.model for training in filled]
    try:
        model = stack(models)
    except Unstackable:
        model = Vectorized(models)
    names = {parameter: name for name, parameter in first.model.named_parameters()}
    groups = [[names[parameter] for parameter in group["params"]] for group in first.optimizer.param_groups]
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return FusedRuns(
        model,
        rule(parameters, groups, [settings_of(training.optimizer) for training in filled]),
        [training.optimizer for training in trainings],
        StackedObjective(first.dataset.objective, [training.engine.label_smoothing for training in filled]),
        [training.batches for training in trainings],
        first.precision,
        seeds=[training.seed for training in filled],
        clip_norms=[training.engine.clip_norm for training in trainings],
        accumulate=first.engine.accumulate,
        compiled=first.engine.compile,
        captured=first.captured,
    )


def group_size(sample: Sequence[Training], members: int) -> tuple[int, str]:
    """Measure how many of `members` runs, of which `sample` is a few, one program should train.

    Returns (number, ""), or (0, reason) when training together is not faster than one by one. Numbers double until a
    member's share of a step grows again or memory would run short. Raises Unstackable when the model cannot be fused.
    """
    alone = _seconds(_alone(sample[0]), sample[0], 1)
    shares: dict[int, float] = {}
    for size in sorted({*(size for size in SIZES if size < members), min(members, SIZES[-1])}):
        before = _memory_in_use(sample[0].device)
        try:
            program = fuse([sample[index % len(sample)] for index in range(size)])
            shares[size] = _seconds(program, sample[0], size) / size
        except torch.OutOfMemoryError:
            if not shares:
                return 0, f"memory is too short for {size} at once"
            break
        except RuntimeError as error:
            if shares:  # the smaller ones could be trained
                break
            raise Unstackable(f"its model cannot be vectorized: {str(error).strip().splitlines()[0]}") from error
        grown = _memory_in_use(sample[0].device) - before
        if shares[size] > SMALL_LOSS * min(shares.values()) or 2 * grown > _memory_left(sample[0].device) / 2:
            break
    least = min(shares.values())
    if least > SMALL_GAIN * alone:
        return 0, f"together a step would take {1000 * least:.2g} ms of each, one by one {1000 * alone:.2g} ms"
    return max(size for size, share in shares.items() if share <= SMALL_LOSS * least), ""


def _alone(training: Training) -> Program:
    """Return a single run that shares no weights with `training`."""
    parameters = training.model.parameters()
    own = {id(value): nn.Parameter(value.detach().clone(), value.requires_grad) for value in parameters}
    model, optimizer = copy.deepcopy((training.model, training.optimizer), own)
    for name, value in vars(training.optimizer).items():  # torch's copy has none of the attributes of a subclass
        vars(optimizer).setdefault(name, value)
    return replace(training, model=model, optimizer=optimizer).program


def _seconds(program: Program, training: Training, members: int) -> float:
    """Return the time of a step: the shortest of a few, as everything that disturbs a step makes it longer."""
    prepare(training.device, training.engine.threads, training.flops_per_step)
    # Alone on its thread, a step's own time is what counts: a busy machine makes the clock on the wall useless.
    alone = training.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    wait: Callable[[], Any] = torch.accelerator.synchronize if training.device.type != "cpu" else lambda: None
    seconds = []
    for step in range(WARM_UP + TIMED):
        start = clock()
        program.step(step, [training.base_lr] * members)
        wait()
        seconds.append(clock() - start)
    return min(seconds[WARM_UP:])


def _memory_in_use(device: torch.device) -> int:
    """Return the most memory used so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _memory_left(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
