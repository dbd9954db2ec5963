"""A sweep from the command line: compose and check every member, run them through Hydra, summarize what came out."""

from __future__ import annotations

import contextlib
import json
import multiprocessing.util
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optexp.config.compose import Composed, Composer, quoted
from optexp.config.launch import claimed_directory, hydra_command_line, launch_alone, launch_sweep
from optexp.ending import ended_by_signals, status_of
from optexp.errors import BadInput, Exit
from optexp.override_words import without_hydras
from optexp.records.console import relative, say
from optexp.records.reading import flat, read_run
from optexp.sweeps.children import Children, Died, can_fork
from optexp.sweeps.hydra_words import FUSED_LAUNCHER, is_foreign, separated, why_hydra, words_of_params
from optexp.sweeps.member import run_member
from optexp.sweeps.members import composed_member, conclude, fused_launcher
from optexp.sweeps.outcomes import Raised, one_line
from optexp.sweeps.plan import Entry
from optexp.sweeps.record import MemberRecord, SweepRecord, member_directory, note_end, record_failure
from optexp.sweeps.summary import collect, load_what_draws, summarize
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
        forks = _forks(composed or [base])
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
            else:
                more = [directory.override, *_instead_of_fused(base)]
                launcher = ByHydra(composer, [*composer.fixed(words), *more], composed, forks)
                status = launcher.launch(directory.path, record, [*argv, *more] if foreign else None)
    except (SystemExit, KeyboardInterrupt) as stop:
        status = status_of(stop)
    except Exception:
        status = int(Exit.UNEXPECTED)
        raise
    finally:
        status = conclude(directory.path, record, status)
        summarize(directory.path, record)
    return status


class ByHydra:
    """Runs members with one of Hydra's launchers, whose end, whatever ends it, costs one member at most.

    Hydra's part is done in a child process where forking is safe: a launcher may run members in its own process, and
    what ends a member, os._exit or a signal, then ends the launcher. The others go on one by one.
    """

    def __init__(self, composer: Composer, words: Sequence[str], composed: Sequence[Composed], forks: bool) -> None:
        """`words` are the override words that all members share, `composed` the members in their order."""
        self.composer = composer
        self.words = list(words)
        self.composed = list(composed)
        self.forks = forks
        self.children = Children(load_what_draws)

    def launch(self, folder: Path, record: SweepRecord, argv: Sequence[str] | None) -> int:
        """Run everything below `folder`; returns the exit status, without regard to members that failed.

        `argv` is the request for Hydra's own command line, when a sweeper of somebody else's decides about members.
        """
        self.folder, self.record = folder, record
        if argv is None:
            outcome = self._run(partial(launch_sweep, self.composer, self.words, _jobs(record), run_member))
        else:
            outcome = self._run(partial(hydra_command_line, argv, run_member))
        return outcome if isinstance(outcome, int) else self._go_on(outcome, alone=argv is None)

    def _run(self, launch: Callable[[], None]) -> int | Raised | Died:
        """Return the exit status of Hydra's part, or what has kept it from one."""
        if not self.forks:
            return _launched(launch)
        work = partial(_launched_in_a_child, launch)
        with self.children.passing_on_signals():
            outcomes = [outcome for _, outcome in self.children.run([work], at_most=1)]
        if self.children.received is not None:
            return 128 + self.children.received
        outcome: int | Raised | Died = outcomes[0]
        return outcome

    def _go_on(self, lost: Raised | Died, alone: bool) -> int:
        """Enter which member has failed with the launcher, and run those that have not begun."""
        members = self._members()
        left = [member for member in members if member.status in ("not started", "interrupted")]
        begun = [member for member in left if (self.folder / member.directory).is_dir()]
        goes_on_elsewhere = any(member.status == "running" for member in members)
        if goes_on_elsewhere or not (begun or len(left) < len(members)):  # or it has not even launched the first one
            return _unexpected(lost)
        if len(begun) == 1:
            self._fail(begun[0], lost)
            left.remove(begun[0])
        if not alone:
            say(f"the sweeper is lost with its member: {lost.reason}")
            return _unexpected(lost) if isinstance(lost, Raised) else int(Exit.MEMBERS_FAILED)
        if left:  # of several that had begun nobody knows which has ended the others: it will end itself again, alone
            say(f"{len(left)} members go on one by one: {lost.reason}")
        jobs = _jobs(self.record)
        for member in left:
            number = member.number
            launch = partial(launch_alone, self.composer, self.words, number, jobs[number], run_member)
            outcome = self._run(launch)
            if not isinstance(outcome, int):
                self._fail(member, outcome)
            elif outcome != 0:
                return outcome
        return 0

    def _members(self) -> list[MemberRecord]:
        """Return how the members stand, when those that were running here have had the time to end in order."""
        deadline = time.monotonic() + 10
        while True:
            members = collect(self.folder, self.record).members
            if time.monotonic() > deadline or all(member.status != "running" for member in members):
                return members
            time.sleep(0.2)

    def _fail(self, member: MemberRecord, lost: Raised | Died) -> None:
        """Record that a member has failed, unless it came to its own end before the launcher did. StorageError."""
        path, config_dir = self.folder / member.directory, self.composer.config_dir
        with contextlib.suppress(BadInput):  # it has no record yet
            if read_run(path).status != "interrupted":
                return
        words = without_hydras(member.overrides)
        config = self.composed[member.number].config if self.composed else {}  # else only one with a record is known
        command = ["optexp", *(["--config-dir", config_dir] if config_dir else []), *words]
        record_failure(path, config, command, words, lost.reason)
        note_end(path, "failed", lost.reason)
        if isinstance(lost, Raised):
            with (path / "optexp.log").open("a") as file:
                file.write(lost.traceback)
        number = f" ({member.number + 1} of {len(self.record.members)})" if self.composed else ""
        say(f"{member.directory}{number}  failed  {lost.reason}")


def _launched(launch: Callable[[], None]) -> int | Raised:
    """Do Hydra's part; returns its exit status, or what came out of it."""
    try:
        with ended_by_signals():
            launch()
    except (SystemExit, KeyboardInterrupt) as stop:
        return status_of(stop)
    except Exception as error:  # noqa: BLE001 - a launcher may be anybody's; the members go on
        return Raised(one_line(error), traceback.format_exc())
    return 0


def _launched_in_a_child(launch: Callable[[], None]) -> int | Raised:
    try:
        return _launched(launch)
    finally:  # as children of multiprocessing end: a launcher's pools give back what they hold of the system
        multiprocessing.util._run_finalizers()  # type: ignore[attr-defined]


def _unexpected(lost: Raised | Died) -> int:
    if isinstance(lost, Raised):
        print(lost.traceback, end="", file=sys.stderr)
    print(f"optexp: unexpected error: {lost.reason}", file=sys.stderr)
    return int(Exit.UNEXPECTED)


def _forks(composed: Sequence[Composed]) -> bool:
    """Return whether members can be run in forked processes, and keep this one from starting threads if so."""
    import torch

    from optexp.engine.runtime import choose_device

    names = {str(member.config["engine"]["device"]) for member in composed}
    if not can_fork() or any(choose_device(name).type != "cpu" for name in names):
        return False
    torch.set_num_threads(1)  # threads of a pool do not survive a fork
    return True


def _instead_of_fused(base: Composed) -> list[str]:
    """Return the word that chooses Hydra's basic launcher where ours is only the default."""
    return ["hydra/launcher=basic"] if base.hydra.launcher._target_ == FUSED_LAUNCHER else []


def _jobs(record: SweepRecord) -> list[list[str]]:
    """Return the override words of each member's job; Hydra adds its own settings, which all members share."""
    subdir = "hydra.sweep.subdir"
    return [[*without_hydras(member.overrides), f"{subdir}={quoted(member.directory)}"] for member in record.members]


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
