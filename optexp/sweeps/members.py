"""Members of a sweep from their override words to their end: new ones, and those that an earlier session left over."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optexp.config.compose import Composed, Composer
from optexp.ending import ended_by_signals, status_of
from optexp.errors import BadInput, Exit
from optexp.records.console import relative
from optexp.records.run_directory import RUN_FILE
from optexp.sweeps.hydra_words import FUSED_LAUNCHER
from optexp.sweeps.plan import Entry
from optexp.sweeps.record import GOOD_ENDS, MemberRecord, SweepRecord
from optexp.sweeps.summary import collect, summarize
from optexp.tasks import check_composed

if TYPE_CHECKING:
    from optexp.sweeps.fused import FusedLauncher


def composed_member(composer: Composer, words: Sequence[str]) -> Composed:
    """Compose and check one member; raises BadInput that names its words."""
    composed = composer.compose(words)
    try:
        check_composed(composed)
    except BadInput as error:
        raise BadInput(f"{error} (member {shlex.join(words)})") from None
    return composed


def check_members(
    composer: Composer,
    record: SweepRecord,
    folder: Path | None = None,
    members: Sequence[MemberRecord] | None = None,
) -> FusedLauncher | None:
    """Return what trains the members that have no good end yet; None when all have one. `members`: these only.

    Every member is composed and checked first (BadInput). Members that began in `folder` train together with those that
    have come as far as they have.
    """
    entries = []
    for member in record.members if members is None else members:
        if member.status not in GOOD_ENDS:
            path = None if folder is None else folder / member.directory
            entries.append(Entry(composed_member(composer, member.overrides), member, begun_at=_begun_at(path)))
    return fused_launcher(entries[0].composed, entries, composer.config_dir) if entries else None


def train_members(
    composer: Composer, record: SweepRecord, folder: Path, members: Sequence[MemberRecord] | None = None
) -> int:
    """Train the members that have no good end yet, in their own directories; keeps sweep.json up to date.

    With `members`, these only of the record's. Returns DONE, MEMBERS_FAILED, or 128 + the number of the signal that
    ended it.
    """
    launcher = check_members(composer, record, folder, members)
    status = 0
    if launcher is not None:
        record.status = "running"
        record.write(folder)
        try:
            with ended_by_signals():
                status = launcher.launch(folder, record)
        except (SystemExit, KeyboardInterrupt) as stop:
            status = status_of(stop)
    return conclude(folder, record, status)


def conclude(folder: Path, record: SweepRecord, status: int) -> int:
    """Enter how the sweep has ended, as its members' directories tell it; returns the exit status."""
    ended = collect(folder, record)
    ended.status = {int(Exit.DONE): "completed", int(Exit.UNEXPECTED): "failed"}.get(status, "interrupted")
    ended.write(folder)
    record.members, record.status = ended.members, ended.status
    if status == 0 and any(member.status not in GOOD_ENDS for member in record.members):
        return int(Exit.MEMBERS_FAILED)
    return status or max((member.exit_status for member in record.members), default=0)


def resume_sweep(folder: Path, trust: Sequence[str]) -> int:
    """Train what is missing, failed or interrupted in a sweep's directory, and show the table of all."""
    record = collect(folder, SweepRecord.read(folder))
    running = [member.directory for member in record.members if member.status == "running"]
    if running:
        raise BadInput(f"{relative(folder)}: is still running ({running[0]})")
    left = [member for member in record.members if member.status not in GOOD_ENDS]
    if not left:
        print(f"nothing to resume: all {len(record.members)} members have come to their end")
        return int(Exit.DONE)
    words = record.command
    config_dir = words[words.index("--config-dir") + 1] if "--config-dir" in words else None
    if trust:
        for member in left:
            kept = [word for word in member.overrides if not word.startswith("trust=")]
            member.overrides = [*kept, f"trust=[{','.join(trust)}]"]
    status = train_members(Composer(config_dir, multirun=True), record, folder)
    summarize(folder, record)
    return status


def fused_launcher(base: Composed, entries: list[Entry], config_dir: str | None) -> FusedLauncher:
    """Build the launcher that trains members together; raises BadInput for whatever keeps a member from starting."""
    from optexp.sweeps.fused import FusedLauncher  # torch is needed from here on

    node = base.hydra.launcher
    chosen = {key: value for key, value in node.items() if key != "_target_"} if node._target_ == FUSED_LAUNCHER else {}
    prefix = ["optexp", *(["--config-dir", config_dir] if config_dir else [])]
    return FusedLauncher(entries, prefix, base.hydra, **chosen)


def _begun_at(path: Path | None) -> int | None:
    """Return the step of a run's last checkpoint, 0 where it has none; None when it has not begun."""
    if path is None or not (path / RUN_FILE).exists():
        return None
    try:
        return int(json.loads((path / "checkpoints" / "last.json").read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):  # the run itself says what is wrong with it
        return 0
