"""The machine a training runs on: device, precision, and the signals that interrupt it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from optexp.errors import BadInput

# MKL's products else round a member's numbers by where it lies in memory (at a multiple of 16 bytes or not), and that
# changes when others are dropped. MKL reads this before the first product of a process. It costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO")


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


def is_small(flops_per_step: float | None) -> bool:
    """Return whether a training step is too small for a second thread."""
    return flops_per_step is not None and flops_per_step < SMALL_STEP


def prepare(device: torch.device, threads: int | None, flops_per_step: float | None) -> None:
    """Set what torch keeps for the whole process, before a training of steps of this size."""
    use_threads(threads, flops_per_step)
    if device.type == "cuda":  # all batches have one shape: cuDNN's search for its fastest kernels pays
        torch.backends.cudnn.benchmark = True


def use_threads(wanted: int | None, flops_per_step: float | None) -> None:
    """Set the number of CPU threads for `engine.threads`; null: one for a small step, else as many as torch found.

    Threads of a small step wait for each other at every operation. On an idle machine a second one may save a third
    of the time; when another process wants the core, the waiting makes every step many times slower.
    """
    torch.set_num_threads(wanted or (1 if is_small(flops_per_step) else ALL_THREADS))


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Let this process keep the memory that tensors give back, for the tensors of the next step.

    glibc returns blocks of some megabytes to the system at once, and getting them anew costs a page fault for every
    four kilobytes: a fifth of a step of 64 small models. Nothing is done where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def describe(device: torch.device) -> str:
    """Return the device as it is recorded: `cpu (2 threads)` or the name of the GPU."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'s' * (threads > 1)})"
    return device.type


class Precision:
    """What `engine.precision` means: autocast (bf16, fp16), loss scaling (fp16), or another type throughout (fp64)."""

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise BadInput("engine.precision=bf16: this GPU has no bf16; allowed are fp32 and fp16")
        if name == "fp64" and device.type == "mps":
            raise BadInput("engine.precision=fp64: this device has no 64-bit numbers; allowed are fp32, bf16 and fp16")
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
        self.parameter_dtype = torch.float64 if name == "fp64" else torch.float32
        self.device_type = device.type
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def cast(self, tensor: Tensor) -> Tensor:
        """Return numbers of a batch in the type of the parameters; integers (tokens, classes) stay what they are."""
        return tensor.to(self.parameter_dtype) if tensor.is_floating_point() else tensor

    def autocast(self) -> Any:
        """Return the context in which the forward pass runs."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)


class Interruption:
    """Turns SIGINT, SIGTERM and SIGHUP into a request to stop at the next step; a second signal stops at once.

    What this process was started to ignore (SIGHUP under nohup) stays ignored.
    """

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
        listened = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        try:
            before = {number: signal.signal(number, self._receive) for number in listened}
        except ValueError:  # not in the main thread: signals are somebody else's
            yield self
            return
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
