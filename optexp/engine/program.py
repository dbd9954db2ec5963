"""A program takes optimizer steps. The loop drives it and does not know how many runs it trains at once.

`single.SingleRun` trains one, `fused.FusedRuns` several members in one go; both answer the same calls, with one entry
per member.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from optexp.datasets.batches import EvalBatches
from optexp.engine.guard import Divergence
from optexp.engine.step_log import Reading
from optexp.instruments.look import Look

Tree = dict[str, Any]


class Program(Protocol):
    """What the loop needs from whatever takes the steps. Lists have one entry per member, in a fixed order."""

    @property
    def divergences(self) -> dict[int, Divergence]:
        """The members that met a non-finite value, by index. Their weights are those before that step."""

    def step(self, step: int, learning_rates: Sequence[float], look: Look = Look.NOTHING) -> Sequence[int]:
        """Take optimizer step `step` (from 0); `look` asks for the instruments that are not free.

        Returns the members that are known to have diverged at this step: they were not updated. Where that would make
        the host wait for the device, it is empty, and `read` finds out.
        """

    def read(self, members: Sequence[int]) -> Reading:
        """Ask for the training metrics of the given members since the last reading, without waiting for the device.

        Its rows enter divergences as they arrive. Members other than all that are left are asked for when they have
        diverged, and dropped next; the others' metrics go on.
        """

    def evaluate(self, batches: EvalBatches) -> list[dict[str, float]]:
        """Return loss (and accuracy) over a whole split, in evaluation mode."""

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members only. They are numbered anew, from 0, in this order."""

    def state(self, member: int) -> Tree:
        """Return everything a member needs to go on as if it had never stopped."""

    def load_state(self, member: int, tree: Tree) -> None:
        """Take the state that `state` returned."""
