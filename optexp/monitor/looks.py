"""Which steps to look at, without knowing how long the training will be."""

from __future__ import annotations

from collections.abc import Iterator

from optexp.instruments.look import Look

ROWS, PROBES = 14, 3
"""Looks become rarer as a training goes on: about so many in the time it took so far."""


def looks(every: int, probe_every: int | None, last: int | None) -> Iterator[tuple[int, Look]]:
    """Yield the steps (from 1) to look at, and what to measure of each, without an end.

    Measured are the first step and every `every`-th, later fewer: with 10, a thousand steps have 50 and a million 151.
    Of these, about every `probe_every`-th step is compared with the one before, more often in the beginning, each about
    twice as late as the one before. The `last` step is both.
    """
    row, probe, next_probe = 1, False, 2
    while True:
        following = row + every * max(1, row // (ROWS * every)) if row > 1 else max(every, 2)
        if last is not None and row < last < following:
            following = last
        compared = probe_every is not None and (following >= next_probe or following == last)
        if compared and probe_every is not None:
            next_probe = following + min(following, max(probe_every, following // PROBES))
        adjacent = following == row + 1
        yield row, Look(True, compared and adjacent, probe)
        if compared and not adjacent:
            yield following - 1, Look(remember=True)
        row, probe = following, compared
