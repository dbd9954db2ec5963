"""The machine a training runs on: device, precision, and the signals that interrupt it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

from optexp.errors import BadInput


def choose_device(name: str) -> torch.device:
    """Return the device for `engine.device`; raises BadInput when the machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    elif name == "cuda" and not torch.cuda.is_available():
        raise BadInput("engine.device=cuda: no CUDA device is available here; allowed are auto and cpu")
    elif name == "mps" and not torch.backends.mps.is_available():
        raise BadInput("engine.device=mps: no Apple GPU is available here; allowed are auto and cpu")
    return torch.device(name)


ALL_THREADS = torch.get_num_threads()
SMALL_STEP = 1e9
"""FLOPs of a training step below which a second thread gains little."""


def use_threads(wanted: int | None, flops_per_step: float | None) -> None:
    """Set the number of CPU threads for `engine.threads`; null: one for a small step, else as many as torch found.

    Threads of a small step wait for each other at every operation. On an idle machine a second one may save a third
    of the time; when another process wants the core, the waiting makes every step many times slower.
    """
    small = flops_per_step is not None and flops_per_step < SMALL_STEP
    torch.set_num_threads(wanted or (1 if small else ALL_THREADS))


def describe(device: torch.device) -> str:
    """Return the device as it is recorded: `cpu (2 threads)` or the name of the GPU."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'s' * (threads > 1)})"
    return device.type


class Precision:
    """Autocast and loss scaling for `engine.precision`: fp32, bf16 or fp16."""

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise BadInput("engine.precision=bf16: this GPU has no bf16; allowed are fp32 and fp16")
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self.device_type = device.type
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> Any:
        """Return the context in which the forward pass runs."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)


class Interruption:
    """Turns SIGINT, SIGTERM and SIGHUP into a request to stop at the next step; a second signal stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = signal.Signals(number)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Interruption]:
        """Handle the signals inside the `with` block; does nothing outside the main thread."""
        try:
            before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        except ValueError:  # not in the main thread: signals are somebody else's
            yield self
            return
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
