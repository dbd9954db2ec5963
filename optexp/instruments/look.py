"""What to measure of an optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Look:
    """The parts of a measurement; a probe compares a step with the one before, which had to be remembered."""

    sizes: bool = False  # norms of gradient, weights and update
    remember: bool = False  # keep gradient and update for the next step's probe
    probe: bool = False  # compare with the step before; sizes go with it

    NOTHING: ClassVar[Look]
    SIZES: ClassVar[Look]

    @property
    def looks(self) -> bool:
        """Whether there is anything to measure."""
        return self.sizes or self.remember or self.probe

    @property
    def compares(self) -> bool:
        """Whether two successive steps are looked at, of which this is one."""
        return self.remember or self.probe


Look.NOTHING = Look()
Look.SIZES = Look(sizes=True)
