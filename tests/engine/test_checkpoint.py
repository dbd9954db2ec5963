"""Checkpoints survive crashes and admit no silent damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from optexp.engine.checkpoint import Checkpoints, all_finite, weights_of
from optexp.errors import BadInput, StorageError
from optexp.records.files import in_background


def tree(value: float) -> dict[str, Any]:
    return {
        "program": {"model": {"weight": torch.full((3, 2), value), "count": torch.tensor(7)}},
        "member": {"history": [1.5, float("inf")], "best": {}, "name": "x", "none": None, "flag": True},
    }


def save(checkpoints: Checkpoints, step: int, state: dict[str, Any], names: Sequence[str]) -> None:
    """Save, and wait until it is on the disk."""
    checkpoints.save(step, state, names)
    checkpoints.wait()


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_save_and_load_last_previous_and_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.load("last") is None
    save(checkpoints, 10, tree(1.0), ["last", "best"])
    save(checkpoints, 20, tree(2.0), ["last"])
    save(checkpoints, 30, tree(3.0), ["last"])
    for name, step, value in (("last", 30, 3.0), ("previous", 20, 2.0), ("best", 10, 1.0)):
        loaded = checkpoints.load(name)
        assert loaded is not None
        assert loaded[0] == step
        assert torch.equal(loaded[1]["program"]["model"]["weight"], torch.full((3, 2), value))
        assert loaded[1]["member"]["history"] == [1.5, float("inf")]
    save(checkpoints, 40, tree(4.0), ["last"])
    files = sorted(path.name[:13] for path in (tmp_path / "checkpoints").glob("*.safetensors"))
    assert files == ["step-00000010", "step-00000030", "step-00000040"]  # nobody names step 20 any more


def test_tied_and_non_contiguous_tensors_are_saved(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, {"a": shared, "b": shared, "c": shared.t()}, ["last"])
    loaded = checkpoints.load()
    assert loaded is not None
    assert torch.equal(loaded[1]["b"], shared)
    assert torch.equal(loaded[1]["c"], shared.t())


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero", "missing", "manifest"])
def test_damage_is_found_and_the_previous_generation_used(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10, tree(1.0), ["last"])
    save(checkpoints, 20, tree(2.0), ["last"])
    file = next(tmp_path.glob("step-00000020-*.safetensors"))
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-3] ^= 1
        file.write_bytes(data)
    elif damage == "truncate":
        file.write_bytes(data[:-5])
    elif damage == "zero":
        file.write_bytes(bytes(len(data)))
    elif damage == "missing":
        file.unlink()
    else:
        (tmp_path / "last.json").write_text('{"format": 1, "st')
    notices: list[str] = []
    loaded = checkpoints.load("last", notice=notices.append)
    assert loaded is not None
    assert loaded[0] == 10
    assert len(notices) == 1
    assert "damaged" in notices[0]
    assert "'previous', step 10" in notices[0]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10, tree(1.0), ["last"])
    file = next(tmp_path.glob("*.safetensors"))
    original = file.read_bytes()
    for position in range(0, len(original), 7):
        data = bytearray(original)
        data[position] ^= 1 << position % 8
        file.write_bytes(data)
        with pytest.raises(BadInput, match="damaged"):
            checkpoints.load("last")
    file.write_bytes(original)
    assert checkpoints.load("last") is not None


def dying_at(call: int, patch: pytest.MonkeyPatch) -> None:
    """Let the n-th of the system's calls that change or open files raise KeyboardInterrupt instead."""
    calls = {"number": 0}

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def one(*args: Any, **kwargs: Any) -> Any:
            calls["number"] += 1
            if calls["number"] == call:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return one

    for name in ("open", "write", "fsync", "truncate", "close", "replace", "unlink"):
        patch.setattr(os, name, counted(getattr(os, name)))


@pytest.mark.parametrize("last_is_damaged", [False, True])
def test_a_crash_at_any_point_of_a_save_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_is_damaged: bool
) -> None:
    """The save is killed at its n-th system call for every n; what is loaded is the old or the new state, whole."""
    seen: set[int] = set()
    for crash_at in range(1, 40):
        folder = tmp_path / str(crash_at)
        checkpoints = Checkpoints(folder)
        save(checkpoints, 10, tree(1.0), ["last", "best"])
        if last_is_damaged:
            save(checkpoints, 15, tree(1.5), ["last"])
            next(folder.glob("step-00000015-*")).write_bytes(b"")
            loaded = checkpoints.load("last")
            assert loaded is not None
            assert loaded[0] == 10
        finished = False
        with monkeypatch.context() as patch:
            dying_at(crash_at, patch)
            try:
                save(checkpoints, 20, tree(2.0), ["last"])
                finished = True
            except KeyboardInterrupt:
                finished = False
        loaded = Checkpoints(folder).load("last")
        assert loaded is not None
        assert torch.equal(loaded[1]["program"]["model"]["weight"], torch.full((3, 2), loaded[0] / 10))
        seen.add(loaded[0])
        if finished:
            break
    assert finished
    assert seen == {10, 20}


def test_a_full_disk_is_a_storage_error_and_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10, tree(1.0), ["last"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        checkpoints.save(20, tree(2.0), ["last"])
        loaded = checkpoints.load("last")  # waits, and leaves the error to the one who saves
        assert loaded is not None
        assert loaded[0] == 10
        with pytest.raises(StorageError, match="No space left on device"):
            checkpoints.save(30, tree(3.0), ["last"])
        checkpoints.save(40, tree(4.0), ["last"])
        with pytest.raises(StorageError, match="No space left on device"):
            checkpoints.wait()
        checkpoints.wait()  # said once
    save(checkpoints, 50, tree(5.0), ["last"])
    loaded = checkpoints.load("last")
    assert loaded is not None
    assert loaded[0] == 50
    assert len(list(tmp_path.glob(".*.tmp"))) == 0, "what failed has left nothing"


def test_a_save_takes_the_state_as_it_is_and_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_is_ready = threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        assert disk_is_ready.wait(timeout=60)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    checkpoints = Checkpoints(tmp_path)
    state = tree(1.0)
    checkpoints.save(10, state, ["last"])
    state["program"]["model"]["weight"].zero_()
    state["member"]["history"].append(7.0)
    assert not (tmp_path / "last.json").exists()
    disk_is_ready.set()
    loaded = Checkpoints(tmp_path).load("last")  # another object of the same process waits as well
    assert loaded is not None
    assert torch.equal(loaded[1]["program"]["model"]["weight"], torch.ones(3, 2))
    assert loaded[1]["member"]["history"] == [1.5, float("inf")]


def test_many_runs_are_saved_at_once_each_in_order(tmp_path: Path) -> None:
    runs = [Checkpoints(tmp_path / str(index)) for index in range(20)]
    for step in (1, 2, 3):
        for index, run in enumerate(runs):
            run.save(step, tree(100.0 * index + step), ["last"])
    for index, run in enumerate(runs):
        run.wait()
        for name, step in (("last", 3), ("previous", 2)):
            loaded = run.load(name)
            assert loaded is not None
            assert loaded[0] == step
            assert loaded[1]["program"]["model"]["weight"][0, 0] == 100 * index + step


LEAVES_AT_ONCE = """
import os, sys, threading, torch
from pathlib import Path
from optexp.engine.checkpoint import Checkpoints
folder, how = Path(sys.argv[1]), sys.argv[2]
big = torch.full((1 << 20,), 3.0)
Checkpoints(folder / "parent").save(10, {"weight": big}, ["last"])
if how == "exit":
    sys.exit(3)
child = os.fork()
if child == 0:
    checkpoints = Checkpoints(folder / "child")
    checkpoints.save(20, {"weight": big}, ["last"])
    checkpoints.wait()
    os._exit(0)
assert (folder / "parent" / "last.json").exists(), "a fork waits until nothing is half written"
assert threading.active_count() == 1, threading.enumerate()
assert os.waitpid(child, 0)[1] == 0
Checkpoints(folder / "parent").save(30, {"weight": big}, ["last"])
"""


@pytest.mark.parametrize("how", ["exit", "fork"])
def test_a_process_that_exits_or_forks_has_written_everything(tmp_path: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVES_AT_ONCE, tmp_path, how], capture_output=True, text=True)
    assert done.returncode == (3 if how == "exit" else 0), done.stderr
    for name, step in {"exit": {"parent": 10}, "fork": {"parent": 30, "child": 20}}[how].items():
        loaded = Checkpoints(tmp_path / name).load("last")
        assert loaded is not None
        assert loaded[0] == step
        assert torch.equal(loaded[1]["weight"], torch.full((1 << 20,), 3.0))


def test_a_manifest_that_names_a_foreign_file_deletes_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save(checkpoints, 10, tree(1.0), ["last"])
    (tmp_path / "precious").write_text("x")
    manifest = json.loads((tmp_path / "checkpoints" / "last.json").read_text())
    for name in ("last", "previous"):
        (tmp_path / "checkpoints" / f"{name}.json").write_text(json.dumps(manifest | {"file": "../precious"}))
    again = Checkpoints(tmp_path / "checkpoints")
    for step in (20, 30, 40):
        save(again, step, tree(step / 10), ["last"])
    assert (tmp_path / "precious").exists()
    loaded = again.load("last")
    assert loaded is not None
    assert loaded[0] == 40


def test_a_data_file_that_is_gone_does_not_stop_a_save(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10, tree(1.0), ["last"])
    next(tmp_path.glob("step-00000010-*")).unlink()
    for step in (20, 30):
        save(checkpoints, step, tree(step / 10), ["last"])
    assert sorted(path.name[:13] for path in tmp_path.glob("step-*")) == ["step-00000020", "step-00000030"]


def test_a_run_that_goes_on_writes_over_what_nobody_names(tmp_path: Path) -> None:
    """A file that somebody keeps under another name is not touched, and nothing of a longer state remains."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    longest, kept = 100, tmp_path / "kept.safetensors"
    for step in range(10):
        checkpoints.save(step, {"weight": torch.full((longest - step,), float(step))}, ["last"])
        loaded = checkpoints.load("last")
        assert loaded is not None
        assert torch.equal(loaded[1]["weight"], torch.full((longest - step,), float(step)))
        if step == 5:
            os.link(next(checkpoints.folder.glob("step-00000005-*")), kept)
    spare = next(checkpoints.folder.glob(".*.tmp")).stat().st_ino
    checkpoints.save(10, {"weight": torch.ones(3)}, ["last"])
    checkpoints.load("last")
    assert next(checkpoints.folder.glob("step-00000010-*")).stat().st_ino == spare
    assert torch.equal(safetensors.torch.load_file(kept)["weight"], torch.full((95,), 5.0))
    checkpoints.wait()
    assert sorted(path.name[:13] for path in checkpoints.folder.iterdir()) == [
        "last.json",
        "previous.json",
        "step-00000009",
        "step-00000010",
    ]


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="asks Linux")
def test_writing_interrupts_nobody() -> None:
    own, policies = os.sched_getscheduler(0), []
    in_background(lambda: policies.append(os.sched_getscheduler(0))).result()
    assert policies == [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == own


def test_all_finite() -> None:
    large = torch.full((3,), 3e38)
    assert all_finite([])
    assert all_finite([torch.arange(3), large, -large, torch.zeros(0), torch.ones(2, dtype=torch.complex64)])
    assert all_finite([torch.full((100_000,), 60_000.0, dtype=torch.float16)])
    assert all_finite([torch.tensor(1e300, dtype=torch.float64)])
    for bad in (float("nan"), float("inf"), float("-inf")):
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64):
            tensor = torch.ones(2, 50_000, dtype=dtype)
            tensor[1, 777] = bad
            assert not all_finite([large, tensor])
    assert not all_finite([torch.tensor([float("inf"), float("-inf")])])


def test_what_a_crash_has_left_is_deleted(tmp_path: Path) -> None:
    save(Checkpoints(tmp_path), 10, tree(1.0), ["last"])
    for name in (".step-00000011-abcdef01.safetensors.tmp", "step-00000011-abcdef01.safetensors", "notes.txt"):
        (tmp_path / name).write_text("x")
    save(Checkpoints(tmp_path), 20, tree(2.0), ["last"])
    assert sorted(path.name[:13] for path in tmp_path.iterdir()) == [
        "last.json",
        "notes.txt",
        "previous.json",
        "step-00000010",
        "step-00000020",
    ]


def test_weights_of_takes_best_before_last_and_says_what_it_took(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(BadInput, match=r"engine\.init_from="):
        weights_of(tmp_path)
    save(checkpoints, 10, tree(1.0), ["last", "best"])
    save(checkpoints, 20, tree(2.0), ["last"])
    source, weights = weights_of(tmp_path)
    assert "best, step 10" in source
    assert torch.equal(weights["weight"], torch.ones(3, 2))
    _, weights = weights_of(tmp_path / "checkpoints" / "last.json")
    assert torch.equal(weights["weight"], torch.full((3, 2), 2.0))


def test_a_damaged_manifest_beside_it_does_not_stop_a_save(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10, tree(1.0), ["last", "best"])
    (tmp_path / "best.json").write_text("")
    save(checkpoints, 20, tree(2.0), ["last"])
    loaded = checkpoints.load("last")
    assert loaded is not None
    assert loaded[0] == 20
    (tmp_path / "last.json").write_text("[]")
    with pytest.raises(BadInput, match="damaged"):
        checkpoints.load("best")
    with pytest.raises(BadInput, match=r"engine\.init_from=.*last\.json"):
        weights_of(tmp_path / "last.json")
