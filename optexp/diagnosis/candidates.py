"""A cause before it is weighed against the others."""

from __future__ import annotations

from dataclasses import dataclass

from optexp.diagnosis.account import Account
from optexp.diagnosis.history import History
from optexp.diagnosis.measures import Measures
from optexp.diagnosis.outcome import Outcome


@dataclass(frozen=True)
class Candidate:
    """A possible cause. `score` is in decades where that has a meaning, 0 where it is as likely as not."""

    cause: str
    score: float
    evidence: tuple[str, ...]
    prescription: tuple[str, ...] = ()
    decades: float | None = None


@dataclass(frozen=True)
class Case:
    """What every cause is judged by."""

    history: History
    measures: Measures
    outcome: Outcome
    account: Account | None
