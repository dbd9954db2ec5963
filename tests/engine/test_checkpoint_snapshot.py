"""What a checkpoint takes of a state, and the bytes of its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from optexp.engine.checkpoint import Snapshot, pack, unpack


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


def test_a_snapshot_is_a_safetensors_file(tmp_path: Path) -> None:
    """The library reads what we lay out by hand: every type of element, every shape and memory layout."""
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.float8_e4m3fn]
    kinds += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.bool]
    values = torch.arange(6).view(2, 3) % 2
    state = {f"kind {index}": values.to(kind) for index, kind in enumerate(kinds)}
    image = torch.randn(2, 3, 4, 5)
    state |= {
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "transposed": image[0, 0].t(),
        "every second": image[0, 0, :, ::2],
        "channels_last": image.to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "naïve": torch.ones(1),
    }
    snapshot = Snapshot.take(7, {**state, "plain": [1, None, "x"]})
    path = tmp_path / "file.safetensors"
    path.write_bytes(snapshot.file.numpy().tobytes())
    found = safetensors.torch.load_file(path)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].equal(tensor), name
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["step"] == "7"
    assert json.loads(metadata["tree"])["plain"] == [1, None, "x"]
    no_tensors = Snapshot.take(1, {"history": []})
    assert safetensors.torch.load(no_tensors.file.numpy().tobytes()) == {}
    with pytest.raises(TypeError, match=r"cannot save 'a': its elements are torch\.complex128"):
        Snapshot.take(1, {"a": torch.ones(1, dtype=torch.complex128)})


@pytest.mark.gpu
def test_a_snapshot_of_a_device_is_that_of_the_host() -> None:
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {"weight": image, "count": torch.tensor(3), "half": torch.randn(7).bfloat16(), "view": image[0, 0].t()}
    on_device = {name: tensor.cuda() for name, tensor in state.items() if name != "count"}
    snapshot = Snapshot.take(1, {**on_device, "count": state["count"]})
    for tensor in on_device.values():
        tensor.zero_()
    found = safetensors.torch.load(snapshot.file.numpy().tobytes())
    assert all(found[name].equal(tensor) for name, tensor in state.items())
