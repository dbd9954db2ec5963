"""The model group of the configuration: every argument is offered, and every choice can be built from it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
FROM_THE_DATA: dict[str, dict[str, Any]] = {
    "images": {"input_shape": (1, 8, 8), "num_outputs": 10},
    "vectors": {"input_shape": (3,), "num_outputs": 1},
    "tokens": {"context_length": 16, "num_outputs": 29},
}
INPUTS = {
    "images": torch.zeros(2, 1, 8, 8),
    "vectors": torch.zeros(2, 3),
    "tokens": torch.zeros(2, 16, dtype=torch.int64),
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_argument_is_offered_and_the_model_runs(path: Path) -> None:
    text = path.read_text()
    node = yaml.safe_load(text)
    module, name = node.pop("_target_").rsplit(".", 1)
    target = getattr(importlib.import_module(module), name)
    assert text.startswith("# ")
    offered = set(inspect.signature(target).parameters) - {"input_shape", "num_outputs", "context_length"}
    assert set(node) == offered
    device = "meta" if path.stem == "gpt2_small" else "cpu"  # 85 million weights are not needed here
    for kind in target.reads:
        with torch.device(device):
            model = target(**FROM_THE_DATA[kind], **node)
        shape = (2, 16, 29) if kind == "tokens" else (2, FROM_THE_DATA[kind]["num_outputs"])
        assert model(INPUTS[kind].to(device)).shape == shape
