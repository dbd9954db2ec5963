"""What a verification has found: the table and sentences for the terminal, and what diagnosis.json holds of it."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from optexp.diagnosis.command import repaired_command
from optexp.diagnosis.history import History
from optexp.diagnosis.values import percent
from optexp.records.console import relative, say
from optexp.records.numbers import measured
from optexp.report.tables import Column, print_table
from optexp.statistics import t_interval
from optexp.verification.ends import LOSS, UNBOUNDED_LOSS, End, Quantity
from optexp.verification.judgement import LEVEL
from optexp.verification.verify import Trial, Verification

ACCURACY = Quantity("val/accuracy", lambda end: end.accuracy)

VERDICT_STYLES = {"helped": "green", "did not help": "red", "undecided": "yellow"}


def print_verification(found: Verification, history: History, program: str = "optexp") -> None:
    """Print the numbers, the verdict on each repair, and the answer, a command for `program`."""
    if found.original:
        print()
        print_table(_rows(found), _columns(found))
    print()
    for number, trial in enumerate(found.trials, 1):
        say(f"{number}. {trial.prescription.name}: {sentence(trial)}")
    for line in [*_bounded(found), *answer(found, history, program)]:
        say(line)


def _bounded(found: Verification) -> list[str]:
    """Return a line where the losses that are compared are bounded, as those of the table are."""
    bound = _bound(found)
    if bound is None:
        return []
    trivial = measured(bound)
    return [
        f"a val/loss above {trivial}, that of predicting without the inputs, counts as {trivial}: how much worse than "
        "learning nothing a run gets is a matter of chance"
    ]


def _bound(found: Verification) -> float | None:
    """Return the loss of predicting without the inputs where it takes the place of a larger one in a comparison."""
    ends = [end for trial in found.trials if trial.judgement.quantity is LOSS for end in (*found.original, *trial.ends)]
    return next((e.trivial for e in ends if e.trivial is not None and (e.loss or 0) > e.trivial), None)


def answer(found: Verification, history: History, program: str = "optexp") -> list[str]:
    """Return what to do, in a line or two."""
    if found.exit_status > 128:
        return [f"interrupted: nothing more was trained; what there is lies in {_shown(found)}"]
    best = found.helped
    if best is None:
        if found.nothing_to_repair:
            longer = " in a part of its steps" if found.budget.steps < found.budget.planned else ""
            return [f"nothing verified: the original is trained itself{longer}; --steps N chooses another length"]
        partly = _closest(found, program)
        return partly or ["nothing verified: no repair was found to help"]
    words = best.prescription.words
    command = repaired_command(history, words, program) or " ".join(words)
    changes = [
        f"{name} {_amount(of(found.original))} → {_amount(of(best.ends))}"
        for name, of in (
            (LOSS.name, partial(_described, _loss(found))),
            ("val/accuracy", partial(_described, ACCURACY)),
        )
        if of(found.original) is not None and of(best.ends) is not None
    ]
    return [
        f"verified: {best.prescription.name}: {', '.join(changes)}",
        f"   run  {command}",
    ]


def _shown(found: Verification) -> str | None:
    return None if found.folder is None else relative(found.folder)


def _closest(found: Verification, program: str) -> list[str]:
    """Return a line on the repair that has brought the most without making the run a good one, if any has."""
    gains = {
        trial.judgement.improvement.low: trial
        for trial in found.trials
        if trial.judgement.verdict == "undecided" and trial.judgement.improvement is not None
    }
    most = max(gains, default=0.0)
    if most <= 0:
        return []
    run = f"{_shown(found)}/{gains[most].ends[0].directory}"
    best = gains[most]
    after = ", ".join(sorted({end.outcome for end in best.ends if end.outcome}))
    return [
        f"helped in part: {best.prescription.name} lowers the loss beyond doubt, and the outcome is still {after}",
        f"   what is left  {program} diagnose {shlex.quote(run)}",
    ]


def as_dict(found: Verification | None) -> dict[str, Any]:
    """Return what diagnosis.json holds of a verification: `verified`, a list of what was tried, and `verification`."""
    if found is None:
        return {"verified": [], "verification": None}
    best = found.helped
    return {
        "verified": [_tried(trial, found) for trial in found.trials],
        "verification": {
            "directory": _shown(found),
            "seeds": found.seeds,
            "steps": found.budget.steps,
            "planned_steps": found.budget.planned,
            "budget": found.budget.why,
            "interrupted": found.exit_status > 128,
            "helped": None if best is None else list(best.prescription.words),
            "command": None if best is None else best.command,
        },
    }


def _tried(trial: Trial, found: Verification) -> dict[str, Any]:
    judgement = trial.judgement
    return {
        "causes": list(trial.prescription.causes),
        "prescription": list(trial.prescription.words),
        "command": trial.command,
        "verdict": judgement.verdict,
        "sentence": sentence(trial),
        "quantity": judgement.quantity.name,
        "improvement": None if judgement.improvement is None else asdict(judgement.improvement),
        "counts_at_most": _bound(found) if judgement.quantity is LOSS else None,
        "before": _arm(found.original, trial),
        "after": _arm(trial.ends, trial),
    }


def _arm(ends: Sequence[End], trial: Trial) -> dict[str, Any]:
    quantity = trial.judgement.quantity
    numbers: dict[str, Any] = {LOSS.name: _described(UNBOUNDED_LOSS, ends), "val/accuracy": _described(ACCURACY, ends)}
    if quantity is not LOSS:
        numbers[quantity.name] = _described(quantity, ends)
    return {
        **{name: number for name, number in numbers.items() if number is not None},
        "outcomes": dict(Counter(end.outcome for end in ends)),
        "statuses": dict(Counter(end.status for end in ends)),
    }


Mean = dict[str, Any]


def _described(quantity: Quantity, ends: Sequence[End]) -> Mean | None:
    """Return mean, 95 % interval (Student's; none of one value) and values over the seeds; None of no values.

    Nothing that is described is negative, and an interval ends where values do.
    """
    values = [value for end in ends if (value := quantity.of(end)) is not None]
    if not values:
        return None
    if len(values) < 2:
        return {"mean": values[0], "low": None, "high": None, "values": list(values)}
    interval = t_interval(values, LEVEL)
    low, high = max(interval.low, 0.0), min(interval.high, _largest(quantity, ends))
    return {"mean": interval.estimate, "low": low, "high": high, "values": list(values)}


def _largest(quantity: Quantity, ends: Sequence[End]) -> float:
    """Return the largest value that a quantity can have."""
    if quantity is ACCURACY:
        return 1.0
    bounds = [end.trivial for end in ends if end.trivial is not None] if quantity is LOSS else []
    return max(bounds, default=math.inf)


def _amount(found: Mean | None) -> str:
    if found is None:
        return "none"
    interval = "" if found["low"] == found["high"] else f" ({measured(found['low'])} to {measured(found['high'])})"
    return f"{measured(found['mean'])}{interval}"


def _loss(found: Verification) -> Quantity:
    """Return the loss as it is compared."""
    return UNBOUNDED_LOSS if _bound(found) is None else LOSS


def _quantities(found: Verification) -> dict[str, Quantity]:
    """Return what the table has of each arm, by the headings: the loss, and whatever else is compared."""
    bound = _bound(found)
    heading = LOSS.name if bound is None else f"{LOSS.name}, at most {measured(bound)}"
    others = [trial.judgement.quantity for trial in found.trials if trial.judgement.quantity is not LOSS]
    return {heading: _loss(found)} | {quantity.name: quantity for quantity in others}


def _rows(found: Verification) -> list[dict[str, Any]]:
    rows = [{"tried": "original", **_cells(found, found.original), "verdict": ""}]
    for number, trial in enumerate(found.trials, 1):
        if trial.ends:
            verdict = trial.judgement.verdict
            rows.append(
                {"tried": f"{number}. {trial.prescription.name}", **_cells(found, trial.ends), "verdict": verdict}
            )
    return rows


def _cells(found: Verification, ends: Sequence[End]) -> dict[str, str]:
    return {
        **{heading: _amount(_described(quantity, ends)) for heading, quantity in _quantities(found).items()},
        "val/accuracy": _amount(_described(ACCURACY, ends)),
        "outcome": _counted([end.outcome for end in ends]),
        "ended": _counted([end.status.replace("_", " ") for end in ends if end.status != "completed"]),
    }


def _counted(words: Sequence[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())


def _columns(found: Verification) -> list[Column]:
    every = [*found.original, *(end for trial in found.trials for end in trial.ends)]
    columns = [Column("tried", text=str)]
    columns += [Column(heading, f"{heading} (95 %)", text=str, numeric=True) for heading in _quantities(found)]
    if _described(ACCURACY, every) is not None:
        columns.append(Column("val/accuracy", "val/accuracy (95 %)", text=str, numeric=True))
    columns.append(Column("outcome", text=str))
    if any(end.status != "completed" for end in every):
        columns.append(Column("ended", text=str))
    return [*columns, Column("verdict", text=str, style=lambda verdict: VERDICT_STYLES.get(verdict, ""))]


def sentence(trial: Trial) -> str:
    """Return the verdict with its reason and the improvement."""
    judgement = trial.judgement
    text = f"{judgement.verdict}: {judgement.reason}"
    if judgement.improvement is None:
        return text
    by = judgement.improvement
    numbers = f"{measured(by.estimate)} ({measured(by.low)} to {measured(by.high)})"
    return f"{text}; improvement {numbers}, {percent(by.level)}, paired over {by.n} seeds"


def marked(content: Mapping[str, Any], found: Verification | None) -> dict[str, Any]:
    """Return the content of diagnosis.json with what was found, and with each finding the verdict on its repair."""
    entries = as_dict(found)
    verdicts = {tuple(entry["prescription"]): entry for entry in entries["verified"]}
    findings = []
    for finding in content["findings"]:
        entry = verdicts.get(tuple(finding["prescription"])) if finding["prescription"] else None
        if entry is not None:
            short = ("verdict", "sentence", "quantity", "improvement", "before", "after")
            finding = {**finding, "verified": {name: entry[name] for name in short}}
        findings.append(finding)
    return {**content, "findings": findings, **entries}
