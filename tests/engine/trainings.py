"""Small trainings for the tests of the engine, built from the shipped configuration."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optexp.assemble import Training, assemble, sibling
from optexp.config.compose import Composer
from optexp.engine.checkpoint import Checkpoints
from optexp.engine.loop import Ending, Member, Row, train
from optexp.engine.runtime import Interruption
from optexp.tasks import check_composed

OPTIONS = str(Path(__file__).parent / "conf")
"""A folder of groups as users have them."""


class Rows:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def log(self, row: Row) -> None:
        self.rows.append(dict(row))

    def flush(self) -> None:
        assert [row["step"] for row in self.rows] == sorted(row["step"] for row in self.rows)

    def series(self, tag: str) -> list[float]:
        return [row[tag] for row in self.rows if tag in row]

    def without_times(self) -> list[Row]:
        return [{key: value for key, value in row.items() if not key.startswith("time")} for row in self.rows]


@functools.cache
def composer() -> Composer:
    """Return the composer of all tests of a process, which remembers what it has read."""
    return Composer(OPTIONS)


def assembled(*words: str, **nodes: dict[str, Any]) -> Training:
    """Compose, check and assemble a training from override words; `nodes` replace whole groups."""
    composed = composer().compose(words)
    composed.config.update(nodes)
    return assemble(composed.config, check_composed(composed), composed.choices)


def group(common: Sequence[str], variants: Sequence[Sequence[str]], **nodes: dict[str, Any]) -> list[Training]:
    """Assemble runs that differ in `variants` only, as a sweep does: the first in full, the others as its siblings."""
    trainings: list[Training] = []
    for variant in variants:
        composed = composer().compose([*common, *variant])
        composed.config.update(nodes)
        engine = check_composed(composed)
        if trainings:
            trainings.append(sibling(trainings[0], composed.config, engine, composed.choices))
        else:
            trainings.append(assemble(composed.config, engine, composed.choices))
    return trainings


def member_of(training: Training, checkpoints: Checkpoints | None = None) -> tuple[Member, Rows]:
    rows = Rows()
    return Member(training.schedule, training.base_lr, [rows], checkpoints), rows


def trained(training: Training, **changes: Any) -> tuple[Ending, Member, Rows]:
    """Run the loop over a training and return how it ended, its member and what was logged."""
    member, rows = member_of(training, changes.pop("checkpoints", None))
    interruption = changes.pop("interruption", Interruption())
    train(training.program, [member], training.plan, training.validation, interruption, **changes)
    assert member.ending is not None
    return member.ending, member, rows
