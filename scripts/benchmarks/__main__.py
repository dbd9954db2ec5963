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
from benchmarks import training
from benchmarks.contest import Contest, hold, table

import optexp


def contests(steps: int | None) -> list[Contest]:
    """Return all contests. A new one is a function that returns a Contest, and a line here."""
    return [training.step_contest(case, steps) for case in training.CASES] + [
        training.run_contest(case) for case in training.CASES
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="runs of each contestant (default 7)")
    parser.add_argument("--steps", type=int, metavar="N", help="timed steps (default: 400 for the MLP, 80 for ResNet)")
    parser.add_argument("--quick", action="store_true", help="3 repeats of 50 steps, no whole runs: a first look")
    parser.add_argument("--only", metavar="TEXT", default="", help="only contests with TEXT in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every single measurement there")
    return parser


def _machine() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "optexp": optexp.__version__,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Hold the contests and print one table; progress goes to stderr."""
    flags = _parser().parse_args(argv)

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    wanted = [contest for contest in contests(flags.steps) if flags.only.lower() in contest.name.lower()]
    outcomes = [hold(contest, flags.repeats, progress) for contest in wanted]
    progress("")
    print(table(outcomes))
    if flags.json:
        measured = {"environment": _machine(), "repeats": flags.repeats, "contests": [o.as_json() for o in outcomes]}
        flags.json.write_text(json.dumps(measured, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
