"""An attribution as text: the sentence, the tables of the terminal, CSV. Every form has the numbers of the answer."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optexp.records.console import program, say
from optexp.records.numbers import measured, setting
from optexp.report.tables import Column, print_table

Answer = Mapping[str, Any]

FEW = 5
"""Of more keys only the larger shares are in the sentence, and not every combination in the table."""

YES_NO = {True: "yes", False: "no", None: "undecided"}


def names_of(answer: Answer) -> dict[str, str]:
    """Return the short names of the keys."""
    return {key["key"]: key["name"] for key in answer["keys"]}


def set_name(answer: Answer, keys: Sequence[str]) -> str:
    """Return a set of keys as `{lr, dampening}`; of many keys what is missing, where that is less to read."""
    names = names_of(answer)
    missing = [key for key in names if key not in keys]
    if len(names) > FEW and len(missing) < len(keys):
        return f"all but {_braces(names[key] for key in missing)}" if missing else "all"
    return _braces(names[key] for key in keys)


def _braces(names: Iterable[str]) -> str:
    return f"{{{', '.join(names)}}}"


def headline(answer: Answer) -> str:
    """Return the answer in one sentence."""
    names, quantity = names_of(answer), answer["metric"]
    parts = []
    if answer["decades"] is not None:
        moved = [key for key in answer["decades"]["keys"] if len(names) <= FEW or _decade(key["contribution"]) != "0.0"]
        told = [f"{names[key['key']]} {decades(key)}" for key in moved]
        parts.append(f"decades of effective learning rate: {', '.join(told) or 'none'}")
    if not answer["attributable"]:
        whole, side = answer["improvement"], "better"
        if whole["estimate"] < 0:
            whole, side = {"estimate": -whole["estimate"], "low": -whole["high"], "high": -whole["low"]}, "worse"
        parts.append(f"no improvement in {quantity} to attribute: {answer['working']} is {side} by {amount(whole)}")
        return "; ".join(parts)
    ranked = sorted(answer["shares"]["keys"], key=lambda key: -key["share"]["estimate"])
    shares = [f"{_percent(key['share'])} is {names[key['key']]}'s" for key in ranked[: FEW if len(names) <= FEW else 3]]
    parts.append(f"of the improvement in {quantity} {', '.join(shares)}")
    parts.append(f"minimal sufficient: {minimal_names(answer)}")
    return "; ".join(parts)


def minimal_names(answer: Answer) -> str:
    """Return the minimal sufficient sets, each with a question mark where a part of it might repair, too."""
    return ", ".join(set_name(answer, found["keys"]) + "?" * bool(found["doubts"]) for found in answer["minimal_sets"])


def decades(entry: Mapping[str, Any]) -> str:
    """Return a contribution to log10 of the effective learning rate: `+2.0`, `0.0`, with its interval, if any."""
    found = entry["contribution"]
    text, low, high = (_decade(found, end) for end in ("estimate", "low", "high"))
    return text if low == high else f"{text} ({low} to {high})"


def _decade(interval: Mapping[str, float], end: str = "estimate") -> str:
    """Return decades with one digit, or two where one is not enough."""
    value = interval[end]
    digits = 1 if abs(value - round(value, 1)) < 0.005 else 2
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else _minus(text)


def _minus(text: str) -> str:
    """Return a number with the sign − in front, as other tables have it."""
    return f"−{text[1:]}" if text.startswith("-") else text


def _percent(interval: Mapping[str, float]) -> str:
    """Return a share in whole percent, or in tenths where that would hide its interval."""
    numbers = [100 * interval[end] for end in ("estimate", "low", "high")]
    digits = 1 if round(numbers[1]) == round(numbers[2]) and numbers[1] < numbers[2] else 0
    estimate, low, high = (_minus(f"{round(number, digits) + 0.0:.{digits}f}") for number in numbers)
    return f"{estimate} %" + f" ({low} to {high})" * (interval["low"] < interval["high"])


def amount(interval: Mapping[str, float]) -> str:
    """Return a metric with its interval."""
    estimate, low, high = (_minus(measured(interval[end])) for end in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})"


def print_answer(answer: Answer) -> None:
    """Print the sentence, the tables of keys, pairs and combinations, and what must be known to read them."""
    print()
    say(headline(answer))
    print()
    print_table(*key_table(answer))
    pairs, columns = pair_table(answer)
    if pairs:
        print()
        print_table(pairs, columns)
    print()
    print_table(*combination_table(answer))
    print()
    for found in answer["minimal_sets"] or []:
        name, *words = found["command"]
        say(f"repaired by {set_name(answer, found['keys'])}: {program(name)} {shlex.join(words)}")
    for line in remarks(answer):
        say(line)
    print()


Table = tuple[list[dict[str, Any]], list[Column]]


def key_table(answer: Answer) -> Table:
    """Return a row for every key that differs."""
    rows = []
    steps, shares = answer["decades"], answer["shares"]
    for place, key in enumerate(answer["keys"]):
        row = {"key": key["key"], "failing": setting(key["failing"]), "working": setting(key["working"])}
        if steps is not None:
            row["decades"] = decades(steps["keys"][place])
        if shares is not None:
            own = shares["keys"][place]
            row["share"] = _percent(own["share"])
            if own["sampling_error"] is not None:
                row["sampling"] = f"± {100 * own['sampling_error_of_share']:.0f} %"
            row["necessary"] = YES_NO[answer["necessary"][key["key"]]]
            row["sufficient"] = YES_NO[answer["sufficient"][key["key"]]]
        rows.append(row)
    titles = {
        "key": "changed key",
        "decades": "effective lr, decades",
        "share": f"share of the improvement in {answer['metric']}",
        "sampling": "of which sampling",
        "sufficient": "sufficient alone",
    }
    numeric = ("failing", "working", "decades", "share", "sampling")
    return rows, [Column(key, titles.get(key, ""), text=str, numeric=key in numeric) for key in rows[0]]


def pair_table(answer: Answer) -> Table:
    """Return a row for every pair of keys: what the two do together beyond what each does."""
    shares, steps = answer["shares"], answer["decades"]
    names = names_of(answer)
    rows: list[dict[str, Any]] = []
    for place, pair in enumerate(_pairs(answer)):
        row = {"pair": " × ".join(names[key] for key in pair["keys"])}
        if steps is not None:
            row["decades"] = decades(steps["interactions"][place])
        if shares is not None:
            row["share"] = _percent(pair["share"])
        rows.append(row)
    titles = {"decades": "effective lr, decades", "share": "interaction, of the improvement"}
    return rows, [Column(key, titles.get(key, ""), text=str, numeric=key != "pair") for key in rows[0]] if rows else []


def combination_table(answer: Answer) -> Table:
    """Return a row for every combination that was trained; of many keys, for none, one, all but one and all of them."""
    rows = []
    number = len(answer["keys"])
    for each in answer["combinations"]:
        if number > FEW and len(each["changed"]) not in (0, 1, number - 1, number):
            continue
        row = {"changed": set_name(answer, each["changed"]), "metric": amount(each["metric"])}
        if each["effective_lr"] is not None:
            row["rate"] = setting(float(f"{each['effective_lr']:.3g}"))
            row["rate"] += " (from settings)" * ("settings" in each["rates_from"])
        if each["recovered"] is not None:
            row["recovered"] = _percent(each["recovered"])
            row["verdict"] = each["verdict"]
        lost = {status: count for status, count in each["statuses"].items() if status != "completed"}
        row["ended"] = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in lost.items())
        rows.append(row)
    columns = [key for key in rows[0] if key != "ended" or any(row["ended"] for row in rows)]
    titles = {"changed": "taken from working", "metric": answer["metric"], "rate": "effective lr"}
    numeric = ("metric", "rate", "recovered")
    return rows, [Column(key, titles.get(key, ""), text=str, numeric=key in numeric) for key in columns]


def remarks(answer: Answer) -> list[str]:
    """Return what must be known to read the numbers, a sentence or two each."""
    told = [rate_remark(answer), interaction_remark(answer), design_remark(answer), rule_remark(answer)]
    return [*(line for line in told if line is not None), *lost_remarks(answer)]


def interaction_remark(answer: Answer) -> str | None:
    """Return what an interaction is; None where there is none."""
    if not pair_table(answer)[0]:
        return None
    return (
        "interaction of a pair: what changing both brings beyond the sum of what each brings alone, averaged over "
        "the states of the other keys; above 0 the two need each other, below 0 one stands in for the other"
    )


def design_remark(answer: Answer) -> str:
    """Return which combinations were trained on how many seeds, and what the intervals are."""
    design, seeds = answer["design"], len(answer["seeds"])
    written = " (all in combinations.csv)" if len(answer["keys"]) > FEW else ""
    if design["pairs"] is None:
        trained = f"all {design['of']} combinations{written} on the same {seeds} seeds"
    else:
        trained = (
            f"{design['combinations']} of {design['of']} combinations{written} on the same {seeds} seeds, those on "
            f"{design['pairs']} random orders of the keys and their reverses; the sampling error, a 95 % t interval "
            "over the pairs, is in the intervals of the shares; interactions of pairs are left out"
        )
    return f"trained: {trained}; intervals: {method(answer)}"


def method(answer: Answer) -> str:
    """Return how the intervals were obtained."""
    name = "BCa bootstrap" if answer["improvement"]["method"] == "bootstrap" else "Student's t"
    return f"{answer['level']:.0%}, {name}, paired by seed"


def rule_remark(answer: Answer) -> str | None:
    """Return the rule by which a combination repairs; None where there is nothing to repair."""
    if not answer["attributable"]:
        return None
    return (
        f"repairs: recovers at least {100 * answer['recovery']:g} % of the way in {answer['metric']}, by t intervals "
        "that all hold at once with 95 %; undecided: the interval lies across. A set with a question mark has parts "
        "that are undecided or were not trained"
    )


def lost_remarks(answer: Answer) -> list[str]:
    """Return what became of runs without a good end."""
    lines = []
    if diverged := answer["runs"].get("diverged"):
        lines.append(
            f"{diverged} runs diverged and count with the loss of a model that has learned nothing, or with their "
            "last one where that is larger"
        )
    for seed, reason in answer["seeds_left_out"].items():
        lines.append(f"seed {seed} is left out of every combination: a run of it {reason}")
    return lines


def rate_remark(answer: Answer) -> str | None:
    """Return why the effective learning rates are left out, or which of them are not measured; None if all are."""
    counts = answer["rates_from"]
    runs = sum(counts.values())
    if answer["decades"] is None:
        reasons = {
            "not of the SGD type": "an optimizer that is not of the SGD type has none",
            "not positive": "a run that climbs (optimizer.maximize) has a negative one",
            "not logged": f"{counts.get('not logged')} of {runs} runs ended before a step with one was logged",
        }
        why = " and ".join(text for reason, text in reasons.items() if reason in counts) or "not every run has one"
        return f"effective learning rate: left out, because {why}"
    if "settings" in counts:
        return (
            f"effective learning rate from settings: {counts['settings']} of {runs} runs ended before a probe could "
            "measure it and count with lr·(1 − dampening)/(1 − momentum) at their last logged step"
        )
    return None


def combinations_csv(answer: Answer) -> str:
    """Return a line for every combination and seed."""
    keys = [key["key"] for key in answer["keys"]]
    rows = [
        {
            **{key: "working" if key in each["changed"] else "failing" for key in keys},
            "seed": seed,
            answer["metric"]: value,
            "effective_lr": each["effective_lr"],
            "verdict": each["verdict"],
        }
        for each in answer["combinations"]
        for seed, value in zip(answer["seeds"], each["per_seed"], strict=True)
    ]
    return _csv(rows)


def keys_csv(answer: Answer) -> str:
    """Return a line for every key."""
    rows = []
    for place, key in enumerate(answer["keys"]):
        row = {name: key[name] for name in ("key", "failing", "working")} | _intervals(answer, "keys", place)
        if answer["attributable"]:
            row["necessary"] = YES_NO[answer["necessary"][key["key"]]]
            row["sufficient"] = YES_NO[answer["sufficient"][key["key"]]]
        rows.append(row)
    return _csv(rows)


def interactions_csv(answer: Answer) -> str | None:
    """Return a line for every pair of keys; None where no interactions are known."""
    rows = [
        dict(zip(("key", "other"), pair["keys"], strict=True)) | _intervals(answer, "interactions", place)
        for place, pair in enumerate(_pairs(answer))
    ]
    return _csv(rows) if rows else None


def _pairs(answer: Answer) -> Sequence[Mapping[str, Any]]:
    """Return the interactions of all pairs of keys; nothing of one key, of a sampled design, and where unknown."""
    return (answer["shares"] or answer["decades"] or {}).get("interactions") or []


def _intervals(answer: Answer, part: str, place: int) -> dict[str, float]:
    """Return share and decades, where known, of a key (`part` is "keys") or a pair ("interactions")."""
    found: dict[str, float] = {}
    for kind, number, title in (("shares", "share", "share"), ("decades", "contribution", "decades")):
        if answer[kind] is not None:
            interval = answer[kind][part][place][number]
            found |= {title: interval["estimate"], f"{title}_low": interval["low"], f"{title}_high": interval["high"]}
    return found


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
