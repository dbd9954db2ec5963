"""The verbs: what reads or continues run directories, one per file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

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
    """Read the run of a training. Raises BadInput for another task's."""
    run = read_run(path)
    task = run.info.get("task", "train")
    if task != "train":
        raise BadInput(f"{path}: is a task={task}; it is done again by its command: {run.info['command']}")
    return run


def repeatable_run(path: Path) -> Run:
    """Read a run that can be gone on with or repeated from its configuration. Raises BadInput for any other."""
    run = training_run(path)
    run.check_repeatable()
    return run


def add_directory(parser: argparse.ArgumentParser, of: str) -> None:
    """Let a verb take one directory, `of` what, and if it runs a user's code be told so: `trust=[mypackage]`."""
    parser.add_argument("dir", type=Path, metavar="DIR", help=f"the directory of {of}")
    parser.add_argument(
        "trust",
        nargs="*",
        action=_Packages,
        default=[],
        metavar="trust=[PACKAGE]",
        help="your own packages to import",
    )


class _Packages(argparse.Action):
    """Words behind the directory name packages; any other is a second directory, as a glob of the shell gives it."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, words: Any, *_: Any) -> None:
        values = [word.removeprefix("trust=") for word in words if word.startswith("trust=")]
        if len(values) < len(words):
            given = [str(namespace.dir), *(word for word in words if not word.startswith("trust="))]
            parser.error(
                f"{parser.prog.removeprefix('optexp ')} takes one directory; got {len(given)}: {' '.join(given)}"
            )
        namespace.trust = [name.strip() for value in values for name in value.strip("[]").split(",") if name.strip()]
