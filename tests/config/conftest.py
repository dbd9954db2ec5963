"""A user's own config folder, and a composer that knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from optexp.config.compose import Composer

MINE = {
    "optimizer/mine.yaml": "# mine\ndefaults:\n  - sgd\nlr: 0.7\nextra: {a: [1, 2]}\n",
    "model/wide.yaml": "# wide\n_target_: optexp.models.mlp.MLP\nhidden: [256]\n",
    "experiment/mine.yaml": (
        "# @package _global_\n# mine\ndefaults:\n  - override /model: wide\n  - override /optimizer: adamw\n"
        "seed: 5\noptimizer:\n  lr: ${half:}\nname: lr=${optimizer.lr}\n"
    ).replace("${half:}", "0.25"),
    "experiment/grid.yaml": (
        "# @package _global_\n# a grid\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      optimizer.lr: 0.1,0.2\n      seed: range(3)\n"
    ),
    "experiment/broken.yaml": "# @package _global_\nseed: [1\n",
    "experiment/lost.yaml": "# @package _global_\ndefaults:\n  - override /model: nowhere\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's config folder."""
    root = tmp_path_factory.mktemp("mine")
    for name, text in MINE.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def composer(folder: Path) -> Composer:
    return Composer(str(folder))
