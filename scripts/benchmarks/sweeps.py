"""Seconds of whole sweeps from the command line, start-up included, and the memory of all their processes."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.bare import Loop, Problem
from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.processes import run_python
from benchmarks.programs.problems import CLIP_NORM, problem
from benchmarks.programs.vmap_sweep import Together, shuffled
from optexp.records.metrics_file import parse_row

REPEATS = 5
JOBS = 2  # processes of the joblib launcher
EARLY = 20  # up to this step, losses of the launchers must agree
TOLERANCE = 1e-3  # relative; what rounding has become after EARLY steps
CHECKED = 10  # steps that torch.func's members must take like a bare loop

OPTEXP = "optexp"
LAUNCHERS: Mapping[str, tuple[str, ...]] = {
    OPTEXP: (),  # the default launcher
    "optexp, basic": ("hydra/launcher=basic",),
    "optexp, joblib 2": ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={JOBS}"),
}
HYDRA = "Hydra and a bare loop"
VMAP = {"torch.func, training only": 1, f"the same, {JOBS} threads": JOBS}  # and the threads it gets


@dataclass(frozen=True)
class Sweep:
    """A grid of learning rates × weight decays × seeds; goals as in Contest."""

    name: str
    model: str
    words: tuple[str, ...]
    batch_size: int
    steps: int
    lrs: tuple[str, ...]
    weight_decays: tuple[str, ...]
    seeds: int
    goals: Mapping[str, float]
    peers: tuple[str, ...] = field(default=(HYDRA,))

    @property
    def members(self) -> int:
        return len(self.lrs) * len(self.weight_decays) * self.seeds

    def axes(self, lr: str, weight_decay: str) -> list[str]:
        """Return the swept words, `lr` and `weight_decay` being the keys."""
        seeds = ",".join(map(str, range(self.seeds)))
        return [f"{lr}={','.join(self.lrs)}", f"{weight_decay}={','.join(self.weight_decays)}", f"seed={seeds}"]


_FEW = {"lrs": ("1e-3", "2e-3", "3e-3", "5e-3"), "weight_decays": ("0.01", "0.1"), "seeds": 2}
SWEEPS = (
    Sweep(
        "MLP, AdamW, clip 1.0",
        "mlp",
        ("model=mlp", "optimizer=adamw", f"engine.clip_norm={CLIP_NORM}"),
        batch_size=32,
        steps=440,
        lrs=("1e-3", "2e-3", "3e-3", "5e-3"),
        weight_decays=("0", "0.01", "0.03", "0.1"),
        seeds=4,
        goals={"optexp, basic": 6.0, "optexp, joblib 2": 3.5},
        peers=(HYDRA, *VMAP),
    ),
    Sweep(
        "ResNet-8, SGD",
        "resnet",
        ("model=resnet", "optimizer=sgd"),
        batch_size=32,
        steps=150,
        lrs=("0.01", "0.02", "0.05", "0.1"),
        weight_decays=("1e-4", "5e-4"),
        seeds=2,
        goals={"optexp, basic": 3.0, "optexp, joblib 2": 1.6},
        peers=(HYDRA, *VMAP),
    ),
    Sweep(
        "Transformer, batch 16",
        "transformer",
        ("model=transformer", "dataset=pydocs", "optimizer=adamw"),
        batch_size=16,
        steps=50,
        goals={"optexp, basic": 1.2},
        **_FEW,  # type: ignore[arg-type]
    ),
    Sweep(
        "Transformer, batch 2",
        "transformer",
        ("model=transformer", "dataset=pydocs", "optimizer=adamw"),
        batch_size=2,
        steps=150,
        goals={"optexp, basic": 3.0},
        **_FEW,  # type: ignore[arg-type]
    ),
)


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file; a quick look takes 4 members of 20 steps."""
    return [sweep_contest(_sized(sweep, size)) for sweep in SWEEPS]


def _sized(sweep: Sweep, size: Size) -> Sweep:
    if size.quick:
        sweep = replace(sweep, steps=EARLY, lrs=sweep.lrs[:2], weight_decays=sweep.weight_decays[:1], seeds=2)
    return replace(sweep, steps=size.steps or sweep.steps)


def sweep_contest(sweep: Sweep) -> Contest:
    """Seconds from the start of the command to its end. Equal losses of the launchers are verified afterwards."""
    seen: dict[str, Losses] = {}
    runs: dict[str, Callable[[], Cost]] = {}
    notes = []
    for name, words in LAUNCHERS.items():
        if "joblib" in name and find_spec("hydra_plugins.hydra_joblib_launcher") is None:
            notes.append("the joblib launcher is left out: it is not installed (pip install -e '.[bench]')")
        else:
            runs[name] = partial(_launch, sweep, name, words, seen)
    peers = {HYDRA: _hydra_arguments(sweep), **{name: _vmap_arguments(sweep, VMAP[name]) for name in VMAP}}
    runs |= {name: partial(_run_peer, peers[name]) for name in sweep.peers}
    return Contest(
        f"sweep: {sweep.name}, {sweep.members} runs of {sweep.steps} steps",
        "s",
        [Contestant(name, run) for name, run in runs.items()],
        goals=sweep.goals,
        check=partial(vmap_difference, sweep) if set(VMAP) & set(sweep.peers) else None,
        verify=partial(launcher_differences, sweep.name, seen),
        repeats=REPEATS,
        notes=notes,
    )


Losses = dict[int, dict[int, dict[str, float]]]
"""member number: step: the losses of that row of metrics.jsonl"""


def _launch(sweep: Sweep, name: str, launcher: Sequence[str], seen: dict[str, Losses]) -> Cost:
    words = [*sweep.words, f"dataset.batch_size={sweep.batch_size}", f"engine.max_steps={sweep.steps}"]
    axes = sweep.axes("optimizer.lr", "optimizer.weight_decay")
    with tempfile.TemporaryDirectory() as folder:
        ended = run_python(["-m", "optexp", "-m", *words, *launcher, *axes, "output_dir=outputs"], Path(folder))
        seen[name] = _read_losses(Path(folder, "outputs"), sweep.members)
    return ended.cost


def _read_losses(outputs: Path, members: int) -> Losses:
    """Read every member's losses; RuntimeError when a member has left none, because then less work was measured."""
    losses: Losses = {}
    for file in outputs.glob("sweeps/*/*/*/metrics.jsonl"):
        rows = [row for line in file.read_text().splitlines() if (row := parse_row(line)) is not None]
        number = int(file.parent.name.split("-")[0])
        losses[number] = {int(row["step"]): {tag: row[tag] for tag in LOSS_TAGS if tag in row} for row in rows}
    if sorted(losses) != list(range(members)) or not all(losses.values()):
        raise RuntimeError(f"the sweep has left the metrics of {len(losses)} members, not of {members}")
    return losses


LOSS_TAGS = ("train/loss", "val/loss")


def launcher_differences(name: str, seen: Mapping[str, Losses]) -> dict[str, float]:
    """Return the largest relative differences of losses between the launchers: up to step EARLY, and at the end.

    Raises AssertionError when the first is above TOLERANCE or a launcher has logged other rows. At the end nothing is
    asked for: a training amplifies rounding, the more the higher its learning rate.
    """
    ours = seen[OPTEXP]
    early, last = [0.0], [0.0]
    for launcher, theirs in seen.items():
        for member, rows in ours.items():
            if rows.keys() != theirs[member].keys():
                raise AssertionError(f"{name}: member {member} of '{launcher}' has other rows than that of '{OPTEXP}'")
            for step, row in rows.items():
                differences = [_relative(row[tag], theirs[member][step][tag]) for tag in row]
                (early if step <= EARLY else []).extend(differences)
                (last if step == max(rows) else []).extend(differences)
    if not max(early) <= TOLERANCE:
        raise AssertionError(f"{name}: the launchers' losses up to step {EARLY} differ by {max(early):.1e} (relative)")
    return {f"launchers up to step {EARLY}": max(early), "launchers at the end": max(last)}


def _relative(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other), 1e-12)


def _run_peer(arguments: Sequence[str]) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        return run_python(arguments, Path(folder)).cost


def _hydra_arguments(sweep: Sweep) -> list[str]:
    fixed = [f"model={sweep.model}", f"batch_size={sweep.batch_size}", f"steps={sweep.steps}"]
    return ["-m", "benchmarks.programs.hydra_sweep", "-m", *fixed, *sweep.axes("lr", "weight_decay")]


def _vmap_arguments(sweep: Sweep, threads: int) -> list[str]:
    fixed = ["--model", sweep.model, "--batch-size", str(sweep.batch_size), "--steps", str(sweep.steps)]
    fixed += ["--threads", str(threads)]
    return ["-m", "benchmarks.programs.vmap_sweep", *fixed, *(f"--{axis}" for axis in sweep.axes("lr", "weight-decay"))]


def vmap_difference(sweep: Sweep) -> float:
    """Return the largest relative difference between losses of torch.func's members and of a bare loop for each.

    The bare loop is compared with optexp's engine by the contests in training.py. Raises AssertionError when the
    difference is above TOLERANCE.
    """
    grid = itertools.product(sweep.lrs[-1:], sweep.weight_decays[-1:], range(2))
    problems = [
        problem(sweep.model, float(lr), float(decay), seed, sweep.batch_size, sweep.steps) for lr, decay, seed in grid
    ]
    return together_difference(problems)


def together_difference(problems: Sequence[Problem]) -> float:
    """Return the difference that `vmap_difference` is about."""
    rows = list(itertools.islice(shuffled(problems[0], range(len(problems))), CHECKED))
    together = Together(problems).train(rows, CHECKED)
    largest = 0.0
    for member, each in enumerate(problems):
        loop = Loop(each, read_loss=True)
        alone = loop.train(loop.batches(ids[member] for ids in rows), 0, CHECKED)
        pairs = zip(alone, (loss[member].item() for loss in together), strict=True)
        largest = max(largest, *(_relative(own, theirs) for own, theirs in pairs))
    if not largest <= TOLERANCE:
        raise AssertionError(f"members trained with torch.func differ from bare loops by {largest:.1e} (relative)")
    return largest
