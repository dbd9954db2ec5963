"""Loss and gradient norm of the steps since the last reading, and how they reach whoever reads them.

Where reading a number costs nothing (on a CPU) they are kept as numbers. Elsewhere they stay on the device, in a ring
that is copied to the host while the next steps are already being taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from optexp.transfers import ToHost, to_device

Row = dict[str, float]


class Reading:
    """Measurements that have been asked for: one row per member that was."""

    def __init__(self, rows: Callable[[list[Tensor]], list[Row]], tensors: Sequence[Tensor] = ()) -> None:
        """`rows` makes them from the tensors, which travel to the host until then."""
        self._rows = rows
        self._arriving = ToHost(tensors) if tensors else None

    def arrived(self) -> bool:
        """Return whether `rows` would not wait for the device."""
        return self._arriving is None or self._arriving.arrived()

    def rows(self) -> list[Row]:
        """Return the rows; waits for them where they are still on their way."""
        return self._rows(self._arriving.tensors() if self._arriving else [])


class HostLog:
    """Numbers, or a list of numbers with one for each member."""

    def __init__(self) -> None:
        self.first = 1  # the step (from 1) of the first entry
        self.losses: list[Any] = []
        self.norms: list[Any] = []

    def write(self, loss: Any, norm: Any) -> None:
        """Add the entry of a step."""
        self.losses.append(loss)
        self.norms.append(norm)

    def advance(self, step: int) -> None:
        """Note that the entry of step `step` (from 1) is written."""
        if len(self.losses) == 1:
            self.first = step

    def forget(self) -> None:
        self.losses, self.norms = [], []

    def restore(self, first: int, losses: Sequence[Any], norms: Sequence[Any]) -> None:
        """Go on from entries that were read by `losses` and `norms`, the first of them of step `first`."""
        self.first, self.losses, self.norms = first, list(losses), list(norms)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these members, in this order."""
        self.losses, self.norms = (
            [[values[row] for row in rows] for values in of_steps] for of_steps in (self.losses, self.norms)
        )


class DeviceLog:
    """The same as a tensor: float [2, ...] per step, loss and norm of each member."""

    CAPACITY = 1024  # steps

    def __init__(self, like: Tensor, shape: tuple[int, ...] = ()) -> None:
        """`like` is a parameter: of its type and on its device are the numbers. `shape` is (members,) or ()."""
        self.first = 1
        self._ring = torch.zeros((self.CAPACITY, 2, *shape), dtype=like.dtype, device=like.device)
        self._used = 0
        self._full: list[Tensor] = []  # rings that were filled before anybody read them

    def write(self, loss: Any, norm: Any) -> None:
        """Add the entry of a step, made of tensors on the device."""
        place = to_device(lambda: torch.tensor([self._used]), self._ring.device)
        self._ring.index_copy_(0, place, torch.stack([loss, norm]).to(self._ring.dtype).unsqueeze(0))

    def advance(self, step: int) -> None:
        if not self._used and not self._full:
            self.first = step
        self._used += 1
        if self._used == self.CAPACITY:
            self._full.append(self._ring.clone())
            self._used = 0

    def entries(self) -> Tensor:
        """Return the entries, [steps, 2, ...], on the device."""
        return torch.cat([*self._full, self._ring[: self._used]])

    @property
    def losses(self) -> list[Any]:
        """The losses as numbers; waits for the device."""
        found: list[Any] = self.entries()[:, 0].tolist()
        return found

    @property
    def norms(self) -> list[Any]:
        """The norms as numbers; waits for the device."""
        found: list[Any] = self.entries()[:, 1].tolist()
        return found

    def forget(self) -> None:
        self._full, self._used = [], 0

    def restore(self, first: int, losses: Sequence[Any], norms: Sequence[Any]) -> None:
        self.first, self._full, self._used = first, [], 0
        entries = torch.tensor([losses, norms], dtype=self._ring.dtype).transpose(0, 1)
        if len(losses):
            self._full = [entries.to(self._ring.device)]

    def select(self, rows: Sequence[int]) -> None:
        kept = torch.tensor(rows, device=self._ring.device)
        self._ring = self._ring.index_select(2, kept)
        self._full = [ring.index_select(2, kept) for ring in self._full]
