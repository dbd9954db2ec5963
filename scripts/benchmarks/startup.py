"""What happens before the first step: help, errors, imports, and composing the members of a sweep."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks import lightning_loop
from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.processes import run_python

ALLOWED = 0.5  # seconds that optexp may need on top of `import torch`, from its start to its first logged step
NOOP = ("-m", "benchmarks.programs.hydra_noop")


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file; a quick look composes 50 members instead of 200."""
    return [help_contest(), error_contest(), first_step_contest(), composing_contest(50 if size.quick else 200)]


def help_contest() -> Contest:
    """Seconds of `optexp --help`."""
    runs = {
        "optexp": partial(_seconds, ["-m", "optexp", "--help"]),
        "Hydra, empty app": partial(_seconds, [*NOOP, "--help"]),
    }
    return Contest("start-up: --help", "s", _contestants(runs), limit=0.10)


def error_contest() -> Contest:
    """Seconds until a mistake in an override is refused."""
    runs = {
        "optexp": partial(_seconds, ["-m", "optexp", "optimizer.lr=abc"], 2),
        "Hydra, empty app": partial(_seconds, [*NOOP, "no_such_key=1"], 1),
    }
    return Contest("start-up: an error in an override", "s", _contestants(runs), limit=0.35)


def first_step_contest() -> Contest:
    """Seconds from the start of the process to the first row of metrics.jsonl, for a run of one step."""
    allowed = f"import torch, + {ALLOWED} s"
    runs: dict[str, Callable[[], Cost]] = {"optexp": _optexp_first_step, allowed: _import_torch}
    goals, notes = {allowed: 1.0}, [lightning_loop.MISSING]
    if lightning_loop.is_installed():
        runs[lightning_loop.NAME] = _lightning_first_step
        goals, notes = {**goals, lightning_loop.NAME: 2.5}, []
    return Contest("start-up: to the first step", "s", _contestants(runs), goals=goals, repeats=5, notes=notes)


def composing_contest(members: int) -> Contest:
    """Milliseconds that each further member of a sweep costs before anything is trained."""
    own = partial(_per_member, ["-m", "optexp", "-m", "--dry-run"], "seed", members)
    hydra = partial(_per_member, [*NOOP, "-m"], "x", max(members // 5, 4))  # tenths of a second each: fewer do
    contestants = [Contestant("optexp, --dry-run", own), Contestant("Hydra, empty jobs", hydra)]
    goals = {"Hydra, empty jobs": 50.0}
    return Contest("start-up: a further member", "ms", contestants, goals=goals, limit=5.0, repeats=5)


def _contestants(runs: Mapping[str, Callable[[], Cost]]) -> list[Contestant]:
    return [Contestant(name, run) for name, run in runs.items()]


def _seconds(arguments: Sequence[str], status: int = 0) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        return Cost(run_python(arguments, Path(folder), status).seconds)


def _optexp_first_step() -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        words = ["model=mlp", "engine.max_steps=1", "output_dir=outputs"]
        ended = run_python(["-m", "optexp", *words], Path(folder))
        (file,) = Path(folder).glob("outputs/runs/*/*/metrics.jsonl")
        # The file has one row, so it was last changed when that was written.
        return Cost(file.stat().st_mtime - ended.started, ended.memory)


def _import_torch() -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        ended = run_python(["-c", "import torch"], Path(folder))
        return Cost(ended.seconds + ALLOWED, ended.memory)


def _lightning_first_step() -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ended")
        ended = run_python(["-m", "benchmarks.programs.lightning_start", str(file)], Path(folder))
        return Cost(float(file.read_text()) - ended.started, ended.memory)


def _per_member(command: Sequence[str], key: str, members: int) -> Cost:
    """Return what a sweep of `members` takes longer than one of 2, for each of the further ones (ms)."""
    many, few = (
        _seconds([*command, f"{key}=range({number})", "hydra.sweep.dir=sweep"]).value for number in (members, 2)
    )
    return Cost(1000 * (many - few) / (members - 2))
