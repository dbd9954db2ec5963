"""Conducting a study: tune every arm alike, train all arms on all seeds, measure, and answer by the rule of the file.

Both stages are ordinary sweeps below the study's directory, so whatever is interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from optexp.config.check import GROUPS_OF_A_TRAINING
from optexp.config.compose import Composer
from optexp.config.resolvers import slug
from optexp.errors import BadInput, Exit, StorageError
from optexp.override_words import key_of
from optexp.records.console import relative, say
from optexp.records.files import write_atomically
from optexp.records.process import this_process
from optexp.records.provenance import environment, git_state
from optexp.records.reading import flat, read_run
from optexp.records.run_directory import RUN_FILE, STUDY_FILE, SWEEP_FILE
from optexp.report.html import write_study
from optexp.statistics import Interval, bootstrap_interval, shared_level, t_interval, verdict
from optexp.studies import probes
from optexp.studies.measures import FINISHED, measured
from optexp.studies.study import FIRST_TUNING_SEED, Answer, Study, factor_effects
from optexp.sweeps.members import check_members, composed_member, train_members
from optexp.sweeps.record import MemberRecord, SweepRecord
from optexp.sweeps.summary import collect

ERROR_RATE = 0.05
"""Of all answers of a study together."""

Numbers = dict[tuple[str, str], float | None]
"""What was measured on one seed, by arm and measure; None where there is nothing to measure."""


class StudyFailedError(Exception):
    """A study cannot be answered, because of how its runs ended; `optexp resume` tries again."""


@dataclass
class Conducted:
    """A study on its way: where it is, the words that the user adds to every arm, and the command line.

    `done` is set when every member of every stage came to a good end.
    """

    study: Study
    path: Path
    words: list[str]
    command: list[str]
    composer: Composer
    chosen: dict[str, list[str]]  # the words that tuning chose for each arm
    before: float = 0.0  # seconds spent in earlier sessions
    done: bool = False

    def conduct(self) -> int:
        """Do what is left to do; returns the exit status. study.json tells at every moment how the study stands."""
        start = time.perf_counter()
        status = int(Exit.DONE)
        content: dict[str, Any] = {}
        ended = "failed"
        self.write({}, "running", self.before)
        try:
            for stage in self._stages():
                status = self._train(stage)
                if status > 128:
                    ended = "interrupted"
                    return status
                if status and stage == "tune":
                    raise StudyFailedError("some runs failed while tuning, so arms would be tuned unequally")
            content = self._results()
            ended = "failed" if status else "completed"
        except (SystemExit, KeyboardInterrupt):
            ended = "interrupted"
            raise
        finally:
            self.write(content, ended, self.before + time.perf_counter() - start)
        say(f"{self.study.name}: {relative(write_study(self.path))}")
        return status

    def _stages(self) -> list[str]:
        return [*(["tune"] if self.study.tune else []), *(["final"] if self.study.compared else [])]

    def _train(self, stage: str) -> int:
        """Train the members of a stage, those that are left when it has begun before."""
        folder = self.path / stage
        if (folder / SWEEP_FILE).exists():
            record = collect(folder, SweepRecord.read(folder))
        else:
            record = self.record(stage)
            folder.mkdir(exist_ok=True)
            record.create(folder)
        say(f"{self.study.name}: {len(record.members)} runs ({stage})")
        status = train_members(self.composer, record, folder)
        if stage == "tune" and status <= 128:
            self.chosen = self._choose(SweepRecord.read(folder))
        return status

    def record(self, stage: str) -> SweepRecord:
        """Return the members of a stage. Arms may be equal in name of their values: the arm begins the directory."""
        study = self.study
        members: list[MemberRecord] = []
        for arm, words in study.compared.items():
            if stage == "tune":
                assert study.tune is not None
                points = study.tune.grid(arm)
                seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + study.tune.seeds)
            else:
                points, seeds = [self.chosen.get(arm, [])], range(study.seeds)
            for point in points:
                for seed in seeds:
                    swept = {"arm": arm, "point": " ".join(point), "seed": seed}
                    name = slug(f"{len(members)}-{','.join([arm, *point, f'seed={seed}'])}", longest=100)
                    overrides = [*member_words(study.common, [*words, *point], self.words), f"seed={seed}"]
                    members.append(MemberRecord(len(members), overrides, name, swept))
        return SweepRecord(self.command, ["arm", "point", "seed"], members)

    def _choose(self, record: SweepRecord) -> dict[str, list[str]]:
        """Return the words of each arm's best combination: the smallest mean best val/loss; infinite where one failed.

        Raises StudyFailedError when no combination of an arm came to an end.
        """
        chosen = {}
        assert self.study.tune is not None
        for arm in self.study.compared:
            losses = {
                " ".join(point): fmean(
                    _best(self.path / "tune" / member.directory)
                    for member in record.members
                    if member.swept["arm"] == arm and member.swept["point"] == " ".join(point)
                )
                for point in self.study.tune.grid(arm)
            }
            best = min(losses, key=lambda point: losses[point])
            if not math.isfinite(losses[best]):
                raise StudyFailedError(f"no combination of arm '{arm}' came to an end on every seed while tuning")
            chosen[arm] = next(point for point in self.study.tune.grid(arm) if " ".join(point) == best)
        return chosen

    def _edges(self) -> list[str]:
        """Return where tuning chose the smallest or largest of three or more values: a better one may lie beyond."""
        found = []
        for arm, point in self.chosen.items():
            assert self.study.tune is not None
            for key, values in (self.study.tune.arms.get(arm) or self.study.tune.keys).items():
                word = next(word for word in point if word.startswith(f"{key}="))
                at = [f"{key}={value}" for value in values].index(word)
                if len(values) > 2 and at in (0, len(values) - 1):
                    found.append(f"{arm}: {word} is the {'first' if at == 0 else 'last'} of the values tried")
        return found

    def _results(self) -> dict[str, Any]:
        numbers = [self._numbers(seed) for seed in range(self.study.seeds)]
        answers = {name: self._answer(answer, numbers) for name, answer in self.study.answers.items()}
        by_arm = {
            arm: {measure: [of_seed[arm, measure] for of_seed in numbers] for measure in self.study.measures}
            for arm in self.study.compared
        }
        return {"measured": by_arm, "answers": answers, "effects": self._ranked(numbers), "runs": self._statuses()}

    def _ranked(self, numbers: Sequence[Numbers]) -> dict[str, list[dict[str, Any]]]:
        """Return every main effect and interaction on what the study names, the largest first.

        The intervals of one list hold together; an effect that some seed does not have is left without one.
        """
        ranked = {}
        for measure, effects in factor_effects(self.study).items():
            level = shared_level(len(effects), 1 - ERROR_RATE)
            rows: list[dict[str, Any]] = []
            for factors, expression in effects.items():
                per_seed = [expression.value(of_seed) for of_seed in numbers]
                known = [value for value in per_seed if value is not None]
                interval = asdict(t_interval(known, level)) if len(known) == len(per_seed) else None
                rows.append({"factors": list(factors), "interval": interval, "per_seed": per_seed})
            rows.sort(key=lambda row: -abs(row["interval"]["estimate"]) if row["interval"] else math.inf)
            ranked[measure] = rows
        return ranked

    def _numbers(self, seed: int) -> Numbers:
        record = SweepRecord.read(self.path / "final")
        found: Numbers = {}
        measures = self.study.measures
        for member in record.members:
            if member.swept["seed"] != seed:
                continue
            path = self.path / "final" / member.directory
            rows: list[dict[str, Any]] = []
            status, total = "not started", None
            if (path / RUN_FILE).exists():
                run = read_run(path)
                rows, status, total = run.rows, run.status, run.info.get("total_steps")
                if status in FINISHED and any(measure.of.startswith("sharpness/") for measure in measures.values()):
                    from optexp.curvature.of_run import sharpness_row  # torch is needed, seconds of it

                    rows = [*rows, {"step": run.last_step, **sharpness_row(path)}]
            for name, measure in measures.items():
                found[member.swept["arm"], name] = measured(rows, status, measure, total)
        return found

    def _statuses(self) -> dict[str, dict[str, int]]:
        """Return for each stage how many runs ended in which way."""
        counts: dict[str, dict[str, int]] = {}
        for stage in self._stages():
            counts[stage] = {}
            for member in SweepRecord.read(self.path / stage).members:
                counts[stage][member.status] = counts[stage].get(member.status, 0) + 1
        return counts

    def _answer(self, answer: Answer, numbers: Sequence[Numbers]) -> dict[str, Any]:
        """Return the answer as it is recorded: effect, interval, verdict, and the sentence that goes with it."""
        level = shared_level(len(self.study.answers), 1 - ERROR_RATE)
        per_seed = self._effects(answer, numbers)
        known = [value for value in per_seed if value is not None and math.isfinite(value)]
        missing = len(per_seed) - len(known)
        interval = None if missing else _interval(answer, known, level)
        found = "inconclusive" if interval is None else verdict(interval, answer.smallest, answer.supported_if)
        text = {
            "supported": answer.if_supported,
            "refuted": answer.if_refuted,
            "inconclusive": answer.if_inconclusive,
        }[found]
        if missing:
            text = f"{missing} of {len(per_seed)} seeds have no effect to measure. {text}"
        return {
            "statement": answer.statement,
            "effect": answer.effect or f"{answer.probe}{answer.arguments or ''}",
            "unit": answer.unit,
            "supported_if": answer.supported_if,
            "smallest": answer.smallest,
            "interval": None if interval is None else asdict(interval),
            "per_seed": per_seed,
            "verdict": found,
            "text": text,
        }

    def _effects(self, answer: Answer, numbers: Sequence[Numbers]) -> list[float | None]:
        if answer.probe is not None:
            return list(probes.call(answer.probe, answer.arguments))
        assert answer.effect is not None
        expression = self.study.expression(answer.effect)
        return [expression.value(of_seed) for of_seed in numbers]

    def write(self, results: Mapping[str, Any], status: str, seconds: float) -> None:
        """Write study.json in one piece; raises StorageError."""
        study = self.study
        content = {
            "study": study.name,
            "question": study.question,
            "claim": study.claim,
            "source": study.source,
            "limits": study.limits,
            "command": self.command,
            "words": self.words,
            "config_dir": self.composer.config_dir and str(Path(self.composer.config_dir).absolute()),
            "definition": study.text,
            "stages": {stage: {"directory": stage} for stage in self._stages()},
            "chosen": self.chosen,
            "edges": self._edges(),
            "status": status,
            "process": this_process(),
            "seconds": seconds,
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": environment(),
            "git": git_state(Path(__file__).parent),
            **results,
        }
        try:
            write_atomically(self.path / STUDY_FILE, json.dumps(content, indent=1, ensure_ascii=False).encode())
        except OSError as error:
            raise StorageError(f"cannot write {self.path / STUDY_FILE}: {error.strerror or error}") from error


def check_study(study: Study, words: Sequence[str], composer: Composer) -> int:
    """Compose and check every member of the first stage; returns how many runs there are.

    Raises BadInput for whatever keeps a member from starting; `check_words` comes first.
    """
    for answer in study.answers.values():
        if answer.probe is not None:
            probes.check(answer.probe, answer.arguments)
    conducted = Conducted(study, Path(), list(words), [], composer, {})
    runs = 0
    for stage in conducted._stages():
        record = conducted.record(stage)
        check_members(composer, record)
        runs += len(record.members)
    return runs


_NOT_COMPARED = ("output_dir", "trust", "name", "remark")


def check_words(study: Study, words: Sequence[str], composer: Composer) -> None:
    """Check that words of the command line fit all arms, and leave alone what is compared. Raises BadInput."""
    where = f"study={study.name}"
    given = {key_of(word): word for word in words if key_of(word) not in _NOT_COMPARED}
    if given and not study.compared:
        raise BadInput(f"{where}: {next(iter(given.values()))}: it trains nothing, so there is nothing to set")
    if "seed" in given:
        raise BadInput(f"{where}: {given['seed']}: a study sets the seeds itself")
    if not given:
        return
    grids = [study.tune.keys, *study.tune.arms.values()] if study.tune else []
    tuned = [key for grid in grids for key in grid]
    arms = [flat(composer.compose([*study.common, *arm]).config) for arm in study.compared.values()]
    compared = {key for arm in arms for key in arm if any(other.get(key) != arm[key] for other in arms)}
    for key, word in given.items():
        for kind, keys in (("tunes", tuned), ("compares", compared)):
            if key in keys or f"{key}._target_" in keys:
                raise BadInput(f"{where}: {word}: this is what the study {kind}; other keys can be set")
    for arm, own in study.compared.items():
        try:
            composed_member(composer, member_words(study.common, own, words))
        except BadInput as error:
            raise BadInput(f"{where}: arm {arm}: {error}") from None


def member_words(common: Sequence[str], own: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the override words of a member: those of the study, those of its arm, those of the command line.

    The last word of each key stays. A group chosen on the command line replaces what all arms choose and set of it,
    which was made for another choice; what the arms set each for itself is applied to the new choice.
    """
    groups = [word for word in words if key_of(word) in GROUPS_OF_A_TRAINING]
    chosen = [key_of(word) for word in groups]
    kept = [word for word in common if key_of(word).partition(".")[0] not in chosen]
    own = [word for word in own if key_of(word) not in chosen]
    every = [*groups, *kept, *own, *(word for word in words if word not in groups)]
    keys = [key_of(word) for word in every]
    return [word for place, word in enumerate(every) if keys[place] not in keys[place + 1 :]]


def _best(path: Path) -> float:
    """Return the best val/loss of a run; infinite when it did not come to a good end."""
    run = read_run(path)
    best = run.info.get("best")
    return float(best["value"]) if best and run.status in ("completed", "early_stopped") else math.inf


def _interval(answer: Answer, values: Sequence[float], level: float) -> Interval:
    if answer.interval == "t":
        return t_interval(values, level)
    if answer.interval == "bootstrap":
        return bootstrap_interval(values, level)
    return Interval(values[0], values[0], values[0], level, len(values), "exact")
