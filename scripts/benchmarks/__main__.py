"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import optexp
from benchmarks import gpu, monitor, overhead, scaling, startup, sweeps, training
from benchmarks.contest import Contest, Outcome, Size, hold, remarks, table

FAMILIES = {
    "step": "one training step of optexp, of bare loops and of Lightning",
    "whole run": "a default run with its evaluations and checkpoints, of optexp and of bare loops",
    "sweep": "whole sweeps from the command line: fused, one by one, in two processes, plain Hydra, torch.func",
    "start-up": "help, errors, the way to the first step, and what a further member of a sweep costs",
    "overhead": "records and checkpoints against none",
    "monitor": "a plain loop that optexp.Monitor watches against the same loop alone",
    "scaling": "with the members of a fused group, the width of the model, the size of the data",
    "gpu": "images and tokens per second against loops in the style of airbench and nanoGPT",
}
QUICK_REPEATS = 3


def contests(size: Size) -> list[Contest]:
    """Return all contests, in the order of FAMILIES; a name begins with its family."""
    return [
        contest
        for family in (training, sweeps, startup, overhead, monitor, scaling, gpu)
        for contest in family.contests(size)
    ]


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def _tens(text: str) -> int:
    """The clock is read where optexp logs."""
    number = _positive(text)
    if number % training.LOG_EVERY:
        raise argparse.ArgumentTypeError(f"{number} is not a multiple of {training.LOG_EVERY}, the logging interval")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure optexp against its peers, side by side. A ratio is the cost of a contestant divided by "
        "that of the first of its contest: above 1.00 the first one is better.",
        epilog="families of contests:\n" + "\n".join(f"  {name:9} {what}" for name, what in FAMILIES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="only contests with TEXT in their name")
    parser.add_argument("--list", action="store_true", help="show the contests with their contestants and goals")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="runs of each contestant (default 5 to 25)")
    parser.add_argument("--steps", type=_tens, metavar="N", help="steps of each run, instead of the contest's own")
    parser.add_argument(
        "--threads",
        type=_positive,
        default=1,
        metavar="N",
        help="threads of torch in this process (default 1: the least noise); sweeps and start-up are processes that "
        "decide for themselves",
    )
    parser.add_argument("--quick", action="store_true", help="a first look: 3 repeats of small editions, 1 of sweeps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every single measurement to FILE")
    return parser


def _environment() -> dict[str, Any]:
    versions = {}
    for package in ("lightning", "hydra-core"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
        "optexp": optexp.__version__,
    }


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _listing(chosen: Sequence[Contest]) -> str:
    lines = []
    for contest in chosen:
        limit = "" if contest.limit is None else f"  at most {contest.limit:g} {contest.unit}"
        lines.append(f"{contest.name}{limit}")
        for contestant in contest.contestants:
            goal = contest.goals.get(contestant.name)
            lines.append(f"    {contestant.name}" + ("" if goal is None else f"  at least {goal:.2f} times the first"))
    return "\n".join(lines)


def _notes(outcomes: Sequence[Outcome], flags: argparse.Namespace) -> list[str]:
    no_gpu = [] if torch.cuda.is_available() or flags.only else [gpu.NO_GPU]
    return [*remarks(outcomes), *no_gpu]


def _write(file: Path, environment: dict[str, Any], notes: list[str], outcomes: list[Outcome], bad: list[str]) -> None:
    measured = {"environment": environment, "notes": notes, "contests": [outcome.as_json() for outcome in outcomes]}
    file.write_text(json.dumps({**measured, "problems": bad}, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Hold the contests, print one table and, if asked, write one JSON file; progress goes to stderr.

    A contest that goes wrong is told of and does not stop the others. Returns 1 when there was one: its contestants do
    not compute the same, or one of them failed.
    """
    flags = _parser().parse_args(argv)
    torch.set_num_threads(flags.threads)
    chosen = contests(Size(flags.steps, flags.quick))
    chosen = [contest for contest in chosen if flags.only.lower() in contest.name.lower()]
    if not chosen:
        print(f"scripts/bench: no contest has '{flags.only}' in its name; see --list", file=sys.stderr)
        return 2
    if flags.list:
        print(_listing(chosen))
        return 0
    environment = _environment()
    outcomes: list[Outcome] = []
    problems: list[str] = []
    for number, contest in enumerate(chosen, start=1):
        if not sys.stderr.isatty():
            print(f"{number} of {len(chosen)}: {contest.name}", file=sys.stderr, flush=True)
        quick = 1 if contest.name.startswith("sweep") else QUICK_REPEATS
        try:
            outcomes.append(hold(contest, flags.repeats or (quick if flags.quick else contest.repeats), _progress))
        except (AssertionError, RuntimeError) as error:
            problems.append(f"{contest.name}: not measured: {error}")
        if flags.json:  # again after each: a benchmark of half an hour may be interrupted
            _write(flags.json, environment, _notes(outcomes, flags), outcomes, problems)
    _progress("")
    print(table(outcomes))
    facts = ", ".join(f"{name} {value}" for name, value in environment.items())
    print("\n" + "\n".join([*_notes(outcomes, flags), facts]))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
