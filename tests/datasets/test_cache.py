"""What is kept of a data set is what was decoded, to the bit, or it is not used at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_archives import SETS, write_cifar, write_mnist
from torchvision import datasets as readers

from optexp.datasets import archives, cache
from optexp.datasets.base import Dataset
from optexp.datasets.cache import decoded, identity
from optexp.errors import BadInput

ARRAYS: dict[str, np.ndarray] = {
    "images": np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
    "labels": np.array([-1, 2**40]),
    "scale": np.array([[0.1, np.nan, -0.0]], dtype=np.float32),
    "names": np.array(["", "ö"]),
    "nothing": np.empty((0, 3), dtype=np.float64),
}


class Decoder:
    """Returns ARRAYS and counts how often it was asked to."""

    calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {name: array.copy() for name, array in ARRAYS.items()}


def not_to_be_called() -> Any:
    raise AssertionError("decoded again")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "optexp"


def same(found: dict[str, np.ndarray]) -> bool:
    """Whether arrays are ARRAYS in bytes, types, shapes, names and order."""

    def described(arrays: dict[str, np.ndarray]) -> list[object]:
        return [(name, array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()]

    return described(found) == described(ARRAYS)


def test_the_second_time_nothing_is_decoded(folder: Path) -> None:
    decode = Decoder()
    first, second = decoded("set", [1, "a"], decode), decoded("set", [1, "a"], decode)
    assert decode.calls == 1
    assert same(first)
    assert same(second)
    assert all(array.flags.writeable for array in second.values())
    assert [path.name for path in folder.iterdir()] == ["set.npz"]


def test_what_was_decoded_for_another_key_is_replaced(folder: Path) -> None:
    decode = Decoder()
    for key, calls in (([1], 1), ([2], 2), ([2], 2), ([1], 3), (["1"], 4)):
        assert same(decoded("set", key, decode))
        assert decode.calls == calls
    assert len(list(folder.iterdir())) == 1


def test_what_other_code_has_decoded_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Decoder()
    (tmp_path / "cache.py").write_text("")
    (tmp_path / "reader.py").write_text("noise = 1")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    decoded("set", [1], decode)
    decoded("set", [1], decode)
    assert decode.calls == 1
    (tmp_path / "reader.py").write_text("noise = 0.5")
    decoded("set", [1], decode)
    assert decode.calls == 2


def test_no_damage_is_ever_taken_for_data(folder: Path) -> None:
    decode = Decoder()
    decoded("set", [1], decode)
    file = folder / "set.npz"
    intact = file.read_bytes()
    damaged = [intact[:length] for length in range(0, len(intact), 7)]
    damaged += [intact[:at] + bytes([intact[at] ^ 1 << at % 8]) + intact[at + 1 :] for at in range(len(intact))]
    damaged += [b"", b"\0" * len(intact), intact + intact]
    ignored = 0
    for content in damaged:
        file.write_bytes(content)
        before = decode.calls
        assert same(decoded("set", [1], decode))
        ignored += decode.calls > before
        if decode.calls > before:  # the file was replaced by a good one
            assert same(decoded("set", [1], not_to_be_called))
    assert ignored > len(damaged) / 2  # the rest are bytes that mean nothing, such as the time of day


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    decode = Decoder()
    assert same(decoded("set", [1], decode))
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert same(decoded("set", [1], decode))
    assert decode.calls == 2


def test_a_full_disk_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded("set", [1], Decoder())
    before = (folder / "set.npz").read_bytes()

    def full(file: Any, **arrays: np.ndarray) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert same(decoded("set", [2], Decoder()))
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("set.npz", before)]


def test_large_sets_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_LARGEST", sum(array.nbytes for array in ARRAYS.values()) - 1)
    decoded("set", [1], Decoder())
    assert not folder.exists()


def test_the_folder_is_where_the_specification_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    decoded("set", [1], Decoder())
    assert (tmp_path / "home" / ".cache" / "optexp" / "set.npz").is_file()


def test_files_are_told_apart_by_name_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "b"
    file.write_bytes(b"123")
    os.utime(file, ns=(1, 1))
    known = [identity(tmp_path)]
    assert identity(file) == known[0]
    os.utime(file, ns=(2, 2))
    known.append(identity(tmp_path))
    file.write_bytes(b"1234")
    os.utime(file, ns=(2, 2))
    known.append(identity(tmp_path))
    file.rename(tmp_path / "a" / "c")
    known.append(identity(tmp_path))
    assert [known.index(state) for state in known] == [0, 1, 2, 3]
    assert identity(tmp_path / "nothing") == []


def contents(dataset: Dataset) -> list[object]:
    splits = (dataset.train, dataset.val, dataset.test)
    tensors = [tensor for split in splits for tensor in (split.inputs, split.targets) if tensor is not None]
    described = [(tensor.dtype, tensor.shape, tensor.is_contiguous(), tensor.numpy().tobytes()) for tensor in tensors]
    return [*described, dataset.details, dataset.mean, dataset.std, dataset.baselines, dataset.num_outputs]


@pytest.mark.parametrize("name", SETS)
def test_archives_are_kept_as_long_as_their_files_are_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    reader = {"cifar10": readers.CIFAR10, "cifar100": readers.CIFAR100, "mnist": readers.MNIST}.get(
        name, readers.FashionMNIST
    )
    if name.startswith("cifar"):
        write_cifar(root, reader, name == "cifar100", monkeypatch)
    else:
        write_mnist(root, reader)

    def read() -> Dataset:
        return SETS[name](root=str(root), download=False)

    first = read()
    with monkeypatch.context() as patch:
        patch.setattr(archives, "import_torchvision", not_to_be_called)
        assert contents(read()) == contents(first)
    damaged = max(root.rglob("*train*" if "mnist" in name else "*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"^dataset.root=.*: holds no intact copy"):
        read()


PROGRAM = """
import sys
from pathlib import Path
from optexp.datasets.digits import digits
from optexp.datasets.imagefolder import imagefolder
from optexp.datasets.language import pydocs
from optexp.datasets.mnist import mnist
from optexp.datasets.shapes import shapes

root = Path(sys.argv[1])
for make in (digits, pydocs, shapes, lambda: mnist(str(root)), lambda: imagefolder(str(root / "images"), image_size=8)):
    print(make().details)
print("imported", sorted({"sklearn", "torchvision", "PIL", "pydoc_data.topics"} & sys.modules.keys()))
"""


def test_a_second_process_decodes_nothing_and_imports_no_library_for_it(tmp_path: Path) -> None:
    from PIL import Image

    write_mnist(tmp_path, readers.MNIST)
    for number in range(20):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), number, dtype=np.uint8)).save(path)

    def run() -> list[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    first, second = run(), run()
    assert first[:-1] == second[:-1]  # sizes, fingerprints, classes
    assert len(first) == 6
    assert first[-1] == "imported ['PIL', 'pydoc_data.topics', 'torchvision']"  # digits never needs scikit-learn
    assert second[-1] == "imported []"
