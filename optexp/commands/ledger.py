"""optexp ledger: what a run's steps are made of, factor by factor, and of two runs side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optexp.commands import Parser
from optexp.errors import Exit
from optexp.records.console import relative
from optexp.records.numbers import setting
from optexp.records.reading import GROUP_SETTINGS, Run, read_run
from optexp.report.effective_rate import effective_lr, group_settings
from optexp.report.ledger import (
    ALL,
    WITH_DECAY,
    Account,
    Ledger,
    chosen_steps,
    decay_name,
    ledger,
    measured_rows,
    shown_factors,
    summary,
)
from optexp.report.ledger_pair import comparable, headline, measured_headline, names, promise, shared_factors, signed
from optexp.report.tables import Column, print_table

TITLES = {
    "lr": "base lr",
    "schedule": "schedule and warm-up",
    "dampening": "1 − dampening",
    "momentum": "1 / (1 − momentum)",
    "gradient": "gradient / weight",
}

COUNTS = ("tensors", "numbers")
"""What run.json counts of a parameter group."""

MISS = "unexplained, at most"

ROUNDING = "each decade is rounded to 0.01; unrounded (--json) the factors sum to the update exactly"

FORMULA = "lr·(1 − dampening)/(1 − momentum)"


def main(argv: list[str]) -> int:
    """Print the account of a run's steps, or of two runs' and their difference; return the exit status.

    Raises BadInput for what is no training run, a step that was not measured, and a run of which nothing can be said.
    """
    parser = Parser(
        "ledger",
        "Multiply out the steps of a run, factor by factor, in decades (powers of ten):\n"
        "  lr × schedule × (1 − dampening)/(1 − momentum) × clipping × gradient/weight × direction = update/weight\n"
        "Of two runs, show both and their difference. Without --step: geometric means over the first half of training.",
        "  optexp ledger outputs/runs/2026-01-31/120000-exp2_sgd_B32\n"
        "  optexp ledger outputs/runs/2026-01-31/120000-exp2_sgd_B32 outputs/runs/2026-01-31/120100-exp2_sgd_B32_fixed",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("other", type=Path, nargs="?", metavar="OTHER", help="a run directory to compare it with")
    parser.add_argument("--step", type=int, metavar="N", help="look at this logged step alone")
    parser.add_argument("--json", action="store_true", help="print everything, unrounded, for programs")
    arguments = parser.parse_args(argv)
    runs = [read_run(path) for path in (arguments.run, arguments.other) if path is not None]
    ledgers = ledgers_of(runs, arguments.step)
    if arguments.json:
        print(json.dumps(_record(ledgers), indent=2, ensure_ascii=False))
    elif len(ledgers) == 1:
        _print_one(ledgers[0])
    else:
        _print_two(ledgers[0], ledgers[1])
    return Exit.DONE


def ledgers_of(runs: Sequence[Run], step: int | None = None) -> list[Ledger]:
    """Return the ledger of each run, of two runs over the same span of steps. Raises BadInput."""
    rows = [measured_rows(run) for run in runs]
    end = min(max(of_run) for of_run in rows)
    return [ledger(run, chosen_steps(of_run, step, end)) for run, of_run in zip(runs, rows, strict=True)]


def _factor(decades: float) -> str:
    """Return a factor in three digits: `0.0001`, `5.89e-6`."""
    return setting(float(f"{10**decades:.3g}"))


def _span(found: Ledger) -> str:
    """Return which steps were looked at: `12 logged steps from 11 to 121`."""
    steps = found.steps
    if len(steps) == 1:
        return f"step {steps[0]:,}"
    return f"geometric means of {len(steps)} logged steps, {steps[0]:,} to {steps[-1]:,}"


def _title(name: str, accounts: Sequence[Account]) -> str:
    """Return how a factor is called; the direction by what it is for the rule, which two runs may not share."""
    if name == "direction":
        called = {account.direction.removesuffix(WITH_DECAY) for account in accounts}
        return max((account.direction for account in accounts), key=len) if len(called) == 1 else "direction"
    return TITLES.get(name, name)


def _print_one(found: Ledger) -> None:
    run, accounts = found.run, found.accounts
    print(f"{relative(run.path)}\n{summary(run)}\n{_span(found)}")
    for account in accounts:
        if account.parameters:
            print(_described(account))
    print()
    rows = []
    for name in shown_factors([run]):
        rows.append(
            {"factor": _title(name, accounts)}
            | _cells({a.name: a.factors[name] for a in accounts if name in a.factors})
        )
    rows.append({"factor": "= update / weight"} | _cells({a.name: a.update for a in accounts}))
    decays = {account.name: math.log10(account.decay) for account in accounts if account.decay}
    misses = {account.name: _number(account.unexplained) for account in accounts if account.unexplained is not None}
    rows += [{"factor": decay_name(run)} | _cells(decays)] if decays else []
    rows += [{"factor": MISS} | misses] if misses else []
    columns = [Column("factor")]
    for account in accounts:
        heading = "decades" if len(accounts) == 1 else account.name
        columns += [Column(account.name, heading, numeric=True), Column(f"{account.name} ×", "×", numeric=True)]
    print_table(rows, columns)
    print(f"\n{ROUNDING}")
    for line in _rate_lines(found):
        print(line)
    if found.missing:
        print(f"missing: {found.missing}")


def _cells(values: dict[str, float]) -> dict[str, str]:
    cells: dict[str, str] = {}
    for name, value in values.items():
        cells |= {name: signed(value, 2), f"{name} ×": _factor(value)}
    return cells


def _described(account: Account, other: Account | None = None) -> str:
    """Return what a group holds: `group 0: 2 tensors, 1,000 numbers`; where another run's differs, both."""
    words, others = _facts(account), _facts(other or account)
    if words.keys() == others.keys():
        shown = [words[key] if words[key] == others[key] else f"{words[key]} in A, {others[key]} in B" for key in words]
    else:
        shown = [f"{', '.join(own.values()) or 'unknown'} in {run}" for run, own in (("A", words), ("B", others))]
    return f"{account.name}{': ' * bool(shown)}{', '.join(shown)}"


def _facts(account: Account) -> dict[str, str]:
    """Return what run.json says of a group, in words; a rule without weight decay has none."""
    facts = {key: value for key, value in (account.parameters or {}).items() if value is not None}
    words = {key: f"{facts[key]:,} {key[: -1 if facts[key] == 1 else None]}" for key in COUNTS if key in facts}
    for name in (*GROUP_SETTINGS, "weight_decay"):
        if name in facts:
            words[name] = f"{name.replace('_', ' ')} {setting(facts[name])}"
    return words


def _number(value: float) -> str:
    return setting(float(f"{value:.3g}"))


def _rate_lines(found: Ledger) -> list[str]:
    """Return what the effective learning rate is; where groups differ, that they do, and what it is in each."""
    run, rates = found.run, found.rates
    if differing := run.differing_settings:
        said = f"the parameter groups differ in {' and '.join(differing)}: what they do not share stands for each alone"
        each = [effective_lr(group_settings(run, index)) for index in range(len(run.info["parameter_groups"]))]
        texts = [f"{_number(rate)} in group {index}" for index, rate in enumerate(each) if rate is not None]
        return [said, f"effective lr: {', '.join(texts)} from settings, {FORMULA}"] if texts else [said]
    if rates.span is not None:
        least, largest = map(_number, rates.span)
        words = [f"{least} to {largest} at these steps, {FORMULA}, as the momentum moved"]
    elif rates.settings is not None:
        words = [f"{_number(rates.settings)} from settings, {FORMULA}"]
    else:
        return []
    if (
        rates.scheduled is not None
        and rates.settings is not None
        and not math.isclose(rates.scheduled, rates.settings, rel_tol=1e-3)
    ):
        words.append(f"{_number(rates.scheduled)} with the schedule")
    if rates.measured is not None:
        probes = f"median of {rates.probes} probes" if rates.probes > 1 else "one probe"
        words.append(f"{_number(rates.measured)} measured there ({probes})")
    return [f"effective lr: {'; '.join(words)}"]


def _print_two(first: Ledger, second: Ledger) -> None:
    runs = [first.run, second.run]
    for label, found in zip("AB", (first, second), strict=True):
        print(f"{label}  {relative(found.run.path)}\n   {summary(found.run)}\n   {_span(found)}")
    print("\n" + "\n".join([*headline(*runs), measured_headline(first, second)]) + "\n")
    columns = [Column("decades")] + [Column(key, numeric=True) for key in ("A", "B", "A − B", "×")]
    pairs = comparable(first, second)
    for ours, theirs in pairs:
        if len(pairs) > 1:
            print(ALL if ours.name == ALL else _described(ours, theirs))
        rows = [
            {"decades": _title(name, (ours, theirs))} | _side_by_side(ours.factors[name], theirs.factors[name])
            for name in shown_factors(runs)
            if name in shared_factors(ours, theirs)
        ]
        rows.append({"decades": "= update / weight"} | _side_by_side(ours.update, theirs.update))
        print_table([*rows, *_beside(runs, ours, theirs)], columns)
        if _title("direction", (ours, theirs)) == "direction" != ours.direction:
            print(f"direction: in A {ours.direction}; in B {theirs.direction}")
        print()
    print(ROUNDING)
    for label, found in zip("AB", (first, second), strict=True):
        for line in _rate_lines(found):
            print(f"{label}  {line}")
        if found.missing:
            print(f"{label}  missing: {found.missing}")


def _beside(runs: Sequence[Run], ours: Account, theirs: Account) -> list[dict[str, str]]:
    """Return the rows below the sum: weight decay, which two rules may measure against different things, and misses."""
    rows: list[dict[str, str]] = []
    kinds = [decay_name(run) for run in runs]
    if kinds[0] == kinds[1] and ours.decay and theirs.decay:
        rows.append({"decades": kinds[0]} | _side_by_side(math.log10(ours.decay), math.log10(theirs.decay)))
    else:
        each = zip("AB", kinds, (ours.decay, theirs.decay), strict=True)
        rows += [{"decades": kind, label: signed(math.log10(decay), 2)} for label, kind, decay in each if decay]
    misses = {"A": ours.unexplained, "B": theirs.unexplained}
    found = {label: _number(miss) for label, miss in misses.items() if miss is not None}
    return rows + ([{"decades": MISS} | found] if found else [])


def _side_by_side(ours: float, theirs: float) -> dict[str, str]:
    return {
        "A": signed(ours, 2),
        "B": signed(theirs, 2),
        "A − B": signed(ours - theirs, 2),
        "×": _factor(ours - theirs),
    }


def _record(ledgers: Sequence[Ledger]) -> dict[str, Any]:
    """Return everything that was found, for programs."""
    record: dict[str, Any] = {"runs": [_ledger_record(found) for found in ledgers]}
    if len(ledgers) == 2:
        first, second = ledgers
        promised = promise(first.run, second.run)
        record["difference"] = {
            "names": names([first.run, second.run]),
            "headline": [*headline(first.run, second.run), measured_headline(first, second)],
            "effective_lr": None if promised is None else {"decades": promised.decades, "parts": promised.parts},
            "accounts": [
                {
                    "name": ours.name,
                    "factors": {
                        name: ours.factors[name] - theirs.factors[name] for name in shared_factors(ours, theirs)
                    },
                    "update": ours.update - theirs.update,
                }
                for ours, theirs in comparable(first, second)
            ],
        }
    return record


def _ledger_record(found: Ledger) -> dict[str, Any]:
    rates = found.rates
    return {
        "path": relative(found.run.path),
        "optimizer": summary(found.run),
        "steps": list(found.steps),
        "accounts": [
            {
                "name": account.name,
                "parameters": account.parameters,
                "rows": account.rows,
                "factors": account.factors,
                "update": account.update,
                "direction": account.direction,
                "unexplained": account.unexplained,
                decay_name(found.run).replace(" / ", "_per_").replace(" ", "_"): account.decay,
            }
            for account in found.accounts
        ],
        "effective_lr": {
            "settings": rates.settings,
            "span": rates.span,
            "scheduled": rates.scheduled,
            "measured": rates.measured,
            "probes": rates.probes,
        },
        "missing": found.missing,
    }
