"""What needs a GPU or a compiler."""

from __future__ import annotations

import math

import pytest
import torch
from trainings import assembled, group, trained

from optexp.engine.graphs import CapturedSteps
from optexp.fuse import fuse
from optexp.instruments.look import Look

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("clip_norm", ["null", "1.0"])
def test_a_step_does_not_wait_for_the_device(optimizer: str, precision: str, clip_norm: str) -> None:
    words = (f"optimizer={optimizer}", f"engine.precision={precision}", f"engine.clip_norm={clip_norm}")
    training = assembled("engine.device=cuda", "engine.max_steps=50", *words)
    training.program.step(0, [0.01], look=Look(accuracy=True, sizes=True))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 20):
            training.program.step(step, [0.01], look=Look(accuracy=True, sizes=True) if step % 5 == 0 else Look.NOTHING)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert math.isfinite(training.program.read().rows()[0]["train/loss"])


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"])
@pytest.mark.parametrize("captured", ["false", "true"])
def test_a_step_of_a_group_does_not_wait_for_the_device(optimizer: str, captured: str) -> None:
    """Dropout, label smoothing and clipping included; captured steps are made in the first ten."""
    common = [
        "model=transformer",
        "dataset=pydocs",
        "model.width=16",
        "engine.label_smoothing=0.1",
        "engine.max_steps=50",
    ]
    variants = [("seed=1", "model.dropout=0.1"), ("seed=2", "engine.clip_norm=0.5"), ("optimizer.lr=2e-3",)]
    words = [*common, f"optimizer={optimizer}", "engine.device=cuda", f"engine.cuda_graph={captured}"]
    trainings = group(words, variants)
    program = fuse(trainings)
    for step in range(10):
        program.step(step, [0.01] * 3, look=Look(accuracy=True, sizes=True) if step % 5 == 0 else Look.NOTHING)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(10, 30):
            program.step(step, [0.01] * 3, look=Look(accuracy=True, sizes=True) if step % 5 == 0 else Look.NOTHING)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(math.isfinite(row["train/loss"]) for row in program.read(range(3)).rows())
    assert isinstance(program.take, CapturedSteps) == (captured == "true")
    if isinstance(program.take, CapturedSteps):
        assert program.take.refused is None


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    "words",
    [
        ("model=mlp", "model.hidden=[16]"),
        ("model=resnet", "engine.precision=bf16", "engine.clip_norm=1.0"),
        ("model=transformer", "dataset=pydocs", "model.width=16", "model.dropout=0.1"),
    ],
)
def test_captured_steps_train_like_written_ones(words: tuple[str, ...], optimizer: str) -> None:
    common = (*words, f"optimizer={optimizer}", "engine.device=cuda", "engine.max_steps=40", "engine.log_every=4")
    captured, written = (assembled(*common, f"engine.cuda_graph={on}") for on in ("true", "false"))
    found, expected = trained(captured)[2], trained(written)[2]
    assert isinstance(captured.program.take, CapturedSteps)
    assert captured.program.take.refused is None
    assert found.series("train/loss") == pytest.approx(expected.series("train/loss"), rel=1e-2)


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
