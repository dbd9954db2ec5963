"""The verbs: what reads or continues run directories, one per file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from optexp.errors import BadInput
from optexp.records.reading import Run, read_run


class Parser(argparse.ArgumentParser):
    """An argument parser for a verb: help as it is written, mistakes as BadInput in one line like everywhere else."""

    def __init__(self, verb: str, description: str, examples: str) -> None:
        """`examples` are complete command lines, one per line."""
        super().__init__(
            prog=f"optexp {verb}",
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise BadInput in place of printing the usage and exiting."""
        raise BadInput(f"{message}; see {self.prog} --help")


def check_output_file(option: str, file: Path) -> None:
    """Raise BadInput when no file can be written at the place that `option` names."""
    if file.is_dir():
        raise BadInput(f"{option} {file}: is a folder; name a file")
    if not file.parent.is_dir():
        raise BadInput(f"{option} {file}: there is no folder {file.parent}")


def training_run(path: Path) -> Run:
    """Read a run that can be gone on with or repeated from its configuration. Raises BadInput for another task's."""
    run = read_run(path)
    task = run.info.get("task", "train")
    if task != "train":
        raise BadInput(f"{path}: is a task={task}; it is done again by its command: {run.info['command']}")
    return run


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Let a verb that runs a user's code be told so, in the words of a new run: `trust=[mypackage]`."""
    parser.add_argument(
        "trust", nargs="?", type=_packages, default=[], metavar="trust=[PACKAGE]", help="your own packages to import"
    )


def _packages(word: str) -> list[str]:
    key, separator, value = word.partition("=")
    if key != "trust" or not separator:
        raise argparse.ArgumentTypeError(f"'{word}': allowed is trust=[package]")
    return [name.strip() for name in value.strip("[]").split(",") if name.strip()]
