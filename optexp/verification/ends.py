"""How the members of a verification ended, and the number by which each is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev

from optexp.attribution.outcomes import final_metric, trivial_loss
from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.history import History
from optexp.records.reading import read_run
from optexp.records.run_directory import RUN_FILE
from optexp.sweeps.record import MemberRecord

LAST_PART = 0.2
"""Share of the steps over which the spread of the last losses is taken."""

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class End:
    """One member: how it ended, the outcome of its own diagnosis, and its numbers, None where it has none.

    `loss` is val/loss as it counts at the end (see `attribution.outcomes.final_metric`), `trivial` that of a model that
    has learned nothing. `directory` is the run's, below the folder of the verification.
    """

    seed: int
    status: str
    reason: str | None
    outcome: str
    loss: float | None = None
    accuracy: float | None = None
    trivial: float | None = None
    rows: Rows = ()
    directory: str = ""


@dataclass(frozen=True)
class Quantity:
    """What is compared, the lower the better; `of` is None for an end that has none."""

    name: str
    of: Callable[[End], float | None]


def _counted(end: End) -> float | None:
    """Return the loss, at most that of knowing nothing: how much worse than that a failure is depends on chance."""
    return end.loss if end.loss is None or end.trivial is None else min(end.loss, end.trivial)


def _rise(end: End) -> float | None:
    """Return how far the validation loss has risen from its lowest."""
    values = _finite(end.rows, "val/loss")
    return end.loss - min(*values, end.loss) if values and end.loss is not None else None


def _spread(end: End) -> float | None:
    """Return the standard deviation of the last training losses, of at least three rows."""
    first = (1 - LAST_PART) * max((row["step"] for row in end.rows), default=0)
    values = _finite([row for row in end.rows if row["step"] >= first], "train/loss")
    return pstdev(values) if len(values) >= 3 and end.loss is not None else None


LOSS = Quantity("val/loss", _counted)
UNBOUNDED_LOSS = Quantity("val/loss", lambda end: end.loss)
RISE = Quantity("rise of val/loss from its lowest", _rise)
SPREAD = Quantity("spread of the last train/loss", _spread)

BY_CAUSE = {"overfitting": RISE, "late-oscillation": SPREAD}
"""What must improve where the loss at the end is not what the cause is about."""


def end_of(folder: Path, member: MemberRecord) -> End:
    """Read how a member ended from its directory, or from the record of the sweep where it has none."""
    path, seed = folder / member.directory, int(member.swept["seed"])
    if not (path / RUN_FILE).exists():
        return End(seed, member.status, member.reason, "unknown")
    run = read_run(path)
    rows, trivial = run.rows, trivial_loss(run.info.get("baselines") or {})
    loss, accuracy = (final_metric(rows, run.status, tag, trivial) for tag in ("val/loss", "val/accuracy"))
    if not _finite(rows, "val/accuracy"):  # a regression has none, and neither has who diverged before the first
        accuracy = None
    outcome = diagnose(History.of_run(run)).outcome
    return End(seed, run.status, run.info.get("reason"), outcome, loss, accuracy, trivial, rows, path.name)


def _finite(rows: Rows, tag: str) -> list[float]:
    return [row[tag] for row in rows if math.isfinite(row.get(tag, math.nan))]
