"""What needs a GPU or a compiler."""

from __future__ import annotations

import math

import pytest
import torch
from trainings import assembled, trained

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("clip_norm", ["null", "1.0"])
def test_a_step_does_not_wait_for_the_device(optimizer: str, precision: str, clip_norm: str) -> None:
    words = (f"optimizer={optimizer}", f"engine.precision={precision}", f"engine.clip_norm={clip_norm}")
    training = assembled("engine.device=cuda", "engine.max_steps=50", *words)
    training.program.step(0, [0.01], observed=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 20):
            training.program.step(step, [0.01], observed=step % 5 == 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert math.isfinite(training.program.read()[0]["train/loss"])


@pytest.mark.gpu
@needs_cuda
def test_the_gpu_trains_like_the_cpu() -> None:
    words = ("model=mlp", "model.hidden=[16]", "engine.max_steps=40", "engine.log_every=1")
    losses = [
        trained(assembled(f"engine.device={device}", *words))[2].series("train/loss") for device in ("cpu", "cuda")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu
@needs_cuda
def test_divergence_on_the_gpu_leaves_finite_weights_and_names_the_step() -> None:
    words = ("engine.device=cuda", "optimizer.lr=1e15", "schedule=constant", "engine.max_steps=60")
    training = assembled("model=mlp", "model.hidden=[16]", *words)
    assert training.program.guard.on_device
    ending, _, _ = trained(training)
    assert ending.status == "diverged"
    assert ending.reason is not None
    assert f"at step {ending.steps + 1};" in ending.reason
    assert all(bool(torch.isfinite(parameter).all()) for parameter in training.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("words", [("model=mlp",), ("model=transformer", "dataset=pydocs", "model.dropout=0.1")])
def test_a_compiled_model_trains_like_the_eager_one(words: tuple[str, ...]) -> None:
    settings = ("engine.max_steps=12", "engine.log_every=1", "engine.device=cpu", *words)
    losses = [
        trained(assembled(*settings, f"engine.compile={compiled}"))[2].series("train/loss")
        for compiled in ("false", "true")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
