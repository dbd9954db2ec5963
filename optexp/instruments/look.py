"""What to measure of an optimizer step, and which steps to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Look:
    """The parts of a measurement; a probe compares a step with the one before, which had to be remembered."""

    accuracy: bool = False  # count the correct predictions
    sizes: bool = False  # norms of gradient, weights and update: the ledger
    remember: bool = False  # keep gradient and update for the next step's probe
    probe: bool = False  # compare with the step before; sizes go with it

    NOTHING: ClassVar[Look]

    @property
    def looks(self) -> bool:
        """Whether there is anything to measure of the update."""
        return self.sizes or self.compares

    @property
    def compares(self) -> bool:
        """Whether two successive steps are looked at, of which this is one."""
        return self.remember or self.probe


Look.NOTHING = Look()

ROWS = 10
"""Between two looks at the sizes of steps lies at least this part of the steps so far, a tenth."""


def sizes_gap(step: int) -> int:
    """Return how many steps to let pass after a look at `step`: what changes late in a training changes slowly.

    So looks cost less, the longer a training takes: with one wanted every 10 steps, a thousand steps have 31 and a
    million 103.
    """
    return step // ROWS


def spaced(steps: Iterable[int], gap: Callable[[int], int]) -> Iterator[int]:
    """Yield the first of ascending steps, and each that is at least `gap(last)` behind the last one that was."""
    last: int | None = None
    for step in steps:
        if last is None or step >= last + gap(last):
            yield step
            last = step
