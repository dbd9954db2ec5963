"""The task `audit`: whether an optimizer does what its name and its arguments say."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch.optim import Optimizer

from optexp.audit.audit import audit
from optexp.audit.checks import FAIL, NOT_APPLICABLE, PASS, Check
from optexp.audit.known import known_failure
from optexp.audit.published import PUBLISHED, Published
from optexp.audit.subject import Subject, configured, subject
from optexp.config import build
from optexp.config.compose import Composed
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.config.values import AtLeast
from optexp.errors import BadInput, Exit, StorageError, listed, nearest
from optexp.records.console import say
from optexp.records.files import write_atomically
from optexp.report.tables import Column, print_table
from optexp.run import Result
from optexp.task_record import Found, carry_out

_STYLES = {PASS: "green", FAIL: "bold red", NOT_APPLICABLE: "dim"}


@dataclass(frozen=True)
class AuditSettings:
    """See conf/task/audit.yaml."""

    steps: Annotated[int, AtLeast(10)] = 200
    rule: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        allowed = ("auto", "none", *PUBLISHED)
        if self.rule not in allowed:
            raise BadInput(f"rule={self.rule}: no such rule{nearest(self.rule, allowed)}; there are {listed(allowed)}")

    def published(self) -> Published | str | None:
        return self.rule if self.rule == "auto" else PUBLISHED.get(self.rule)


class Audit:
    """An audit, refused or ready when constructed (BadInput), then run in a directory of its own."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        self.composed = composed
        self.settings = task_settings(AuditSettings, composed.config["task"])
        config = composed.config
        build.trust(config["trust"])
        target = build.locate("optimizer", config["optimizer"].get("_target_"), config["trust"])
        given = build.arguments(config["optimizer"])
        origin = f"experiment={composed.choices['experiment']}" if composed.choices.get("experiment") else ""
        build.check_arguments("optimizer", target, given, ["params"], origin)
        if isinstance(target, type) and not issubclass(target, Optimizer):
            raise BadInput(f"optimizer._target_={config['optimizer']['_target_']}: is not a torch.optim.Optimizer")
        hyperparameters = given if isinstance(target, type) else {k: v for k, v in given.items() if k != "name"}
        if given.get("lr") == 0:
            raise BadInput("optimizer.lr=0: nothing would move; allowed here is a number > 0")
        self.subject = subject(configured(target, given), hyperparameters, self.settings.published())
        obstacle = self.subject.published and self.settings.rule != "auto" and _missing(self.subject)
        if obstacle:
            raise BadInput(f"task.rule={self.settings.rule}: {obstacle}")

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Audit, and leave the checks in result.json and checks.csv of the directory `path`."""
        return carry_out(self.composed, path, command, overrides, lambda folder: self._work(folder, member))

    def _work(self, path: Path, member: str | None) -> Found:
        checks = audit(self.subject, self.settings.steps, self.settings.compile)
        failures = [check for check in checks if check.verdict == FAIL]
        counted = [check for check in checks if check.verdict != NOT_APPLICABLE]
        rows = [_row(self.subject, check) for check in checks]
        _save(path / "checks.csv", rows)
        say(_verdict(self.subject, failures, len(counted)))
        wanted = (PASS, FAIL) if member is None else (FAIL,)  # in a sweep, only what is wrong
        shown = [row for row in rows if row["verdict"] in wanted]
        if shown:
            print_table(shown, _COLUMNS)
        if member is None:
            for why, names in _idle(checks).items():
                say(f"does not apply: {listed(names)} ({why})")
            say("every check with its numbers: result.json; as a table: checks.csv")
        metrics = {f"audit/{key}": float(value) for key, value in _counts(checks).items()}
        status = Exit.CHECKS_FAILED if failures else Exit.DONE
        return Found(metrics, self._result(checks), float(len(failures)), int(status))

    def _result(self, checks: Sequence[Check]) -> dict[str, Any]:
        published = self.subject.published
        return {
            "optimizer": f"{self.subject.kind.__module__}.{self.subject.kind.__qualname__}",
            "settings": {name: _plain(value) for name, value in self.subject.settings.items()},
            "rule": published and {"name": published.name, "source": published.source},
            "precision": str(self.subject.dtype).removeprefix("torch."),
            "tolerance": self.subject.tolerance,
            "steps": self.settings.steps,
            "counts": _counts(checks),
            "checks": [check.as_dict() | {"known": _reference(self.subject, check)} for check in checks],
        }


_COLUMNS = [
    Column("check"),
    Column("verdict", style=lambda verdict: _STYLES[verdict]),
    Column("step", "first step"),
    Column("explanation"),
]


def _missing(subject: Subject) -> str | None:
    """Return why a rule that the user names cannot be followed with the optimizer's arguments."""
    assert subject.published is not None
    lacking = subject.published.lacking(subject.settings)
    if lacking:
        return f"{subject.name} has no argument {listed(lacking)}, which this rule reads"
    return None


def _verdict(subject: Subject, failures: Sequence[Check], counted: int) -> str:
    rule = f"compared with {subject.published.source}" if subject.published else "no published rule is known here"
    if not failures:
        return f"audit: {subject.name}: all {counted} checks passed ({rule})"
    known = sum(known_failure(subject.kind, check) is not None for check in failures)
    told = f", {known} of them known upstream" if known else ""
    names = listed(check.name for check in failures)
    return f"audit: {subject.name}: {len(failures)} of {counted} checks failed{told}: {names} ({rule})"


def _row(subject: Subject, check: Check) -> dict[str, Any]:
    reference = _reference(subject, check)
    explanation = check.explanation + (f" [known: {reference}]" if reference else "")
    step = "" if check.step is None else str(check.step)
    return {"check": check.name, "verdict": check.verdict, "step": step, "explanation": explanation}


def _idle(checks: Sequence[Check]) -> dict[str, list[str]]:
    """Return the names of the checks that do not apply, by the reason."""
    reasons: dict[str, list[str]] = {}
    for check in checks:
        if check.verdict == NOT_APPLICABLE:
            reasons.setdefault(check.explanation, []).append(check.name)
    return reasons


def _reference(subject: Subject, check: Check) -> str | None:
    known = known_failure(subject.kind, check)
    return f"{known.reference}: {known.meaning}" if known else None


def _counts(checks: Sequence[Check]) -> dict[str, int]:
    names = {PASS: "passed", FAIL: "failed", NOT_APPLICABLE: "not_applicable"}
    return {name: sum(check.verdict == verdict for check in checks) for verdict, name in names.items()}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; functions and the like by their text."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _save(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    try:
        write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
