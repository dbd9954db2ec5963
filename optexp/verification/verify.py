"""A verification: the original and what its diagnosis prescribes, trained one after the other until something helps.

The runs are the members of a sweep in a folder of its own, `<output_dir>/verifications/<date>/<time>-<run>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from optexp.diagnosis.command import repaired_command
from optexp.diagnosis.findings import Diagnosis
from optexp.errors import BadInput, Exit
from optexp.override_words import key_of
from optexp.records.console import relative, say
from optexp.records.numbers import duration
from optexp.records.reading import Run
from optexp.records.run_directory import VERIFICATIONS, claim
from optexp.sweeps.members import check_members, train_members
from optexp.sweeps.record import MemberRecord, SweepRecord
from optexp.verification.arms import ORIGINAL, Arms, Prescription, prescriptions, together
from optexp.verification.budget import Budget, budget_of
from optexp.verification.ends import BY_CAUSE, LOSS, End, end_of
from optexp.verification.judgement import Judgement, judge


@dataclass(frozen=True)
class Trial:
    """A prescription that was tried: its runs and the verdict on them."""

    prescription: Prescription
    command: str | None
    ends: list[End]
    judgement: Judgement


@dataclass
class Verification:
    """What has come out so far. `exit_status` is that of the command: 0 also when nothing helped, which is a result."""

    budget: Budget
    seeds: list[int]
    folder: Path | None = None  # until something is trained
    original: list[End] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    exit_status: int = int(Exit.DONE)

    @property
    def helped(self) -> Trial | None:
        """The trial that helped: the last one, as nothing is tried after it."""
        last = self.trials[-1] if self.trials else None
        return last if last is not None and last.judgement.verdict == "helped" else None

    @property
    def nothing_to_repair(self) -> bool:
        """Whether the original is trained on every seed, as it may be when it was cut short, or by another seed."""
        return bool(self.original) and all(end.outcome == "trained" for end in self.original)

    @property
    def can_be_compared(self) -> bool:
        """Whether the original has come to something on two seeds at least."""
        return sum(end.loss is not None for end in self.original) > 1


def verify(
    run: Run,
    diagnosis: Diagnosis,
    seeds: int = 3,
    steps: int | None = None,
    trust: Sequence[str] = (),
    command: Sequence[str] = (),
) -> Verification | None:
    """Train the prescriptions of a run's diagnosis, likeliest first, against the original until one helps.

    All on the same `seeds`, the run's own and the next ones. When none helps alone, the first two are tried together.
    `steps` is the length of each run (see `budget_of`), `trust` the user's own packages, `command` what is recorded.
    Returns None when nothing is prescribed. Raises BadInput, before anything is created, when the run cannot be
    trained again.
    """
    run.check_repeatable()
    waiting = prescriptions(diagnosis)
    if not waiting:
        return None
    own = int(run.config["seed"])
    trial = _Trials(run, Arms(run, range(own, own + seeds), budget_of(run, steps), trust), waiting, command)
    for prescription in waiting:
        if trial.ends_with(prescription):
            return trial.found
    union = together(waiting)
    if union is not None:
        trial.ends_with(union)
    return trial.found


class _Trials:
    """Tries one prescription after the other."""

    def __init__(self, run: Run, arms: Arms, waiting: Sequence[Prescription], command: Sequence[str]) -> None:
        self.arms = arms
        self.keys = list(dict.fromkeys(key_of(word) for each in waiting for word in each.words))
        self.record = SweepRecord(list(command), [*self.keys, "seed"], [])
        self._waiting: list[MemberRecord] = []  # members of the original, which train with the first repair
        try:
            self._waiting = self._members(ORIGINAL)
            check_members(arms.composer, SweepRecord([], [], self._waiting))
        except BadInput as error:
            raise BadInput(f"{run.path}: cannot be trained again: {error}") from None
        self.run = run
        self.found = Verification(arms.budget, arms.seeds)

    def _begin(self) -> Path:
        """Make the folder of the verification, and say how long its runs are."""
        folder = _claimed(self.run)
        self.record.create(folder)
        budget, seeds = self.found.budget, ", ".join(map(str, self.found.seeds))
        time = "" if budget.seconds is None else f", {duration(budget.seconds)} each at the run's pace"
        say(f"verification: original and repair on seeds {seeds}, {budget.steps:,} steps each: {budget.why}{time}")
        say(f"  in {relative(folder)}")
        return folder

    def ends_with(self, prescription: Prescription) -> bool:
        """Try a prescription; return whether it was the last one to be tried."""
        arms, found = self.arms, self.found
        command = repaired_command(arms.history, prescription.words)
        try:
            members = self._members(prescription)
            check_members(arms.composer, SweepRecord([], [], members))
        except BadInput as error:
            refused = Judgement("did not help", f"it cannot be trained: {error}", LOSS)
            found.trials.append(Trial(prescription, command, [], refused))
            return False
        folder = found.folder = found.folder or self._begin()
        say(f"trying {prescription.name}: {' '.join(prescription.words)}")
        if not self._trained(folder, [*self._waiting, *members]):
            return True
        if self._waiting:
            found.original = [end_of(folder, member) for member in self._waiting]
            self._waiting = []
        ends = [end_of(folder, member) for member in members]
        quantity = BY_CAUSE.get(prescription.causes[0], LOSS)
        found.trials.append(Trial(prescription, command, ends, judge(found.original, ends, quantity)))
        return found.helped is not None or found.nothing_to_repair or not found.can_be_compared

    def _members(self, prescription: Prescription) -> list[MemberRecord]:
        return self.arms.members(prescription, len(self.record.members) + len(self._waiting), self.keys)

    def _trained(self, folder: Path, members: Sequence[MemberRecord]) -> bool:
        """Train members; returns whether they came to their ends, and not to that of the command."""
        self.record.members = [*self.record.members, *members]
        status = train_members(self.arms.composer, self.record, folder, members)
        self.found.exit_status = max(self.found.exit_status, status)
        return status <= 128


def _claimed(run: Run) -> Path:
    """Create the folder of the verification: below the run's output_dir, or `outputs` here where that is not ours."""
    now = datetime.now()
    stem = f"{now:%H%M%S}-{re.sub(r'^[0-9]+-', '', run.path.resolve().name)}"
    place = Path(VERIFICATIONS) / f"{now:%Y-%m-%d}"
    recorded = Path(str(run.config.get("output_dir") or "outputs"))
    try:
        return claim(recorded / place, stem)
    except BadInput:
        if recorded == Path("outputs"):
            raise
        return claim(Path("outputs") / place, stem)
