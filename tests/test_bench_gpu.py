"""The family `gpu` of scripts/bench, in editions so tiny that they run on a CPU, where no step is a graph.

How fast anything is, is not tested here: a test must not depend on what else the machine does.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

REPO = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import from scripts, and keep the warm-up short."""
    monkeypatch.syspath_prepend(REPO / "scripts")
    from benchmarks import gpu_runs

    monkeypatch.setattr(gpu_runs, "WARM_UP", 10)


# ---- the clock


def test_the_clock_counts_its_window_of_every_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_runs

    now = iter([1.0, 3.0, 10.0, 15.0])
    monkeypatch.setattr(gpu_runs.time, "perf_counter", lambda: next(now))
    clock = gpu_runs.Clock(2, 4)
    for step in (*range(6), 2, 4):  # step by step, then the ends only
        clock.tick(step)
    assert clock.seconds == 2 + 5


def test_the_clock_waits_for_the_device_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_runs

    calls: list[str] = []

    def noting(name: str, value: float | None = None) -> Any:
        return lambda: (calls.append(name), value)[1]

    for name in ("empty_cache", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, noting(name))
    monkeypatch.setattr(torch.cuda, "memory_allocated", noting("in use", 7e6))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 9e6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_runs.time, "perf_counter", noting("now", 0.0))
    clock = gpu_runs.Clock(1, 2)
    for step in range(4):
        clock.tick(step)
    assert calls == ["empty_cache", "reset_peak_memory_stats", "in use", *2 * ["synchronize", "now"]]
    assert clock.memory() == {"peak GPU MB": 2}


# ---- graphs


class Replayed:
    """Repeats a step by calling it again, as a graph would."""

    def capture(self, take: Any) -> Any:
        self.take = take
        return {}

    def replay(self) -> None:
        self.take()


def test_steps_are_graphs_when_both_kinds_are_captured() -> None:
    from benchmarks.gpu_runs import why_eager

    from optexp.engine.graphs import CapturedSteps
    from optexp.instruments.look import Look

    weight = torch.zeros(1)

    def take(look: Look) -> dict[str, Tensor]:
        weight.add_(1)
        return {}

    program: Any = SimpleNamespace(take=take, why_not_captured="the data set does not fit on the device")
    assert why_eager(program) == "the data set does not fit on the device"
    program = SimpleNamespace(take=take, why_not_captured=None)
    assert why_eager(program) == "this run does not ask for graphs"
    program.take = CapturedSteps(take, lambda: [weight], torch.device("cpu"), Replayed)
    for look in (Look(accuracy=True, sizes=True), *[Look.NOTHING] * 4):
        program.take(look)
        assert why_eager(program) == "they are not captured yet"
    program.take(Look(accuracy=True, sizes=True))
    assert why_eager(program) is None
    program.take.refused = "operation not permitted"
    assert why_eager(program) == "operation not permitted"


def test_eager_steps_are_not_taken_for_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_small

    words = gpu_small.MODELS["MLP, AdamW, clip 1.0"]
    graphs, eager, *_ = gpu_small.model_contest("MLP", words, 10).contestants
    assert graphs.run().value > 0, "on a CPU nobody expects graphs"
    monkeypatch.setattr(gpu_small, "choose_device", lambda name: torch.device("cuda", 0))
    with pytest.raises(AssertionError, match="the steps of 'optexp' were not CUDA graphs: "):
        graphs.run()
    assert eager.name == "optexp, no graph"
    assert eager.run().value > 0


def test_a_large_model_without_the_graphs_it_asked_for_leaves_a_note(
    workloads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import gpu

    from optexp.assemble import Training

    contest = gpu.contest(workloads[1], steps=10, compiled=False)
    contest.contestants[0].run()
    assert contest.notes == []
    monkeypatch.setattr(Training, "captured", True)
    contest.contestants[0].run()
    (note,) = contest.notes
    assert note.startswith("gpu: GPT-2 small: the steps of 'optexp' were not CUDA graphs: the update of AdamW")


# ---- small models


def test_the_contests_of_small_models_are_those_of_the_goals() -> None:
    from benchmarks import gpu_small
    from benchmarks.contest import Size
    from benchmarks.optexp_loop import Source

    *single, together = gpu_small.contests(Size())
    for contest in single:
        assert [each.name for each in contest.contestants] == ["optexp", "optexp, no graph", "bare", "bare, tuned"]
        assert contest.goals == {"bare": 5.0}
    assert together.name == "gpu: 64 runs of 1000 steps, MLP, AdamW, clip 1.0, fp32"
    assert together.goals == {"bare, 8 of 64 one after another, × 8": 20.0}
    for words in gpu_small.MODELS.values():
        training = Source(words).training()
        assert training.model_facts["parameters"] <= 1_000_000
        assert training.engine.precision == "fp32"
        assert training.engine.cuda_graph is None


@pytest.mark.parametrize("number", [0, 1])
def test_small_models_compete(number: int) -> None:
    from benchmarks import gpu_small
    from benchmarks.contest import Size, hold

    outcome = hold(gpu_small.contests(Size(steps=10))[number], 1, lambda text: None)
    assert 0 <= outcome.differences["first steps"] < gpu_small.TOLERANCE
    for (cost,) in outcome.costs.values():
        assert cost.also == {"steps/s": pytest.approx(1000 / cost.value)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("number", range(4))
def test_small_models_compete_as_graphs_on_a_gpu(number: int) -> None:
    from benchmarks import gpu_small
    from benchmarks.contest import Size, hold

    outcome = hold(gpu_small.contests(Size(steps=20))[number], 1, lambda text: None)
    assert outcome.differences["first steps"] < gpu_small.TOLERANCE
    for (cost,) in outcome.costs.values():
        assert cost.value > 0
        assert cost.also["peak GPU MB"] > 0


def test_runs_in_one_program_compete_with_as_many_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_runs, gpu_small
    from benchmarks.contest import hold

    trained: list[int] = []
    honest = gpu_runs.train

    def counting(program: Any, members: Any, *others: Any) -> None:
        trained.append(len(members))
        honest(program, members, *others)

    monkeypatch.setattr(gpu_runs, "train", counting)
    outcome = hold(gpu_small.together_contest(10, members=4, loops=2), 1, lambda text: None)
    assert trained == [4, 4, 4, 4], "two programs of the check, two that are timed"
    names = ["optexp, 4 in one program", "optexp, no graph, 4 in one program"]
    names += [f"{name}, 2 of 4 one after another, × 2" for name in ("bare", "bare, tuned")]
    assert list(outcome.costs) == names
    assert 0 <= outcome.differences["first steps"] < gpu_small.TOLERANCE
    for (cost,) in outcome.costs.values():
        assert cost.also == {"steps/s of all": pytest.approx(4 * 10 / cost.value)}


def test_the_time_of_some_loops_counts_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_small

    monkeypatch.setattr(gpu_small, "timed", lambda run, steps: (3.0, {}))
    costs = [each.run().value for each in gpu_small.together_contest(10, members=64, loops=8).contestants]
    assert costs == [3, 3, 24, 24]


def test_unequal_mathematics_of_small_models_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import bare, gpu_small

    monkeypatch.setattr(bare, "cosine", lambda step, total_steps: 1.0)  # as a graph that keeps its learning rate
    with pytest.raises(AssertionError, match="MLP: 'bare' and 'optexp': its losses differ"):
        gpu_small.largest_difference("MLP", gpu_small.MODELS["MLP, AdamW, clip 1.0"])


# ---- large models


@pytest.fixture
def workloads() -> list[Any]:
    """Return the two workloads for a GPU, so small that they run on a CPU."""
    from benchmarks import gpu

    images, text = gpu.WORKLOADS
    small_images = ("model.depth=8", "model.width=4", "dataset.shape=[3,8,8]", "dataset.num_images=200")
    small_text = ("model.layers=1", "model.width=16", "model.heads=2", "dataset.vocabulary_size=64")
    small_text = (*small_text, "dataset.context_length=16", "dataset.num_tokens=2000")
    return [
        dataclasses.replace(images, words=(*images.words, *small_images, "dataset.batch_size=8")),
        dataclasses.replace(text, words=(*text.words, *small_text, "dataset.batch_size=4")),
    ]


def test_the_contests_for_a_gpu_run_with_tiny_sizes(workloads: list[Any]) -> None:
    from benchmarks import gpu, lightning_loop
    from benchmarks.contest import hold

    peers = ([lightning_loop.NAME] if lightning_loop.is_installed() else [], [])
    for workload, samples, unit, others in zip(workloads, (8, 4 * 16), ("img/s", "tokens/s"), peers, strict=True):
        outcome = hold(gpu.contest(workload, steps=10, compiled=False), 1, lambda text: None)
        assert outcome.differences["first steps"] < gpu.TOLERANCE
        assert list(outcome.costs) == ["optexp", gpu.RESIDENT, *others]
        for name in outcome.costs:
            (cost,) = outcome.costs[name]
            assert cost.also == {unit: pytest.approx(1000 * samples / cost.value)}


def test_unequal_mathematics_of_the_resident_loop_is_noticed(
    workloads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import gpu, gpu_runs

    monkeypatch.setattr(gpu_runs, "cosine", lambda step, total_steps: 10.0)
    with pytest.raises(AssertionError, match="resident loop: its losses differ"):
        gpu.largest_difference(workloads[0])


def test_the_share_of_the_peak_counts_the_operations_of_gpt2(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu

    from optexp.models.transformer import Transformer

    layers, width, context, vocabulary = 12, 768, 1024, 50304
    with torch.device("meta"):
        model = Transformer(vocabulary, context, layers, width, heads=12)
    # Of each layer: attention 4 C² + 4 C, feed-forward 8 C² + 5 C, two normalizations of 2 C; then one more of 2 C.
    parameters = vocabulary * width + layers * (12 * width**2 + 13 * width) + 2 * width
    flops = 6 * parameters + 12 * layers * width * context
    assert gpu.transformer_flops_per_token(model) == flops
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert gpu.peak_flops(torch.device("cuda", 0)) == 989e12
    assert gpu.peak_flops(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Unknown 1")
    assert gpu.peak_flops(torch.device("cuda", 0)) is None


def test_lightning_competes_in_bf16_and_from_step_to_step(
    workloads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightning")
    from benchmarks import gpu_runs
    from benchmarks.optexp_loop import Source, rows_of

    source = Source([*workloads[0].words, "engine.max_steps=4"])
    rows = rows_of(source.training(), 4)
    exact, rounded = (gpu_runs.fit_lightning(source.problem(), name, 4, rows) for name in ("32-true", "bf16-mixed"))
    differences = [abs(float(one) - float(other)) / float(one) for one, other in zip(exact, rounded, strict=True)]
    assert 1e-5 < max(differences) < 0.03
    ticks: list[int] = []
    monkeypatch.setattr(gpu_runs.Clock, "tick", lambda self, step: ticks.append(step))
    gpu_runs.run_lightning(source, "bf16-mixed", gpu_runs.Clock(1, 3))
    assert ticks == [0, 1, 2, 3]


def test_without_lightning_the_others_compete_on_images(workloads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu, lightning_loop

    monkeypatch.setattr(lightning_loop, "find_spec", lambda name: None)
    contest = gpu.contest(workloads[0], steps=10, compiled=False)
    assert [each.name for each in contest.contestants] == ["optexp", gpu.RESIDENT]
    assert contest.notes == [lightning_loop.MISSING]
