"""The launcher `fused`: members that differ in numbers and seeds only train in one program, the rest one by one.

Nothing that happens to a group costs a member: what a lost group leaves unfinished goes on from its last checkpoints,
in halves when memory was short and else one by one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from optexp.assemble import Training, assemble, sibling
from optexp.config.hydra_files import HydraFiles
from optexp.engine.runtime import choose_device, is_small, keep_freed_memory
from optexp.errors import BadInput, StorageError
from optexp.fuse import fuse, group_size, unfusable
from optexp.recording import Job
from optexp.records.console import say
from optexp.records.reading import read_run
from optexp.records.run_directory import RUN_FILE
from optexp.run import execute, execute_together
from optexp.sweeps.children import Children, Died, can_fork
from optexp.sweeps.outcomes import Apart, Gone, gone_or_not, one_line
from optexp.sweeps.plan import Entry, alike
from optexp.sweeps.record import GOOD_ENDS, SweepRecord, record_failure
from optexp.sweeps.summary import load_what_draws
from optexp.tasks import check_composed, prepare
from optexp.tasks.train import Train


@dataclass
class Group:
    """Members of one structure, and the training of the first, which the others are built from."""

    entries: list[Entry]
    first: Training


class FusedLauncher:
    """Trains the members of a sweep, each from its last checkpoint where it has begun.

    `prefix` begins the command line that is recorded with each; `hydra` is Hydra's node, which each leaves a copy of.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        prefix: Sequence[str],
        hydra: DictConfig,
        group_size: int | None = None,
        workers: int | None = None,
    ) -> None:
        """Plan, and refuse with BadInput what cannot run, before anything is created."""
        for key, value in (("group_size", group_size), ("workers", workers)):
            if value is not None and (type(value) is not int or value < 1):
                raise BadInput(f"hydra.launcher.{key}={value}: must be a whole number of at least 1, or null")
        self.prefix = list(prefix)
        self.hydra = hydra
        self.size = group_size
        self.workers = workers
        self.groups: list[Group] = []
        self.alone: list[Entry] = []
        self._reasons: dict[str, int] = {}  # why members are not fused, and how many
        self._programs = 0  # how many there have been so far
        torch.set_num_threads(1)  # threads of a pool do not survive a fork
        for alike_entries in alike(entries):
            self._plan(alike_entries)

    def _plan(self, entries: list[Entry]) -> None:
        task = _prepared(entries[0])
        reason = None if len(entries) > 1 else "no other of its kind"
        if not isinstance(task, Train):
            reason = f"task={entries[0].config['task']['name']}"
        elif reason is None:
            reason = unfusable(task.training) if self.size != 1 else "hydra.launcher.group_size=1"
            for entry in entries[1:]:
                _check(entry, task.training)
        for entry in entries:
            if isinstance(task, Train):
                entry.on_cpu = task.training.device.type == "cpu"
                entry.small = is_small(task.training.flops_per_step)
            else:
                entry.on_cpu = choose_device(entry.config["engine"]["device"]).type == "cpu"
        if isinstance(task, Train) and reason is None:
            self.groups.append(Group(entries, task.training))
        else:
            self._leave_alone(entries, reason or "")

    def _leave_alone(self, entries: Sequence[Entry], reason: str) -> None:
        self.alone.extend(entries)
        self._reasons[reason] = self._reasons.get(reason, 0) + len(entries)

    def plan(self) -> str:
        """Say in a line what is fused and why the rest is not."""
        parts = [f"{len(group.entries)} members fused" for group in self.groups]
        parts += [f"{number} one by one ({reason})" for reason, number in self._reasons.items()]
        return "; ".join(parts)

    def launch(self, folder: Path, record: SweepRecord) -> int:
        """Train everything below `folder`; returns 0, or 128 + the number of the signal that ended it.

        `record` is kept up to date on the disk.
        """
        self.folder, self.record, self.hydra_files = folder, record, HydraFiles(self.hydra, folder)
        self._programs = 1 + max(
            (member.program for member in record.members if member.program is not None), default=-1
        )
        self.children = Children(load_what_draws)
        with self.children.passing_on_signals():
            for group in self.groups:
                self._train_group(group)
            self._train_alone(self.alone)
        return 128 + self.children.received if self.children.received is not None else 0

    def _train_group(self, group: Group) -> None:
        """Train a group in programs of the most useful size, or leave its members alone when that is faster."""
        entries = group.entries
        size = self.size
        if size is None:
            outcome = next((found for _, found in self._run([partial(self._measure, group)], entries, 1)), None)
            if self.children.received is not None:
                return
            if not isinstance(outcome, int):
                reason = str(getattr(outcome, "reason", outcome))
                say(f"{len(entries)} members train one by one: {reason}")
                self._leave_alone(entries, reason)
                return
            size = outcome
        parts = _equal_parts(
            entries, max(-(-len(entries) // size), min(self._side_by_side(entries), len(entries) // 2))
        )
        sizes = " or ".join(map(str, sorted({len(part) for part in parts})))
        say(f"{len(entries)} members in {len(parts)} program{'s' * (len(parts) > 1)} of {sizes}")
        self._train_programs(group, parts)

    def _train_programs(self, group: Group, parts: Sequence[list[Entry]]) -> None:
        """Train each part in a program, and see to it that all members come to an end of their own."""
        halves, left_alone = [], []
        self._plan_programs(parts)
        works = [partial(self._train_program, group, part) for part in parts]
        for index, outcome in self._run(works, group.entries, self._side_by_side(group.entries)):
            outcome = self._without_gone(parts[index], outcome)
            self._note(parts[index])
            left = [entry for entry in parts[index] if entry.record.status not in GOOD_ENDS and not entry.gone]
            died = isinstance(outcome, Died)
            if not left or self._stopped(left):
                if isinstance(outcome, str):
                    say(outcome)
                continue
            reason = outcome.reason if died else outcome or str(left[0].record.reason)
            if len(left) > 3 and ((died and outcome.killed) or "memory" in reason):  # the system kills what is too big
                say(f"{len(left)} members go on in two programs: {reason}")
                halves += _equal_parts(left, 2)
            else:
                say(f"{len(left)} members go on one by one: {reason}")
                left_alone += left
        if halves:
            self._train_programs(group, halves)
        self._train_alone(left_alone)

    def _plan_programs(self, parts: Sequence[list[Entry]]) -> None:
        """Enter into sweep.json which members train together."""
        for part in parts:
            for entry in part:
                entry.record.program = self._programs
            self._programs += 1
        self.record.write(self.folder)

    def _side_by_side(self, entries: Sequence[Entry]) -> int:
        """Return how many processes to train in: one for each core, while steps are too small for several threads."""
        if not _forks(entries[0]):
            return 1
        return self.workers or (_cores() if entries[0].small else 1)

    def _run(
        self, works: Sequence[Callable[[], Any]], entries: Sequence[Entry], at_most: int
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) of every work as it ends: in children where possible, else in this process."""
        if _forks(entries[0]):
            yield from self.children.run(works, at_most)
            return
        for index, work in enumerate(works):
            if self.children.received is None:
                yield index, work()

    def _stopped(self, entries: Sequence[Entry]) -> bool:
        """Return whether a signal has ended the sweep: here, or in a training in this process, which took it."""
        if any(entry.record.status == "interrupted" and not _forks(entry) for entry in entries):
            self.children.received = self.children.received or signal.SIGINT
        return self.children.received is not None

    def _measure(self, group: Group) -> int | Apart:
        """Return how many members one program should train. Runs in a child process."""
        keep_freed_memory()
        entries = group.entries
        most = -(-len(entries) // min(self._side_by_side(entries), len(entries) // 2))
        try:
            size, reason = group_size([self._built(group, entry) for entry in entries[:2]], most)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's may do anything
            return Apart(one_line(error))
        return size or Apart(reason)

    def _train_program(self, group: Group, entries: Sequence[Entry]) -> str | Gone | None:
        """Train members in one program, from their last checkpoints if they have begun. Runs in a child process.

        Returns what has ended the program and is in the record of no member, or None.
        """
        keep_freed_memory()
        jobs: list[Job] = []
        try:
            resume = any(self._has_begun(entry) for entry in entries)
            jobs = [self._job(entry, self._built(group, entry)) for entry in entries]
            execute_together(jobs, fuse([job.training for job in jobs]), _named(entries), resume)
        except StorageError as error:
            return gone_or_not(error, [job.path for job in jobs])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's may do anything; the members go on
            return one_line(error)
        return None

    def _built(self, group: Group, entry: Entry) -> Training:
        if entry is group.entries[0]:
            return group.first
        composed = entry.composed
        return sibling(group.first, composed.config, check_composed(composed), composed.choices)

    def _job(self, entry: Entry, training: Training) -> Job:
        path = self.folder / entry.record.directory
        if not self._has_begun(entry):
            self.hydra_files.write(entry.record.directory, entry.record.number, entry.composed)
        return Job(training, path, self._command(entry), entry.words, self._title(entry))

    def _has_begun(self, entry: Entry) -> bool:
        return (self.folder / entry.record.directory / RUN_FILE).exists()

    def _title(self, entry: Entry) -> str:
        return f"{entry.record.directory} ({entry.record.number + 1} of {len(self.record.members)})"

    def _command(self, entry: Entry) -> list[str]:
        return [*self.prefix, *entry.words]

    def _train_alone(self, entries: Sequence[Entry]) -> None:
        """Train members one by one, each in a process of its own where that is possible, several at a time."""
        for entry in entries:
            entry.record.program = None
        small = [entry for entry in entries if entry.small]
        for part in (small, [entry for entry in entries if not entry.small]):  # a large one wants all cores
            works = [partial(self._train_single, entry) for entry in part]
            for index, outcome in self._run(works, part, self._side_by_side(part)) if part else ():
                self._settle(part[index], outcome)

    def _train_single(self, entry: Entry) -> str | Gone | None:
        """Train one member alone, from its last checkpoint if it has begun. Runs in the child process.

        Returns what has kept it from it and is not in its record, or None.
        """
        composed, path = entry.composed, self.folder / entry.record.directory
        try:
            if self._has_begun(entry):
                training = assemble(composed.config, check_composed(composed), composed.choices, resuming=True)
                execute(training, path, self._command(entry), entry.words, self._title(entry), resume=True)
                return None
            self.hydra_files.write(entry.record.directory, entry.record.number, composed)
            prepare(composed).run(path, self._command(entry), entry.words, member=self._title(entry))
        except StorageError as error:
            return gone_or_not(error, [path])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's may do anything; the others go on
            if not isinstance(error, BadInput):
                with contextlib.suppress(OSError), (path / "optexp.log").open("a") as file:
                    file.write(traceback.format_exc())  # where that fails, the reason is reported all the same
            return one_line(error)
        return None

    def _settle(self, entry: Entry, outcome: Any) -> None:
        """Enter how a member that was trained alone has ended."""
        died = isinstance(outcome, Died)
        reason = outcome.reason if died else self._without_gone([entry], outcome)
        self._note([entry])
        if reason is not None and not (died and self.children.received is not None):
            if entry.record.status not in GOOD_ENDS and not entry.gone:
                self._fail(entry, reason)
                self._note([entry])
            say(f"{self._title(entry)}  {entry.record.status.replace('_', ' ')}  {reason}")
        self._stopped([entry])

    def _without_gone(self, entries: Sequence[Entry], outcome: Any) -> Any:
        """Enter which members have lost their directories, for they make no new ones; return the rest of the answer."""
        if not isinstance(outcome, Gone):
            return outcome
        for entry in entries:
            if entry.record.directory in outcome.directories:
                entry.gone = True
                entry.record.status, entry.record.reason = "failed", outcome.reason
        return outcome.reason

    def _fail(self, entry: Entry, reason: str) -> None:
        path = self.folder / entry.record.directory
        record_failure(path, entry.config, self._command(entry), entry.words, reason)

    def _note(self, entries: Sequence[Entry]) -> None:
        """Enter into sweep.json how members stand, as their run directories tell it."""
        for entry in entries:
            if self._has_begun(entry):
                try:
                    run = read_run(self.folder / entry.record.directory)
                    entry.record.status, entry.record.reason = run.status, run.info.get("reason")
                except BadInput as error:  # cut short by a crash; the other members go on
                    entry.record.status, entry.record.reason = "failed", str(error)
        self.record.write(self.folder)


def _forks(entry: Entry) -> bool:
    return entry.on_cpu and can_fork()


def _cores() -> int:
    """Return how many CPU cores this process may use, which a cluster limits."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _named(entries: Sequence[Entry]) -> str:
    """Name members by their numbers: `members 0-31`, `members 0-3, 8-11`."""
    numbers = [entry.record.number for entry in entries]
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    if len(starts) > 3:
        return f"{len(numbers)} members of {numbers[0]}-{numbers[-1]}"
    parts = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    return f"members {', '.join(parts)}"


def _equal_parts(entries: Sequence[Entry], number: int) -> list[list[Entry]]:
    """Cut a list into `number` parts of almost equal length."""
    ends = [len(entries) * part // number for part in range(number + 1)]
    return [list(entries[start:end]) for start, end in pairwise(ends)]


def _prepared(entry: Entry) -> Any:
    try:
        return prepare(entry.composed)
    except BadInput as error:
        raise _of_member(error, entry) from None


def _check(entry: Entry, first: Training) -> None:
    composed = entry.composed
    try:
        sibling(first, composed.config, check_composed(composed), composed.choices, own_model=False)
    except BadInput as error:
        raise _of_member(error, entry) from None


def _of_member(error: BadInput, entry: Entry) -> BadInput:
    return BadInput(f"{error} (member {shlex.join(entry.words)})")
