"""Hand a checked request to Hydra, which makes directories, sets up logging, calls callbacks and launches jobs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from optexp.config.compose import Composed, quoted
from optexp.errors import BadInput, Exit
from optexp.help import shipped_folder
from optexp.records.run_directory import RUN_FILE, claim


@dataclass(frozen=True)
class Directory:
    """A directory that is ours alone, and the override that makes Hydra use it."""

    path: Path
    override: str


def claimed_directory(composed: Composed, key: str) -> Directory:
    """Create the directory that `hydra.run.dir` or `hydra.sweep.dir` asks for; raises BadInput when it cannot be.

    A directory the user names is taken as it is, unless it holds a run; ours get a number when the name is taken.
    """
    wanted = Path(str(OmegaConf.select(composed.hydra, key.removeprefix("hydra."))))
    if any(word.lstrip("+").startswith(f"{key}=") for word in composed.overrides):
        if (wanted / RUN_FILE).exists() or (wanted / "sweep.json").exists():
            raise BadInput(f"{key}={wanted}: already holds results; name another directory")
        try:
            wanted.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{key}={wanted}: cannot be created ({error.strerror})") from None
        path = wanted
    else:
        path = claim(wanted.parent, wanted.name)
    return Directory(path, f"{key}={quoted(str(path.resolve()))}")


def run_hydra(argv: Sequence[str], job: Callable[[], int] | None = None) -> int:
    """Run Hydra's own command line with `argv`; for a single run, `job` is what it runs. Returns the exit status.

    What the job raises is raised here, past Hydra, which would print a traceback of its own.
    """
    raised: list[BaseException] = []
    status: list[int] = [Exit.DONE]

    def task(config: Any) -> None:
        try:
            if job is not None:
                status[0] = job()
        except Exception as error:  # noqa: BLE001 - raised again below
            raised.append(error)

    _main(task, argv)
    if raised:
        raise raised[0]
    return status[0]


def run_hydra_sweep(argv: Sequence[str], member: Callable[[Any], float]) -> None:
    """Run Hydra's multirun with `argv`; `member` must be a module's function, for launchers that start processes."""
    _main(member, argv)


def _main(task: Callable[[Any], Any], argv: Sequence[str]) -> None:
    GlobalHydra.instance().clear()
    before = sys.argv
    sys.argv = ["optexp", *argv]
    try:
        hydra.main(config_path=str(shipped_folder()), config_name="config", version_base="1.3")(task)()
    finally:
        sys.argv = before
