"""Checkpoints that survive a crash and admit no silent damage.

A checkpoint is one safetensors file (tensors, and the rest of the state as JSON in its metadata; no pickle) and a
small manifest naming it with its SHA-256. `last.json`, `previous.json` and `best.json` are such manifests. The order
of writing, after SQLite's and ALICE's lessons (Pillai et al., OSDI 2014): data file to a temporary name, fsync,
rename, fsync of the folder; then the manifests, and one more fsync of the folder; then files that no manifest names are
deleted. At every moment at least one complete checkpoint can be read.

Training waits for a copy of the state in memory and not for the disk: hashing and writing happen on other threads.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from optexp.errors import BadInput, StorageError
from optexp.records.files import in_background, write_atomically

Tree = dict[str, Any]
_TENSOR = "__tensor__"
DAMAGE = (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError)
"""What reading a file that is not what it should be may raise."""

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the safetensors format calls the types of elements (its README, section "Format")."""


_PLAIN = frozenset((str, int, float, bool, type(None)))


def pack(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Move the tensors of a tree of dicts, lists and plain values into `tensors`; return the rest, ready for JSON."""
    inside = f"{path}/" if path else ""
    if isinstance(tree, dict):
        packed = {}
        for key, value in tree.items():
            if not isinstance(key, str):
                raise TypeError(f"cannot save '{path}': its keys must be strings")
            packed[key] = value if type(value) in _PLAIN else pack(value, tensors, inside + key)
        return packed
    if isinstance(tree, Tensor):
        tensors[path] = tree
        return {_TENSOR: path}
    if isinstance(tree, list | tuple):
        return [
            value if type(value) in _PLAIN else pack(value, tensors, f"{inside}{index}")
            for index, value in enumerate(tree)
        ]
    if isinstance(tree, str | int | float | None):
        return tree
    raise TypeError(f"cannot save '{path}': a {type(tree).__name__} is neither a tensor nor a plain value")


def unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo `pack`; tuples come back as lists."""
    if isinstance(tree, dict):
        if set(tree) == {_TENSOR}:
            return tensors[tree[_TENSOR]]
        return {key: unpack(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    return tree


@dataclass(frozen=True)
class _Layout:
    """How the tensors of a state lie in a file: all of a type together, and wide elements first, so that each begins at
    a multiple of its element size.
    """

    groups: tuple[tuple[torch.dtype, int, int, tuple[str, ...]], ...]  # type, first and last byte, names in order
    entries: str  # JSON of the header, without the braces
    size: int  # bytes


@lru_cache(maxsize=16)
def _layout(tensors: tuple[tuple[str, torch.dtype, torch.Size], ...]) -> _Layout:
    """Return the layout of tensors of these names, types and shapes; it is the same for every checkpoint of a run."""
    for name, dtype, _ in tensors:
        if dtype not in _DTYPES:
            raise TypeError(f"cannot save '{name}': its elements are {dtype}")
    entries, groups, end = {}, [], 0
    in_order = sorted(tensors, key=lambda tensor: (-tensor[1].itemsize, _DTYPES[tensor[1]]))
    for dtype, group in groupby(in_order, key=lambda tensor: tensor[1]):
        members, first = tuple(group), end
        for name, _, shape in members:
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            entries[name] = {"dtype": _DTYPES[dtype], "shape": [*shape], "data_offsets": [begin, end]}
        groups.append((dtype, first, end, tuple(name for name, _, _ in members)))
    return _Layout(tuple(groups), json.dumps(entries)[1:-1], end)


@dataclass(frozen=True)
class Snapshot:
    """A state as it was at one moment: the bytes of a safetensors file.

    They are laid out here, because the library's own `safetensors.torch.save` takes three times as long and copies the
    tensors once more; it reads them.
    """

    step: int
    file: Tensor  # bytes on the host

    @classmethod
    @torch.no_grad()
    def take(cls, step: int, tree: Tree) -> Snapshot:
        """Copy a state to the host; it may change as soon as this returns. Waits for a device that holds some of it."""
        tensors: dict[str, Tensor] = {}
        metadata = json.dumps({"tree": json.dumps(pack(tree, tensors)), "step": str(step)})
        layout = _layout(tuple((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()))
        header = f'{{"__metadata__": {metadata}{", " if tensors else ""}{layout.entries}}}'.encode()
        header += b" " * (-len(header) % 8)
        start = 8 + len(header)
        pinned = any(tensor.is_cuda for tensor in tensors.values())
        file = torch.empty(start + layout.size, dtype=torch.uint8, pin_memory=pinned)
        file.numpy()[:start] = memoryview(len(header).to_bytes(8, "little") + header)
        devices = set()
        for dtype, begin, end, names in layout.groups:
            room = file[start + begin : start + end].view(dtype)
            flat = [tensors[name].reshape(-1) for name in names]
            if all(tensor.is_cpu for tensor in flat):
                torch.cat(flat, out=room)
                continue
            for part, tensor in zip(room.split([len(tensor) for tensor in flat]), flat, strict=True):
                part.copy_(tensor, non_blocking=True)
                devices.add(tensor.device)
        for device in devices - {torch.device("cpu")}:
            torch.accelerator.synchronize(device)
        return cls(step, file)


_DATA_FILE = re.compile(r"step-[\w-]+\.safetensors")
_LEFT_BEHIND = re.compile(r"\.step-[\w-]+\.safetensors\.tmp")
_SPARE = ".step-next.safetensors.tmp"
"""What the next data file is written over while a run goes on: one that no manifest names any more. A save takes a
quarter less time so, because the space on the disk need not be given back and taken again.
"""
_pending: dict[str, Future[None]] = {}
"""Folder to the save that is not known to be finished; at most one, so that saves of a run keep their order."""


class Checkpoints:
    """The folder `checkpoints/` of a run directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = os.path.abspath(folder)
        self._named: dict[str, str | None] | None = None  # manifest to file, once this object has written one
        self._damaged: set[str] = set()  # manifests of checkpoints that could not be read

    def save(self, step: int, tree: Tree, names: Sequence[str]) -> None:
        """Take the state after `step` steps and write it under the given names: `last` (which moves the old one to
        `previous`) or `best`. Returns when the state is copied; `wait` returns when it is on the disk.

        Waits for the save before, and raises StorageError when that one failed; what was there before it can then
        still be read.
        """
        self._settle()
        snapshot = Snapshot.take(step, tree)
        _pending[self._path] = in_background(partial(self._write, snapshot, tuple(names)))

    def wait(self) -> None:
        """Return when everything saved is on the disk for good. Raises StorageError when it could not be written."""
        self._settle()
        if self._named is not None:
            with contextlib.suppress(OSError):  # then the next save deletes it
                os.unlink(f"{self._path}/{_SPARE}")

    def _settle(self) -> None:
        """Do what `wait` does, but keep the spare file for the next save."""
        future = _pending.get(self._path)
        if future is None:
            return
        try:
            future.result()
        finally:
            if future.done():
                _pending.pop(self._path, None)

    def _write(self, snapshot: Snapshot, names: Sequence[str]) -> None:
        """Write a snapshot, on another thread.

        Training goes on meanwhile, but not while this thread executes Python or waits to do so again after a call of
        the system. So it makes few of both.
        """
        data = snapshot.file.numpy().data
        sha256 = hashlib.sha256(data).hexdigest()
        file = f"step-{snapshot.step:08d}-{sha256[:8]}.safetensors"
        text = (
            f'{{"format": 1, "step": {snapshot.step}, "file": "{file}", "bytes": {len(data)}, "sha256": "{sha256}"}}'
        ).encode()
        path = self._path
        try:
            before = self._manifests() if self._named is None else self._named
            named, self._named = dict(before), None
            folder = os.open(path, os.O_RDONLY)
            try:
                write_atomically(f"{path}/{file}", data, sync_name=False, temporary=f"{path}/{_SPARE}")
                os.fsync(folder)
                for name in names:
                    if name == "last" and named.get("last"):
                        # Until `last` is written, `previous` is the last one.
                        os.replace(f"{path}/last.json", f"{path}/previous.json")
                        named["previous"] = named["last"]
                    write_atomically(f"{path}/{name}.json", text, sync_name=False)
                    named[name] = file
                os.fsync(folder)
            finally:
                os.close(folder)
            if None not in named.values():  # else who knows which file the damaged one named
                for unnamed in {*before.values()} - {*named.values(), None}:
                    with contextlib.suppress(FileNotFoundError):
                        if os.stat(f"{path}/{unnamed}").st_nlink == 1:
                            os.replace(f"{path}/{unnamed}", f"{path}/{_SPARE}")
                        else:  # somebody keeps its content under another name
                            os.unlink(f"{path}/{unnamed}")
        except OSError as error:
            raise StorageError(f"cannot write the checkpoint to {self.folder}: {error.strerror or error}") from error
        self._named = named
        self._damaged.clear()

    def _manifests(self) -> dict[str, str | None]:
        """Return which file each manifest names, None where it is damaged, and delete what a crash has left."""
        os.makedirs(self._path, exist_ok=True)
        named: dict[str, str | None] = {}
        for path in self.folder.glob("*.json"):
            try:
                file = json.loads(path.read_text())["file"]
                intact = path.stem not in self._damaged and _DATA_FILE.fullmatch(file)
            except (ValueError, KeyError, TypeError):
                intact = None
            named[path.stem] = file if intact else None
        if None not in named.values():
            for file in os.listdir(self._path):
                if (_DATA_FILE.fullmatch(file) or _LEFT_BEHIND.fullmatch(file)) and file not in named.values():
                    os.unlink(f"{self._path}/{file}")
        return named

    def load(self, name: str = "last", notice: Callable[[str], None] | None = None) -> tuple[int, Tree] | None:
        """Return (step, tree) of a checkpoint, or None when there is none.

        When `last` is damaged, `previous` is read instead and `notice` gets a line that says so; BadInput when no
        intact one is left.
        """
        if (future := _pending.get(self._path)) is not None:
            concurrent.futures.wait([future])  # what it raised is for the one who saves
        candidates = [name, "previous"] if name == "last" else [name]
        problems = []
        for candidate in candidates:
            manifest = self.folder / f"{candidate}.json"
            if not manifest.is_file():
                continue
            try:
                loaded = read(manifest)
            except DAMAGE as error:
                self._damaged.add(candidate)
                self._named = None
                problems.append(f"checkpoint {manifest} is damaged ({str(error).splitlines()[0]})")
                continue
            if problems and notice is not None:
                notice(f"{problems[0]}; using '{candidate}', step {loaded[0]}")
            return loaded
        if problems:
            raise BadInput(f"{problems[0]}, and there is no intact one beside it")
        return None


def read(manifest: Path) -> tuple[int, Tree]:
    """Read the checkpoint a manifest names; ValueError when its size or SHA-256 is not the recorded one."""
    recorded = json.loads(manifest.read_text())
    data = (manifest.parent / Path(recorded["file"]).name).read_bytes()
    if len(data) != recorded["bytes"] or hashlib.sha256(data).hexdigest() != recorded["sha256"]:
        raise ValueError("its content does not match its SHA-256")
    header_size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + header_size])["__metadata__"]
    return int(metadata["step"]), unpack(json.loads(metadata["tree"]), safetensors.torch.load(data))


def weights_of(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return (which checkpoint, model tensors) for `engine.init_from`: a run directory (its best, else its last
    checkpoint) or one manifest such as `checkpoints/best.json`. Raises BadInput when there is none.
    """
    if path.suffix == ".json" and path.is_file():
        try:
            return str(path), read(path)[1]["program"]["model"]
        except DAMAGE as error:
            raise BadInput(f"engine.init_from={path}: {str(error).splitlines()[0]}") from None
    for name in ("best", "last"):
        loaded = Checkpoints(path / "checkpoints").load(name)
        if loaded is not None:
            return f"{path} ({name}, step {loaded[0]})", loaded[1]["program"]["model"]
    raise BadInput(f"engine.init_from={path}: no checkpoint there; give a run directory or a checkpoints/*.json")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether every element of tensors on one device is finite (one synchronization, when they are)."""
    floats = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
    floats = [tensor for tensor in floats if tensor.is_floating_point()]
    # One nan or infinite number makes a sum so, and sums take a tenth of the time. A sum may also overflow.
    if not floats or math.isfinite(torch.stack([tensor.sum(dtype=torch.float32) for tensor in floats]).sum()):
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in floats)
