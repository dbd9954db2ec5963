"""Which steps to look at, without knowing how long the training will be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from optexp.instruments.look import Look, sizes_gap, spaced

PROBES = 3
"""Between two probes lies at least this part of the steps so far, a third."""


def looks(every: int, probe_every: int | None, last: int | None) -> Iterator[tuple[int, Look]]:
    """Yield the steps (from 1) to look at, and what to measure of each, without an end.

    Measured are the first step and every `every`-th, later fewer, as in runs of optexp. Of these, about every
    `probe_every`-th step is compared with the one before, more often in the beginning, each about twice as late as the
    one before. The `last` step is both.
    """
    rows = spaced(count(every, every), sizes_gap) if every > 1 else spaced(count(2), sizes_gap)
    row, probe, next_probe = 1, False, 2
    following = next(rows)
    while True:
        if last is not None and row < last < following:
            after = last
        else:
            after, following = following, next(rows)
        compared = probe_every is not None and (after >= next_probe or after == last)
        if compared and probe_every is not None:
            next_probe = after + min(after, max(probe_every, after // PROBES))
        adjacent = after == row + 1
        yield row, Look(sizes=True, remember=compared and adjacent, probe=probe)
        if compared and not adjacent:
            yield after - 1, Look(remember=True)
        row, probe = after, compared
