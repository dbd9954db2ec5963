"""Why members of a sweep did not train, as their own diagnoses have found it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from optexp.diagnosis.outcome import NOTHING_WRONG

NO_CAUSE = "without a clear cause"


def diagnosed(outcome: Any, causes: Any) -> dict[str, str]:
    """Return the columns of a member from its run.json: outcome, and the likeliest cause where one was found."""
    columns = {"outcome": str(outcome)} if outcome else {}
    return columns | ({"cause": str(causes[0])} if causes else {})


def needs_explaining(row: Mapping[str, Any]) -> bool:
    """Return whether a row is that of a member which did not train well."""
    return row.get("outcome", "unknown") not in NOTHING_WRONG


def causes_counted(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return `6 did not train well: 4 step-too-small, 2 step-too-large`, the most frequent first; or nothing."""
    counts = Counter(row.get("cause", NO_CAUSE) for row in rows if needs_explaining(row))
    if not counts:
        return ""
    causes = ", ".join(f"{count} {cause}" for cause, count in counts.most_common())
    return f"{counts.total()} did not train well: {causes}"
