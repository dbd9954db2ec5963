"""Decoded data sets kept in the user's cache folder, so that the next run need not decode them again.

Most of what a small run waits for is the import of the library that decodes its data (torchvision: more than a
second) and the decoding. What is kept is one file per kind of data set, `$XDG_CACHE_HOME/optexp/<name>.npz` (else
`~/.cache/optexp`): the latest, so the folder does not grow. It may be removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

_LARGEST = 2**30  # bytes; a larger set would crowd the disk, and is decoded each time
_CHECKSUM = "sha256"

Arrays = dict[str, np.ndarray]


def decoded(name: str, key: Sequence[object], decode: Callable[[], Arrays]) -> Arrays:
    """Return what `decode` returns, from the file an earlier call with the same key has left, if it is intact.

    `key` holds all that decides about the result, save the code of this folder, which always counts: the identity of
    source files, versions, settings. The file's checksum covers key and content, so that neither another key's file
    nor a damaged one is ever taken for it. A folder that cannot be written is no error.
    """
    code = [identity(module) for module in sorted(Path(__file__).parent.glob("*.py"))]
    text = json.dumps([*code, *key], default=str)
    kept = _read(name, text)
    if kept is not None:
        return kept
    arrays = decode()
    if sum(array.nbytes for array in arrays.values()) <= _LARGEST:
        _write(name, {**arrays, _CHECKSUM: np.array(_checksum(text, arrays))})
    return arrays


def identity(path: Path) -> list[object]:
    """Return what tells a file, or all files below a folder, from what was there before: names, sizes, times."""
    files = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
    described: list[object] = []
    for file in files:
        status = file.stat()
        described.append([str(file.absolute()), status.st_size, status.st_mtime_ns])
    return described


def _path(name: str) -> Path:
    """Return the file's place by the XDG base directory specification, which wants relative names to be ignored."""
    wanted = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (wanted if wanted.is_absolute() else Path("~/.cache").expanduser()) / "optexp" / f"{name}.npz"


def _read(name: str, key: str) -> Arrays | None:
    try:
        with np.load(_path(name), allow_pickle=False) as file:
            arrays = dict(file)
        checksum = str(arrays.pop(_CHECKSUM))
    except Exception:  # noqa: BLE001 - of a damaged file, numpy and zipfile raise nearly everything there is
        return None
    return arrays if checksum == _checksum(key, arrays) else None


def _write(name: str, arrays: Arrays) -> None:
    """Write all or nothing, so that a run that starts meanwhile finds the file before or the file after."""
    # No room, no permission, no home (a RuntimeError): the data are at hand all the same.
    with contextlib.suppress(OSError, RuntimeError):
        path = _path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f"{name}-", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise


def _checksum(key: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(key.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
