"""Hand a checked request to Hydra, which makes directories, sets up logging, calls callbacks and launches jobs."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from optexp.config.compose import Composed, Composer, quoted
from optexp.errors import BadInput, Exit
from optexp.help import shipped_folder
from optexp.records.run_directory import RUN_FILE, claim

T = TypeVar("T")


@dataclass(frozen=True)
class Directory:
    """A directory that is ours alone, and the override that makes Hydra use it."""

    path: Path
    override: str

    def remove_if_unused(self) -> None:
        """Remove the directory when nothing has begun in it: Hydra has failed before the run did."""
        with contextlib.suppress(FileNotFoundError):  # somebody else has removed it
            left = [path.name for path in self.path.iterdir()]
            if RUN_FILE not in left and all(name in (".hydra", "optexp.log") for name in left):
                shutil.rmtree(self.path)


def claimed_directory(composed: Composed, key: str) -> Directory:
    """Create the directory that `hydra.run.dir` or `hydra.sweep.dir` asks for; raises BadInput when it cannot be.

    A directory the user names is taken as it is, unless it holds a run; ours get a number when the name is taken.
    """
    text = str(OmegaConf.select(composed.hydra, key.removeprefix("hydra.")))
    wanted = Path(text)
    if any(word.lstrip("+").startswith(f"{key}=") for word in composed.overrides):
        if not text:
            raise BadInput(f"{key}=: allowed is the name of a folder")
        if (wanted / RUN_FILE).exists() or (wanted / "sweep.json").exists():
            raise BadInput(f"{key}={wanted}: already holds results; name another directory")
        try:
            wanted.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{key}={wanted}: cannot be created ({error.strerror})") from None
        path = wanted
    else:
        path = claim(wanted.parent, wanted.name)
    path = path.absolute()  # a job may change the current folder (hydra.job.chdir)
    return Directory(path, f"{key}={quoted(str(path))}")


def run_in_hydra(composer: Composer, words: Sequence[str], job: Callable[[], T]) -> T:
    """Run `job` as Hydra runs a job: in `hydra.run.dir`, with logging, callbacks and HydraConfig set up.

    What the job raises is raised here.
    """
    cfg = composer.for_hydra(words)
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name="config")
    context = HydraContext(config_loader=composer.loader, callbacks=callbacks)
    ended = run_job(
        task_function=lambda config: job(),
        config=cfg,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        hydra_context=context,
    )
    callbacks.on_run_end(config=cfg, config_name="config", job_return=ended)
    result: Any = ended._return_value  # `return_value` would print a line of Hydra's before it raises
    if ended.status is not JobStatus.COMPLETED:
        raise result
    return cast(T, result)


def launch_sweep(
    composer: Composer, words: Sequence[str], jobs: Sequence[Sequence[str]], member: Callable[[DictConfig], float]
) -> None:
    """Give all jobs (override words of each) to the chosen Hydra launcher, which calls `member` for each.

    `words` are the overrides that all jobs share; `member` is a module's function, because launchers may start
    processes. Hydra's own sweeper is not used: it would compose every job twice, at 50 ms each, before the first runs.
    """
    cfg = composer.with_hydra(words, RunMode.MULTIRUN)
    callbacks = Callbacks(cfg)
    callbacks.on_multirun_start(config=cfg, config_name="config")
    context = HydraContext(config_loader=composer.loader, callbacks=callbacks)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=member, config=cfg)
    launcher.launch([list(job) for job in jobs], initial_job_idx=0)
    callbacks.on_multirun_end(config=cfg, config_name="config")


def launch_alone(
    composer: Composer, words: Sequence[str], number: int, job: Sequence[str], member: Callable[[DictConfig], float]
) -> None:
    """Run the job of this number here, as Hydra's basic launcher does: the launcher of its sweep is lost.

    Hydra's settings in `words` hold for it as for the others, except for the launcher's own.
    """
    cfg = composer.with_hydra(words, RunMode.MULTIRUN)
    context = HydraContext(config_loader=composer.loader, callbacks=Callbacks(cfg))
    launcher = BasicLauncher()
    launcher.setup(hydra_context=context, task_function=member, config=cfg)
    launcher.launch([list(job)], initial_job_idx=number)


def show(argv: Sequence[str]) -> int:
    """Print what Hydra's own command line shows for `--cfg`, `--info`, `--hydra-help` and completion.

    It is printed in one piece, because Hydra answers a reader who leaves early (`| head`) with pages of tracebacks.
    """
    shown, status = io.StringIO(), int(Exit.DONE)
    with contextlib.redirect_stdout(shown):
        try:
            hydra_command_line(argv, lambda config: None)
        except SystemExit as stop:
            status = int(stop.code or 0)
    print(shown.getvalue(), end="")
    return status


def hydra_command_line(argv: Sequence[str], task: Callable[[Any], Any]) -> None:
    """Run Hydra's own command line, with a sweeper that is not ours."""
    GlobalHydra.instance().clear()
    before = sys.argv
    sys.argv = ["optexp", *argv]
    try:
        hydra.main(config_path=str(shipped_folder()), config_name="config", version_base="1.3")(task)()
    finally:
        sys.argv = before
