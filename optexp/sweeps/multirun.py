"""A sweep from the command line: compose and check every member, run them through Hydra, summarize what came out."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from optexp.config.compose import Composed, Composer, quoted
from optexp.config.launch import claimed_directory, hydra_command_line, launch_sweep
from optexp.errors import BadInput, Exit
from optexp.records.console import relative, say
from optexp.records.reading import flat
from optexp.sweeps.member import run_member
from optexp.sweeps.plan import Entry
from optexp.sweeps.record import MemberRecord, SweepRecord, member_directory
from optexp.sweeps.summary import collect, summarize
from optexp.tasks import check_composed, prepare

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
FUSED_LAUNCHER = "optexp.sweeps.fused.FusedLauncher"


def run_sweep(
    composer: Composer, words: Sequence[str], command: Sequence[str], argv: Sequence[str], dry_run: bool
) -> int:
    """Run the sweep that the override words describe; `command` and `argv` are the same request for us and for Hydra.

    Every member is composed and checked before anything is created. Returns the exit status: 0 also when members
    diverged (that is data), MEMBERS_FAILED when some failed, 128 + signal when interrupted.
    """
    base = composer.compose(composer.fixed(words))
    foreign = base.hydra.sweeper._target_ != BASIC_SWEEPER
    if not foreign and any(word.startswith("hydra.sweep.subdir=") for word in words):
        raise BadInput("hydra.sweep.subdir: members are named by what is swept; hydra.sweep.dir can be set")
    # A sweeper of somebody else's decides as it goes; what it asks for is checked member by member.
    members, swept = ([], []) if foreign else composer.members([*_words_from_files(base), *words])
    composed = [_composed(composer, member) for member in members]
    record = SweepRecord(list(command), swept, _records(members, composed, swept))
    fused, why_hydra = None, _why_hydra(base, foreign)
    if why_hydra is None:
        entries = [Entry(config, member) for config, member in zip(composed, record.members, strict=True)]
        fused = _fused_launcher(base, entries, composer.config_dir)
    else:
        _prepare_one_of_each_kind(composed or [base])
    plan = fused.plan() if fused else f"one after the other by Hydra: {why_hydra}"
    if dry_run:
        for member in members:
            print(f"ok: {shlex.join(['optexp', *member])}")
        print(f"{len(members)} members, nothing trained; {plan}")
        return Exit.DONE
    for group in set(swept) & set(base.choices):  # the name of the sweep must not promise one choice of several
        base.hydra.runtime.choices[group] = None
    directory = claimed_directory(base, "hydra.sweep.dir")
    record.write(directory.path)
    number = "members unknown so far" if foreign else f"{len(members)} member{'s' * (len(members) > 1)}"
    say(f"sweep of {number} in {relative(directory.path)}")
    say(f"  {plan}")
    status = int(Exit.DONE)
    try:
        with _ended_by_signals():
            if fused is not None:
                status = fused.launch(directory.path, record, base.hydra)
            elif foreign:
                hydra_command_line([*argv, directory.override, *_instead_of_fused(base)], run_member)
            else:
                shared = [*composer.fixed(words), directory.override, *_instead_of_fused(base)]
                launch_sweep(composer, shared, _jobs(record), run_member)
    except (SystemExit, KeyboardInterrupt) as stop:
        status = int(stop.code or 0) if isinstance(stop, SystemExit) else int(Exit.SIGINT)
    except Exception:
        status = int(Exit.UNEXPECTED)
        raise
    finally:
        record = collect(directory.path, record)
        record.status = "interrupted" if status else "completed"
        record.write(directory.path)
        summarize(directory.path, record)
    if status == 0 and any(
        member.status not in ("completed", "early_stopped", "diverged") for member in record.members
    ):
        return Exit.MEMBERS_FAILED
    return status


def _why_hydra(base: Composed, foreign: bool) -> str | None:
    """Return why one of Hydra's launchers must run the members, or None when ours can.

    Raises BadInput when ours was asked for by name and cannot.
    """
    if base.hydra.launcher._target_ != FUSED_LAUNCHER:
        return f"hydra/launcher={base.choices['hydra/launcher']}"
    own = ("hydra.sweep.dir=", "hydra.launcher.")
    asked = [word.lstrip("+~") for word in base.overrides]
    aliens = [word for word in asked if word.startswith("hydra.") and not word.startswith(own)]
    reasons = ["hydra/sweeper is not Hydra's own"] if foreign else []
    reasons += aliens + (["hydra.callbacks"] if base.hydra.callbacks else [])
    if reasons and "hydra/launcher=fused" in asked:
        raise BadInput(f"hydra/launcher=fused: {reasons[0]} is for members that Hydra runs; add hydra/launcher=basic")
    return reasons[0] if reasons else None


def _instead_of_fused(base: Composed) -> list[str]:
    """Return the word that chooses Hydra's basic launcher where ours is only the default."""
    return ["hydra/launcher=basic"] if base.hydra.launcher._target_ == FUSED_LAUNCHER else []


def _fused_launcher(base: Composed, entries: list[Entry], config_dir: str | None) -> Any:
    """Build the launcher that trains members together; raises BadInput for whatever keeps a member from starting."""
    from optexp.sweeps.fused import FusedLauncher  # torch is needed from here on

    settings = {key: value for key, value in base.hydra.launcher.items() if key != "_target_"}
    return FusedLauncher(entries, ["optexp", *(["--config-dir", config_dir] if config_dir else [])], **settings)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the sweep, summary included, when they come while no member is training."""

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _jobs(record: SweepRecord) -> list[list[str]]:
    return [[*member.overrides, f"hydra.sweep.subdir={quoted(member.directory)}"] for member in record.members]


def _words_from_files(base: Composed) -> list[str]:
    params = base.hydra.sweeper.params or {}
    if "trust" in params:
        raise BadInput(f"hydra.sweeper.params.trust={params['trust']}: allowed on the command line only")
    return [f"{key}={value}" for key, value in params.items()]


def _composed(composer: Composer, words: Sequence[str]) -> Composed:
    composed = composer.compose(words)
    try:
        check_composed(composed)
    except BadInput as error:
        raise BadInput(f"{error} (member {shlex.join(words)})") from None
    return composed


def _prepare_one_of_each_kind(members: Sequence[Composed]) -> None:
    """Build data, model and optimizer of one member of each kind: what differs in numbers of the optimizer is one."""
    seen = set()
    for composed in members:
        config = composed.config
        optimizer = {key: 0 if type(value) in (int, float) else value for key, value in config["optimizer"].items()}
        parts = {key: config[key] for key in ("model", "dataset", "schedule", "engine", "task")}
        kind = json.dumps([parts, optimizer], sort_keys=True, default=str)
        if kind not in seen:
            seen.add(kind)
            prepare(composed)


def _records(
    members: Sequence[Sequence[str]], composed: Sequence[Composed], swept: Sequence[str]
) -> list[MemberRecord]:
    return [
        MemberRecord(number, list(words), member_directory(number, words, swept), _values(member, swept))
        for number, (words, member) in enumerate(zip(members, composed, strict=True))
    ]


def _values(member: Composed, swept: Sequence[str]) -> dict[str, Any]:
    """Return the values of the swept keys as configured; for a group, which choice was made."""
    settings = flat(member.config)
    return {key: member.choices.get(key, settings.get(key)) for key in swept}
