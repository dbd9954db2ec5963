"""Bytes are those that the update rules are known to keep; times are ratios (of what, is tested; how large, is not)."""

from __future__ import annotations

import pytest
import torch

from optexp.config.compose import Composed, Composer
from optexp.optimizer_table.cost import _ProfilerMeter, measure_memory, measure_times, state_bytes, training_of
from optexp.tasks import check_composed

COMPOSER = Composer(None, multirun=True)
SMALL = ["model=mlp", "model.hidden=[32]", "engine.max_steps=4"]


def composed(*words: str) -> Composed:
    found = COMPOSER.compose([*SMALL, *words])
    check_composed(found)
    return found


def test_the_meter_sees_the_most_that_lives_at_once() -> None:
    meter = _ProfilerMeter()
    kept = []
    with meter:
        first = torch.empty(1000)
        second = torch.empty(500)
        del first
        kept += [second, torch.empty(250)]
    assert meter.peak == 4 * 1500


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["optimizer=sgd", "optimizer.momentum=0"], 0),
        (["optimizer=sgd"], 1),
        (["optimizer=adagrad"], 1),
        (["optimizer=lion"], 1),
        (["optimizer=adamw"], 2),
        (["optimizer=adamw", "optimizer.amsgrad=true"], 3),
        (["optimizer=rmsprop", "optimizer.momentum=0.9", "optimizer.centered=true"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_state_is_four_bytes_for_each_number(words: list[str], numbers: int) -> None:
    found = measure_memory(composed(*words), lr=1e-3)
    counters = 4 * 4  # weights and biases of two layers, at most a counter each
    assert 4 * numbers * found.parameters <= found.state <= 4 * numbers * found.parameters + counters
    assert found.parameters == 64 * 32 + 32 + 32 * 10 + 10
    assert not found.grows


def test_the_peak_holds_the_state_and_beyond_it_what_a_step_of_sgd_needs() -> None:
    """torch's fused kernels update in place: Adam needs its state more than SGD, and no temporaries."""
    sgd = measure_memory(composed("optimizer=sgd", "optimizer.momentum=0"), lr=1e-3)
    adam = measure_memory(composed("optimizer=adam"), lr=1e-3)
    adagrad = measure_memory(composed("optimizer=adagrad"), lr=1e-3)
    assert 0 < sgd.peak < 8 * sgd.parameters
    assert adam.peak - sgd.peak == pytest.approx(adam.state, abs=64)
    assert adagrad.peak - sgd.peak == pytest.approx(adagrad.state, abs=64), "its state is as old as itself"


def test_a_growing_state_is_told() -> None:
    """SGD makes its buffers at the first step; after that nothing grows."""
    training = training_of(composed("optimizer=sgd"))
    assert state_bytes(training) == 0
    training.program.step(0, [1e-3])
    assert state_bytes(training) == 4 * sum(parameter.numel() for parameter in training.model.parameters())


def test_times_are_relative_to_the_reference() -> None:
    trainings = {name: training_of(composed(f"optimizer={name}")) for name in ("sgd", "adam")}
    found = measure_times(trainings, {"sgd": 1e-3, "adam": 1e-3}, "sgd", repeats=3)
    assert found["sgd"] is not None
    assert (found["sgd"].ratio, found["sgd"].low, found["sgd"].high) == (1.0, 1.0, 1.0)
    assert found["adam"] is not None
    assert 0 < found["adam"].low <= found["adam"].ratio <= found["adam"].high
    assert found["adam"].seconds > 0


def test_what_diverges_has_no_time() -> None:
    trainings = {name: training_of(composed("optimizer=sgd")) for name in ("sgd", "too fast")}
    found = measure_times(trainings, {"sgd": 1e-3, "too fast": 1e6}, "sgd", repeats=3)
    assert found["sgd"] is not None
    assert found["too fast"] is None
