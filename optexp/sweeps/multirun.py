"""A sweep from the command line: compose and check every member, run them through Hydra, summarize what came out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from optexp.config.compose import Composed, Composer, quoted
from optexp.config.launch import claimed_directory, hydra_command_line, launch_sweep
from optexp.errors import BadInput, Exit
from optexp.records.console import relative, say
from optexp.records.reading import flat
from optexp.sweeps.ending import ended_by_signals, status_of
from optexp.sweeps.hydra_words import FUSED_LAUNCHER, is_foreign, separated, why_hydra, words_of_params
from optexp.sweeps.member import run_member
from optexp.sweeps.members import composed_member, conclude, fused_launcher
from optexp.sweeps.plan import Entry
from optexp.sweeps.record import MemberRecord, SweepRecord, member_directory
from optexp.sweeps.summary import summarize
from optexp.tasks import prepare


def run_sweep(
    composer: Composer, words: Sequence[str], command: Sequence[str], argv: Sequence[str], dry_run: bool
) -> int:
    """Run the sweep that the override words describe; `command` and `argv` are the same request for us and for Hydra.

    Every member is composed and checked before anything is created. Returns the exit status: 0 also when members
    diverged (that is data), MEMBERS_FAILED when some failed, 128 + signal when interrupted.
    """
    words, params = separated(composer, words)
    base = composer.compose(composer.fixed(words))
    foreign = is_foreign(base)
    if not foreign and any(word.startswith("hydra.sweep.subdir=") for word in words):
        raise BadInput("hydra.sweep.subdir: members are named by what is swept; hydra.sweep.dir can be set")
    # A sweeper of somebody else's decides as it goes; what it asks for is checked member by member.
    from_params = words_of_params(base, params)
    members, swept = ([], []) if foreign else composer.members([*from_params, *words])
    composed = [composed_member(composer, member) for member in members]
    record = SweepRecord(list(command), swept, _records(members, composed, swept))
    fused, by_hydra = None, why_hydra(base)
    if by_hydra is None:
        entries = [Entry(config, member) for config, member in zip(composed, record.members, strict=True)]
        fused = fused_launcher(base, entries, composer.config_dir)
    else:
        _prepare_one_of_each_kind(composed or [base])
    plan = fused.plan() if fused else f"by Hydra: {by_hydra}"
    if dry_run:
        for member in members:
            print(f"ok: {shlex.join(['optexp', *member])}")
        print(f"{len(members)} members, nothing trained; {plan}")
        return Exit.DONE
    for group in set(swept) & set(base.choices):  # the name of the sweep must not promise one choice of several
        base.hydra.runtime.choices[group] = None
    directory = claimed_directory(base, "hydra.sweep.dir")
    record.create(directory.path)
    number = "members unknown so far" if foreign else f"{len(members)} member{'s' * (len(members) > 1)}"
    say(f"sweep of {number} in {relative(directory.path)}")
    say(f"  {plan}")
    status = int(Exit.DONE)
    try:
        with ended_by_signals():
            if fused is not None:
                status = fused.launch(directory.path, record)
            elif foreign:
                hydra_command_line([*argv, directory.override, *_instead_of_fused(base)], run_member)
            else:
                shared = [*composer.fixed(words), directory.override, *_instead_of_fused(base)]
                launch_sweep(composer, shared, _jobs(record), run_member)
    except (SystemExit, KeyboardInterrupt) as stop:
        status = status_of(stop)
    except Exception:
        status = int(Exit.UNEXPECTED)
        raise
    finally:
        status = conclude(directory.path, record, status)
        summarize(directory.path, record)
    return status


def _instead_of_fused(base: Composed) -> list[str]:
    """Return the word that chooses Hydra's basic launcher where ours is only the default."""
    return ["hydra/launcher=basic"] if base.hydra.launcher._target_ == FUSED_LAUNCHER else []


def _jobs(record: SweepRecord) -> list[list[str]]:
    return [[*member.overrides, f"hydra.sweep.subdir={quoted(member.directory)}"] for member in record.members]


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
