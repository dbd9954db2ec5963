"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import optexp
from benchmarks import training
from benchmarks.contest import Contest, hold, table


def contests(steps: int | None, whole_runs: bool = True) -> list[Contest]:
    """Return all contests. A new one is a function that returns a Contest, and a line here."""
    chosen = [training.step_contest(case, steps) for case in training.CASES]
    if whole_runs:
        chosen += [training.run_contest(case) for case in training.CASES]
    return chosen


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
        description="Measure optexp against hand-written PyTorch loops that compute the same. Ratios above 1.00 are in "
        "optexp's favour; the contestant marked * is the one that the goal is about.",
        allow_abbrev=False,
    )
    parser.add_argument("--repeats", type=_positive, metavar="N", help="runs of each contestant (default 9)")
    parser.add_argument("--steps", type=_tens, metavar="N", help="timed steps per repeat (default: MLP 300, ResNet 80)")
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="threads of torch (default 1: the least noise)"
    )
    parser.add_argument("--quick", action="store_true", help="a first look: 3 repeats of 50 steps, no whole runs")
    parser.add_argument("--only", metavar="TEXT", default="", help="only contests with TEXT in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every single measurement to FILE")
    return parser


def _environment() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "optexp": optexp.__version__,
    }


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Hold the contests, print one table and, if asked, write one JSON file; progress goes to stderr."""
    flags = _parser().parse_args(argv)
    torch.set_num_threads(flags.threads)
    repeats = flags.repeats or (3 if flags.quick else 9)
    chosen = contests(flags.steps or (50 if flags.quick else None), whole_runs=not flags.quick)
    chosen = [contest for contest in chosen if flags.only.lower() in contest.name.lower()]
    outcomes = [hold(contest, repeats, _progress) for contest in chosen]
    _progress("")
    environment = _environment()
    print(table(outcomes))
    print(f"\n{repeats} repeats, " + ", ".join(f"{name} {value}" for name, value in environment.items()))
    if flags.json:
        measured = {"environment": environment, "repeats": repeats, "contests": [o.as_json() for o in outcomes]}
        flags.json.write_text(json.dumps(measured, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
