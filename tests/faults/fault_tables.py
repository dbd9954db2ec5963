"""What the benchmark of planted faults prints, and the part of docs/diagnosis.md that shows it: Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import scoring
from plants import STEP_CAUSES
from scoring import NOTHING, Answer, Share

from optexp.diagnosis.causes import CAUSES
from optexp.errors import BadInput

BEGIN, END = "<!-- planted faults: begin -->", "<!-- planted faults: end -->"


@dataclass(frozen=True)
class Outcome:
    """The diagnoses of the runs of some families; `dropped` counts the plants that were dropped, by cause."""

    title: str
    families: Sequence[str]
    answers: list[Answer]
    dropped: dict[str, int]


def page(outcomes: Sequence[Outcome], detailed: Sequence[Outcome]) -> str:
    """Return a table of all, and then all tables of each of the detailed ones."""
    return "\n".join([_summary(outcomes) + "\n", *map(shown, detailed)])


def _summary(outcomes: Sequence[Outcome]) -> str:
    header = ["", "first finding right (top 1)", "one of the first two right (top 2)", "false alarms on healthy runs"]
    rows = [
        [
            f"{outcome.title} ({', '.join(outcome.families)})",
            percent(scoring.top(outcome.answers, 1)),
            percent(scoring.top(outcome.answers, 2)),
            percent(scoring.false_alarms(outcome.answers)),
        ]
        for outcome in outcomes
    ]
    return _table(header, rows) + "\n\nShares with 95 % intervals of Wilson."


def shown(outcome: Outcome) -> str:
    """Return all tables of some families."""
    answers = outcome.answers
    faulty = sum(answer.cause is not None for answer in answers)
    dropped = ", ".join(f"{number} {cause}" for cause, number in outcome.dropped.items()) or "none"
    parts = [
        f"### {outcome.title}: {', '.join(outcome.families)}",
        f"{faulty} faulty and {len(answers) - faulty} healthy runs. Dropped because the fault did no harm or the "
        f"healthy run did not train: {dropped}.",
        "True cause (rows) and first finding (columns), number of runs:",
        _confusion(answers),
        _by_cause(answers),
        "Confidence against the share of findings that are right:",
        _reliability(answers),
    ]
    return "\n\n".join(parts) + "\n"


def percent(share: Share) -> str:
    """Return `93 % (88 to 96, n = 120)`."""
    if share.value is None or share.interval is None:
        return "–"
    low, high = share.interval
    return f"{100 * share.value:.1f} % ({100 * low:.0f} to {100 * high:.0f}, n = {share.of})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _confusion(answers: Sequence[Answer]) -> str:
    counts = scoring.confusion(answers)
    names = [*CAUSES, NOTHING]
    present = {name for pair in counts for name in pair}
    names = [name for name in names if name in present]
    number = {name: str(place) for place, name in enumerate(names, start=1)}
    header = ["", *(number[name] for name in names)]
    rows = [
        [f"{number[true]} {'healthy' if true == NOTHING else true}"]
        + [str(counts.get((true, found), "·")) for found in names]
        for true in names
        if any(pair[0] == true for pair in counts)
    ]
    found_only = [name for name in names if not any(pair[0] == name for pair in counts)]
    legend = "".join(f"\n\nColumn {number[name]} is {name}." for name in found_only)
    return _table(header, rows) + legend


def _by_cause(answers: Sequence[Answer]) -> str:
    rows = []
    for cause in CAUSES:
        recall, precision = scoring.recall(answers, cause), scoring.precision(answers, cause)
        if recall.of or precision.of:
            errors = scoring.decade_errors(answers, cause) if cause in STEP_CAUSES else None
            size = "" if errors is None or errors.median is None else f"{errors.median:.2f}, {errors.largest:.2f}"
            within = "" if errors is None or not errors.within.of else f"{errors.within.hits} of {errors.within.of}"
            rows.append([cause, _plain(recall), _plain(precision), size, within])
    return _table(["cause", "recall", "precision", "error in decades: median, largest", "within 0.5"], rows)


def _plain(share: Share) -> str:
    return f"{share.hits}/{share.of} = {share.value:.2f}" if share.value is not None else "–"


def _reliability(answers: Sequence[Answer]) -> str:
    bins = scoring.reliability(answers)
    rows = [
        [
            f"{'below ' if not place else f'{each.low:g} to '}{each.high:g}",
            f"{each.confidence:.2f}",
            percent(each.right),
        ]
        for place, each in enumerate(bins)
        if each.confidence is not None
    ]
    error = scoring.calibration_error(bins)
    mean = "" if error is None else f"\n\nMean distance of confidence from share: {error:.3f}."
    return _table(["confidence", "mean", "right"], rows) + mean


def into_page(page: str, text: str) -> str:
    """Return a page with the part between its two marks replaced; raises BadInput when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"--page: the page has no '{BEGIN}' followed by '{END}'")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"
