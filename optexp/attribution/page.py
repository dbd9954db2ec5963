"""An attribution on its page: the tables of the terminal, with captions that say how the numbers were obtained."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from optexp.attribution.text import (
    Answer,
    Table,
    amount,
    combination_table,
    decades,
    design_remark,
    interaction_remark,
    key_table,
    lost_remarks,
    method,
    minimal_names,
    pair_table,
    rate_remark,
    rule_remark,
    set_name,
)

FIGURE = "attribution.png"
"""The picture, in the folder `figures`."""

Section = dict[str, Any]
Cells = tuple[list[str], list[list[str]]]
"""Headings, and rows of texts."""


def page_sections(answer: Answer) -> list[Section]:
    """Return what stands on the page below the headline, in order; see `report.task_page` for the keys."""
    rates = rate_remark(answer)
    notes = [*([rates] if rates is not None else []), *lost_remarks(answer)]
    # What is asked for comes first, in sight on a phone; necessary and sufficient keys have a table of their own.
    keys = _cells(key_table(answer), ("key", "share", "sampling", "decades", "failing", "working"))
    sections: list[Section] = [
        *([{"notes": notes}] if notes else []),
        {"heading": "What each key brings", "table": keys, "caption": _key_caption(answer)},
    ]
    caption = interaction_remark(answer)
    if caption is not None:
        pairs = _cells(pair_table(answer), ("pair", "share", "decades"))
        sections.append({"heading": "Interactions", "table": pairs, "caption": caption})
    if answer["attributable"]:
        sections += [
            {"heading": "Necessary and sufficient", "table": _sets(answer), "caption": rule_remark(answer)},
            {"heading": "Repair", "commands": _repairs(answer)},
        ]
    picture = (
        "above: each key's share, and its decades where the effective learning rate is known; below: each combination "
        "a column, its filled dots the keys taken from the working side, under its mean over the seeds"
    )
    trained = f"{answer['metric']}: mean over the seeds at the end; recovered: part of the way from failing to working"
    return [
        *sections,
        {"heading": "Figure", "picture": FIGURE, "caption": picture},
        {
            "heading": "Combinations",
            "table": _cells(combination_table(answer)),
            "caption": f"{trained}; {design_remark(answer)}",
        },
    ]


def _cells(table: Table, order: Sequence[str] = ()) -> Cells:
    """Return a table of the terminal as headings and rows of texts; `order` are the columns to be shown, if not all."""
    rows, columns = table
    if order:
        columns = sorted((column for column in columns if column.key in order), key=lambda each: order.index(each.key))
    return [column.heading for column in columns], [[column.cell(row) for column in columns] for row in rows]


def _key_caption(answer: Answer) -> str:
    """Return what the numbers of a key are, what they add up to, and how their intervals were obtained."""
    pairs = answer["design"]["pairs"]
    orders = "all orders" if pairs is None else f"{pairs} random orders, and their reverses,"
    told = []
    if answer["shares"] is not None:
        whole = amount(answer["shares"]["whole"])
        told.append(f"share: of the improvement in {answer['metric']}, {whole} in all")
    if answer["decades"] is not None:
        whole = decades({"contribution": answer["decades"]["whole"]})
        told.append(f"decades: of log10 of the effective learning rate, {whole} in all")
    if not told:
        return ""
    value = f"each is a Shapley value, what a change adds on average over {orders} in which the keys can be changed"
    return f"{'; '.join(told)}; {value}; in brackets: intervals over {len(answer['seeds'])} seeds, {method(answer)}"


def _sets(answer: Answer) -> Cells:
    """Return the necessary keys, the sufficient ones and the minimal sufficient sets, each with its meaning."""
    return ["", "keys", "meaning"], [
        ["necessary", _judged(answer, answer["necessary"]), "without its change the working side no longer works"],
        ["sufficient alone", _judged(answer, answer["sufficient"]), "its change alone repairs the failing side"],
        ["minimal sufficient", minimal_names(answer), "repairs, and no part of it was found to"],
    ]


def _judged(answer: Answer, verdicts: Mapping[str, bool | None]) -> str:
    """Return the keys of which something holds, and those of which it is undecided."""
    holds = [key for key, verdict in verdicts.items() if verdict]
    open_ = [key for key, verdict in verdicts.items() if verdict is None]
    text = set_name(answer, holds) if holds else "none"
    return f"{text}; undecided: {set_name(answer, open_)}" if open_ else text


def _repairs(answer: Answer) -> list[tuple[str, str]]:
    """Return each minimal set with the command that trains it."""
    return [
        (f"repaired by {set_name(answer, found['keys'])}", shlex.join(found["command"]))
        for found in answer["minimal_sets"]
    ]
