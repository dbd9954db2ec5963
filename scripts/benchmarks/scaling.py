"""How the cost of a step grows: with the members of a fused group, the width of the model and the size of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.optexp_loop import LOG_EVERY, NEVER, Source, run_engine

GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WIDTHS = (32, 64, 128, 256, 512, 1024)
SAMPLES = (1_000, 10_000, 100_000)
GROUP = 16  # members of the groups of different widths; the widest would take a quarter of a minute each time
STEPS = 60
REPEATS = 5
WORDS = (
    "model=mlp",
    "optimizer=adamw",
    "dataset.batch_size=32",
    f"engine.eval_every={NEVER}",
    "engine.checkpoint_every=null",
)


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file; a quick look takes the smallest and the third size of each."""
    steps = size.steps or STEPS
    groups, widths, samples = (sizes[:3:2] if size.quick else sizes for sizes in (GROUPS, WIDTHS, SAMPLES))
    members = {f"{number} member{'s' * (number > 1)}": partial(_step, (), steps, number) for number in groups}
    single = {f"{width} wide": partial(_step, _width(width), steps) for width in widths}
    fused = {f"{width} wide": partial(_step, _width(width), steps, GROUP) for width in widths if width < WIDTHS[-1]}
    data = {f"{number:,} samples": partial(_step, _samples(number), steps) for number in samples}
    return [
        _contest("scaling: members of a group, MLP", members),
        _contest("scaling: width of an MLP's two hidden layers, one run", single),
        _contest(f"scaling: width of an MLP's two hidden layers, {GROUP} members", fused),
        _contest("scaling: training samples, MLP, one run", data),
    ]


def _width(width: int) -> Sequence[str]:
    return [f"model.hidden=[{width},{width}]"]


def _samples(number: int) -> Sequence[str]:
    return ["dataset=generated_images", "dataset.shape=[1,8,8]", f"dataset.num_images={number}"]


def _contest(name: str, runs: Mapping[str, partial[Cost]]) -> Contest:
    contestants = [Contestant(size, run) for size, run in runs.items()]
    return Contest(name, "ms/step/member", contestants, repeats=REPEATS)


def _step(words: Sequence[str], steps: int, members: int = 1) -> Cost:
    """Return the milliseconds of a step, with its records, divided by the members that took it."""
    source = Source([*WORDS, *words, f"engine.max_steps={steps + 2 * LOG_EVERY}"])
    seconds = run_engine(*source.group(members)).seconds
    return Cost(1000 * (seconds[LOG_EVERY + steps] - seconds[LOG_EVERY]) / steps / members)
