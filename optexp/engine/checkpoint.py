"""Checkpoints that survive a crash and admit no silent damage.

A checkpoint is one safetensors file (tensors, and the rest of the state as JSON in its metadata; no pickle) and a
small manifest naming it with its SHA-256. `last.json`, `previous.json` and `best.json` are such manifests. The order
of writing, after SQLite's and ALICE's lessons (Pillai et al., OSDI 2014): data file to a temporary name, fsync,
rename, fsync of the folder; then the manifests, and one more fsync of the folder; then files that no manifest names are
deleted. At every moment at least one complete checkpoint can be read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from optexp.errors import BadInput, StorageError
from optexp.records.files import sync_folder, write_atomically

Tree = dict[str, Any]
_TENSOR = "__tensor__"
DAMAGE = (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError)
"""What reading a file that is not what it should be may raise."""


def pack(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Move the tensors of a tree of dicts, lists and plain values into `tensors`; return the rest, ready for JSON."""
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().cpu().contiguous()
        return {_TENSOR: path}
    if isinstance(tree, dict):
        if any(not isinstance(key, str) for key in tree):
            raise TypeError(f"cannot save '{path}': its keys must be strings")
        return {key: pack(value, tensors, f"{path}/{key}".lstrip("/")) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [pack(value, tensors, f"{path}/{index}") for index, value in enumerate(tree)]
    if tree is None or isinstance(tree, bool | int | float | str):
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


class Checkpoints:
    """The folder `checkpoints/` of a run directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tree: Tree, names: Sequence[str]) -> None:
        """Write the state after `step` steps under the given names: `last` (which moves the old one to `previous`) or
        `best`. Raises StorageError when the disk fails; what was there before can then still be read.
        """
        tensors: dict[str, Tensor] = {}
        skeleton = pack(tree, tensors)
        # Tied weights share memory, which safetensors refuses; each name gets its own copy.
        seen: set[int] = set()
        for name, tensor in tensors.items():
            if tensor.data_ptr() in seen:
                tensors[name] = tensor.clone()
            seen.add(tensor.data_ptr())
        data = safetensors.torch.save(tensors, metadata={"tree": json.dumps(skeleton), "step": str(step)})
        digest = hashlib.sha256(data).hexdigest()
        file = f"step-{step:08d}-{digest[:8]}.safetensors"
        manifest = {"format": 1, "step": step, "file": file, "bytes": len(data), "sha256": digest}
        try:
            self.folder.mkdir(exist_ok=True)
            write_atomically(self.folder / file, data)
            for name in names:
                target = self.folder / f"{name}.json"
                if name == "last" and target.exists():
                    target.replace(self.folder / "previous.json")  # until the next line, `previous` is the last one
                write_atomically(target, json.dumps(manifest, indent=1).encode(), sync=False)
            sync_folder(self.folder)
            self._delete_unnamed()
        except OSError as error:
            raise StorageError(f"cannot write the checkpoint to {self.folder}: {error.strerror or error}") from error

    def _delete_unnamed(self) -> None:
        try:
            named = {json.loads(path.read_text())["file"] for path in self.folder.glob("*.json")}
        except (ValueError, KeyError, TypeError):  # a damaged manifest: who knows which file it named
            return
        for path in self.folder.glob("step-*.safetensors"):
            if path.name not in named:
                path.unlink()

    def load(self, name: str = "last", notice: Callable[[str], None] | None = None) -> tuple[int, Tree] | None:
        """Return (step, tree) of a checkpoint, or None when there is none.

        When `last` is damaged, `previous` is read instead and `notice` gets a line that says so; BadInput when no
        intact one is left.
        """
        candidates = [name, "previous"] if name == "last" else [name]
        problems = []
        for candidate in candidates:
            manifest = self.folder / f"{candidate}.json"
            if not manifest.is_file():
                continue
            try:
                loaded = read(manifest)
            except DAMAGE as error:
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
    """Return whether every element of every tensor is finite (one synchronization)."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
