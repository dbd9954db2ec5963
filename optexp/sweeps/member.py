"""One member of a sweep, as Hydra launchers call it: in this process, in another, or on another machine."""

from __future__ import annotations

import contextlib
import logging
import shutil
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from optexp.config.compose import Composed, plain
from optexp.ending import Ended
from optexp.errors import BadInput, Exit, StorageError
from optexp.records.provenance import config_hash
from optexp.records.reading import read_run
from optexp.records.run_directory import RUN_FILE
from optexp.sweeps.record import SWEEP_FILE, SweepRecord, note_end, record_failure
from optexp.tasks import check_composed, prepare

if TYPE_CHECKING:
    from optexp.run import Result

log = logging.getLogger(__name__)


def run_member(cfg: DictConfig) -> float:
    """Run the task of a composed member in its output directory; return the value a sweeper minimizes.

    That is the best val/loss, infinite when the member diverged or failed: both are results and not exceptions, so
    that no launcher or sweeper gives up the other members. Only an interruption ends the sweep. A member whose process
    was lost goes on from its last checkpoint when it is called again.
    """
    hydra = HydraConfig.get()
    path = Path(hydra.runtime.output_dir)
    overrides = [str(word) for word in hydra.overrides.task]
    composed = Composed(plain(cfg), dict(hydra.runtime.choices), overrides, OmegaConf.structured(hydra))
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    command = ["optexp", *(word for folder in folders for word in ("--config-dir", folder)), *overrides]
    title = _title(path, int(hydra.job.num), overrides)
    sweep = Path(hydra.sweep.dir)
    _end_without(sweep, path)
    try:
        result = _run(composed, path, command, title)
    except Ended:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's may do anything; the other members must go on
        _end_without(sweep, path)
        reason = str(error)
        if not isinstance(error, BadInput | StorageError):
            reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            log.error("the member could not be started\n%s", traceback.format_exc())
        if path.is_dir() and not (path / RUN_FILE).exists():
            record_failure(path, composed.config, command, overrides, reason)
        note_end(path, "failed", reason)
        print(f"{title}  failed  {reason}", flush=True)
        return float("inf")
    note_end(path, result.status, result.reason)
    if result.status == "interrupted":
        raise SystemExit(result.exit_status)
    return result.objective


def _run(composed: Composed, path: Path, command: list[str], title: str) -> Result:
    if composed.config["task"]["name"] == "train" and (path / RUN_FILE).exists():
        begun = read_run(path)
        if begun.status == "interrupted" and begun.info.get("config_hash") == config_hash(composed.config):
            from optexp.assemble import assemble  # torch is needed from here on
            from optexp.run import execute

            training = assemble(composed.config, check_composed(composed), composed.choices, resuming=True)
            return execute(training, path, command, composed.overrides, title, resume=True)
    return prepare(composed).run(path, command, composed.overrides, member=title)


def _end_without(sweep: Path, path: Path) -> None:
    """End a sweep whose directory was moved or deleted, of which Hydra has just made a new one for the next member."""
    if not (sweep / SWEEP_FILE).exists():
        with contextlib.suppress(OSError):  # what is not empty is somebody else's
            if not (path / RUN_FILE).exists():
                shutil.rmtree(path)
            sweep.rmdir()
        raise Ended(Exit.STORAGE)


def _title(path: Path, number: int, overrides: list[str]) -> str:
    try:
        total = len(SweepRecord.read(path.parent).members)
    except OSError:
        total = 0
    if total == 0:  # a sweeper that is not ours decides as it goes how many members there will be
        return f"{path.name} {' '.join(overrides)}"
    return f"{path.name} ({number + 1} of {total})"
