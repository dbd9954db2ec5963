"""Numbers on their way between host and device, for which neither waits.

A step that was captured (see engine/graphs.py) repeats what the device did, in the same memory; the Python code between
is not run again. Code that computes numbers on the host anew at every step therefore hands them over as a function, by
`to_device`: it is called at once, and, where the step is being captured, again before every replay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_ROOM = 1 << 16  # bytes of all host numbers of a step
_ALIGNED = 16


def to_device(compute: Callable[[], Tensor], device: torch.device) -> Tensor:
    """Return the tensor that `compute` returns, on the device.

    To CUDA it travels from pinned memory, and the host does not wait. While a step is being captured, the result is a
    fixed place on the device, which `HostNumbers.send` fills before each replay with what `compute` returns then.
    """
    if _captured is not None:
        return _captured.place(compute)
    value = compute()
    if value.device == device:
        return value
    return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)


def capturing() -> bool:
    """Return whether a step is being captured: its host numbers must go through `to_device`."""
    return _captured is not None


@dataclass
class _Place:
    """Where the value of a function belongs: on the device, and, for a value of the host, in what is sent there."""

    compute: Callable[[], Tensor]
    value: Tensor
    on_device: Tensor
    on_host: Tensor | None


class HostNumbers:
    """What the host computes for one captured step: sent to the device in one copy, however many numbers there are."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._places: list[_Place] = []
        self._host = torch.zeros(_ROOM, dtype=torch.uint8)
        self._there = torch.zeros(_ROOM, dtype=torch.uint8, device=device)
        self._used = 0
        self._found: int | None = None  # how many places were found again

    @contextlib.contextmanager
    def placed(self, again: bool = False) -> Iterator[None]:
        """Let `to_device` return fixed places inside the `with` block.

        The first time they are made and filled. `again` they are found in the same order, and nothing is computed: a
        step that is being captured may neither ask the host nor take memory that outlives it.
        """
        global _captured
        if _captured is not None:
            raise RuntimeError("a step is already being captured")
        self._found = 0 if again else None
        _captured = self
        try:
            yield
        finally:
            _captured = None

    def place(self, compute: Callable[[], Tensor]) -> Tensor:
        """Return the place on the device for the value of `compute`. Raises RuntimeError where there is none."""
        if self._found is not None:
            if self._found == len(self._places):
                raise RuntimeError("the host computes other numbers than in the step before")
            self._found += 1
            return self._places[self._found - 1].on_device
        value = compute()
        if value.device == self._device and self._device.type != "cpu":
            place = _Place(compute, value, torch.empty_like(value), None)
        else:
            end = self._used + value.nbytes
            if end > _ROOM:
                raise RuntimeError(f"the host computes more than {_ROOM} bytes for each step")
            host, there = (
                room[self._used : end].view(value.dtype).view(value.shape) for room in (self._host, self._there)
            )
            place = _Place(compute, value, there, host)
            self._used = -(-end // _ALIGNED) * _ALIGNED
        place.on_device.copy_(value)
        self._places.append(place)
        return place.on_device

    def compute(self) -> None:
        """Call all functions anew, in the order in which they came."""
        for place in self._places:
            place.value = place.compute()

    def send(self) -> None:
        """Send the present values to their places."""
        for place in self._places:
            (place.on_device if place.on_host is None else place.on_host).copy_(place.value)
        if self._used:
            sent = self._host[: self._used]
            if self._device.type == "cuda":  # memory of its own for each step: the device may be some steps behind
                sent = sent.pin_memory()
            self._there[: self._used].copy_(sent, non_blocking=True)


_captured: HostNumbers | None = None


class ToHost:
    """Tensors on their way to the host, in one copy. They are taken as they are now, whatever becomes of them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._shapes = [tensor.shape for tensor in tensors]
        dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
        self._packed = torch.cat([tensor.reshape(-1).to(dtype) for tensor in tensors])
        self._event: torch.cuda.Event | None = None
        if self._packed.is_cuda:
            pinned = torch.empty_like(self._packed, device="cpu", pin_memory=True)
            self._packed = pinned.copy_(self._packed, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def arrived(self) -> bool:
        """Return whether `tensors` would not wait."""
        return self._event is None or self._event.query()

    def tensors(self) -> list[Tensor]:
        """Return the tensors on the host, in single or double precision."""
        if self._event is not None:
            self._event.synchronize()
        parts = self._packed.cpu().split([shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
