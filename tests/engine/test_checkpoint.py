"""Checkpoints survive crashes and admit no silent damage."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from optexp.engine.checkpoint import Checkpoints, pack, unpack, weights_of
from optexp.errors import BadInput, StorageError


def tree(value: float) -> dict[str, Any]:
    return {
        "program": {"model": {"weight": torch.full((3, 2), value), "count": torch.tensor(7)}},
        "member": {"history": [1.5, float("inf")], "best": {}, "name": "x", "none": None, "flag": True},
    }


def test_pack_and_unpack_are_inverse_for_nested_state() -> None:
    original = {
        "a": {"b": [torch.arange(3), {"c": torch.tensor(2.5, dtype=torch.float64)}], "d": 3},
        "e": [0.9, 0.999],
        "bf16": torch.ones(2, dtype=torch.bfloat16),
    }
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.loads(json.dumps(pack(original, tensors)))
    restored = unpack(skeleton, tensors)
    assert torch.equal(restored["a"]["b"][0], torch.arange(3))
    assert restored["a"]["b"][1]["c"].dtype == torch.float64
    assert restored["bf16"].dtype == torch.bfloat16
    assert restored["e"] == [0.9, 0.999]
    with pytest.raises(TypeError, match="cannot save 'bad/0'"):
        pack({"bad": [object()]}, {})
    with pytest.raises(TypeError, match="keys must be strings"):
        pack({"bad": {1: 2}}, {})


def test_save_and_load_last_previous_and_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.load("last") is None
    checkpoints.save(10, tree(1.0), ["last", "best"])
    checkpoints.save(20, tree(2.0), ["last"])
    checkpoints.save(30, tree(3.0), ["last"])
    for name, step, value in (("last", 30, 3.0), ("previous", 20, 2.0), ("best", 10, 1.0)):
        loaded = checkpoints.load(name)
        assert loaded is not None
        assert loaded[0] == step
        assert torch.equal(loaded[1]["program"]["model"]["weight"], torch.full((3, 2), value))
        assert loaded[1]["member"]["history"] == [1.5, float("inf")]
    checkpoints.save(40, tree(4.0), ["last"])
    files = sorted(path.name[:13] for path in (tmp_path / "checkpoints").glob("*.safetensors"))
    assert files == ["step-00000010", "step-00000030", "step-00000040"]  # nobody names step 20 any more


def test_tied_and_non_contiguous_tensors_are_saved(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": shared, "b": shared, "c": shared.t()}, ["last"])
    loaded = checkpoints.load()
    assert loaded is not None
    assert torch.equal(loaded[1]["b"], shared)
    assert torch.equal(loaded[1]["c"], shared.t())


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero", "missing", "manifest"])
def test_damage_is_found_and_the_previous_generation_used(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, tree(1.0), ["last"])
    checkpoints.save(20, tree(2.0), ["last"])
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
    checkpoints.save(10, tree(1.0), ["last"])
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


def test_a_crash_at_any_point_of_a_save_leaves_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The save is killed at its n-th system call for every n; what is loaded is the old or the new state, whole."""
    seen: set[int] = set()
    for crash_at in range(1, 40):
        folder = tmp_path / str(crash_at)
        checkpoints = Checkpoints(folder)
        checkpoints.save(10, tree(1.0), ["last", "best"])
        calls = {"number": 0}

        def counted(real: Any, calls: dict[str, int] = calls, limit: int = crash_at) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                calls["number"] += 1
                if calls["number"] == limit:
                    raise KeyboardInterrupt
                return real(*args, **kwargs)

            return call

        finished = False
        with monkeypatch.context() as patch:
            for name in ("fsync", "replace", "unlink", "open"):
                patch.setattr(os, name, counted(getattr(os, name)))
            patch.setattr(Path, "open", counted(Path.open))
            patch.setattr(Path, "replace", counted(Path.replace))
            try:
                checkpoints.save(20, tree(2.0), ["last"])
                finished = True
            except KeyboardInterrupt:
                finished = False
        loaded = checkpoints.load("last")
        assert loaded is not None
        assert torch.equal(loaded[1]["program"]["model"]["weight"], torch.full((3, 2), loaded[0] / 10))
        seen.add(loaded[0])
        if finished:
            break
    assert finished
    assert seen == {10, 20}


def test_a_full_disk_is_a_storage_error_and_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, tree(1.0), ["last"])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            checkpoints.save(20, tree(2.0), ["last"])
    loaded = checkpoints.load("last")
    assert loaded is not None
    assert loaded[0] == 10


def test_weights_of_takes_best_before_last_and_says_what_it_took(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(BadInput, match=r"engine\.init_from="):
        weights_of(tmp_path)
    checkpoints.save(10, tree(1.0), ["last", "best"])
    checkpoints.save(20, tree(2.0), ["last"])
    source, weights = weights_of(tmp_path)
    assert "best, step 10" in source
    assert torch.equal(weights["weight"], torch.ones(3, 2))
    _, weights = weights_of(tmp_path / "checkpoints" / "last.json")
    assert torch.equal(weights["weight"], torch.full((3, 2), 2.0))


def test_a_damaged_manifest_beside_it_does_not_stop_a_save(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, tree(1.0), ["last", "best"])
    (tmp_path / "best.json").write_text("")
    checkpoints.save(20, tree(2.0), ["last"])
    loaded = checkpoints.load("last")
    assert loaded is not None
    assert loaded[0] == 20
    (tmp_path / "last.json").write_text("[]")
    with pytest.raises(BadInput, match="damaged"):
        checkpoints.load("best")
    with pytest.raises(BadInput, match=r"engine\.init_from=.*last\.json"):
        weights_of(tmp_path / "last.json")
