"""One GPU, small models in fp32: starting the kernels of a step takes longer than running them.

One run as CUDA graphs, as optexp takes them by default, and many runs in one program, against the eager loop of
benchmarks/bare.py, which keeps its data on the device and never waits for it. fp32 is that of torch by default:
cuDNN's convolutions may round to tf32, everybody's. On a CPU, for tests, nothing is a graph.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from benchmarks.bare import Loop, Problem
from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.gpu_runs import STEPS_ONLY, Clock, drive, require_graphs, run_bare, timed, total_steps
from benchmarks.optexp_loop import Source, rows_of
from benchmarks.training import compared
from optexp.engine.runtime import choose_device

REPEATS = 5
MODELS: Mapping[str, Sequence[str]] = {
    "MLP, AdamW, clip 1.0": ("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0"),
    "ResNet-8, SGD": ("model=resnet", "optimizer=sgd"),
    "Transformer": ("model=transformer", "dataset=pydocs", "optimizer=adamw"),
}
STEPS, QUICK_STEPS = 1000, 100
CHECKED = 30  # steps whose losses must agree: observed and other steps are both graphs by then
TOLERANCE = 1e-3  # relative; in fp32, with cuDNN's tf32 switched off
BARE: Mapping[str, Callable[[Problem], Loop]] = {"bare": Loop, "bare, tuned": partial(Loop, tuned=True)}
GRAPHS: Mapping[str, Sequence[str]] = {"optexp": (), "optexp, no graph": ("engine.cuda_graph=false",)}
TOGETHER, LOOPS = 64, 8  # runs in one program; bare loops that are timed for them


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file."""
    steps = size.steps or (QUICK_STEPS if size.quick else STEPS)
    return [*(model_contest(name, words, steps) for name, words in MODELS.items()), together_contest(steps)]


def model_contest(name: str, words: Sequence[str], steps: int) -> Contest:
    """Milliseconds per step with optexp's default logging. A step of optexp is a graph, or the contest fails."""

    def cost(run: Callable[[Clock], None]) -> Cost:
        seconds, memory = timed(run, steps)
        return Cost(1000 * seconds / steps, {"steps/s": steps / seconds, **memory})

    runs = _runs(words, steps, members=1, loops=1)
    return Contest(
        f"gpu: {name}, fp32",
        "ms/step",
        [Contestant(each, partial(cost, run)) for each, run in runs.items()],
        goals={"bare": 5.0},
        check=partial(largest_difference, name, words),
        repeats=REPEATS,
    )


def together_contest(steps: int, members: int = TOGETHER, loops: int = LOOPS) -> Contest:
    """Seconds that `members` runs of an MLP take for `steps` steps: as one program, and one after another.

    Of the latter `loops` are timed, and their time is multiplied. Nobody's start and warm-up count.
    """
    model, words = next(iter(MODELS.items()))

    def cost(run: Callable[[Clock], None], factor: float) -> Cost:
        seconds, memory = timed(run, steps)
        return Cost(factor * seconds, {"steps/s of all": members * steps / seconds / factor, **memory})

    contestants = []
    goals: dict[str, float] = {}
    for name, run in _runs(words, steps, members, loops).items():
        if name in BARE:
            title = f"{name}, {loops} of {members} one after another, × {members / loops:g}"
            contestants.append(Contestant(title, partial(cost, run, members / loops)))
            goals |= {title: 20.0} if name == "bare" else {}
        else:
            contestants.append(Contestant(f"{name}, {members} in one program", partial(cost, run, 1.0)))
    name = f"{members} runs of {steps} steps, {model}"
    return Contest(
        f"gpu: {name}, fp32",
        "s",
        contestants,
        goals=goals,
        check=partial(largest_difference, name, words, members),
        repeats=REPEATS,
    )


def _runs(words: Sequence[str], steps: int, members: int, loops: int) -> dict[str, Callable[[Clock], None]]:
    """Return what the contestants run: programs of `members` runs, and bare loops, each `loops` times."""
    words = [*words, *STEPS_ONLY, f"engine.max_steps={total_steps(steps)}"]

    def engine(name: str, source: Source, clock: Clock) -> None:
        driven = drive(source, clock, members)
        if not GRAPHS[name]:
            require_graphs(choose_device("auto"), name, driven.eager)

    runs: dict[str, Callable[[Clock], None]] = {
        name: partial(engine, name, Source([*words, *graph])) for name, graph in GRAPHS.items()
    }
    bare = Source(words)
    return runs | {name: partial(run_bare, make, bare, loops=loops) for name, make in BARE.items()}


def largest_difference(name: str, words: Sequence[str], members: int = 1) -> float:
    """Return the largest relative difference between the losses of optexp, with and without graphs, and bare loops.

    Of a program of several members the first one is compared. The learning rate falls to zero within these steps: a
    graph that kept the one of its capture would be noticed. Raises AssertionError when it is above TOLERANCE.
    """
    words = [*words, *STEPS_ONLY, f"engine.max_steps={CHECKED}"]
    bare = Source(words)
    differences = []
    device = choose_device("auto")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        rows = [ids.to(device) for ids in rows_of(bare.training(), CHECKED)]
        losses = {}
        for each, make in BARE.items():
            loop = make(bare.problem())
            losses[each] = [loss.item() for loss in loop.train(loop.batches(rows), 0, CHECKED)]
        for ours, graph in GRAPHS.items():
            driven = drive(Source([*words, *graph]), Clock(CHECKED - 1, CHECKED), members)
            if not graph:
                require_graphs(device, ours, driven.eager)
            spans = list(itertools.pairwise([0, *driven.logged]))
            for each, theirs in losses.items():
                means = [statistics.fmean(theirs[start:stop]) for start, stop in spans]
                pair = f"{name}: '{each}' and '{ours}'"
                differences.append(compared(pair, driven.losses, means, TOLERANCE))
    return max(differences)
