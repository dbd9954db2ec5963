"""Captured steps are the steps as they are written; shown on a CPU with a graph that records operations."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from recorded_graph import RecordedGraph
from torch import Tensor, nn
from trainings import Rows, assembled, group, member_of, trained

import optexp.fuse
from optexp import transfers
from optexp.assemble import Training
from optexp.datasets.base import Augmentation
from optexp.datasets.batches import Batch, Clock, TrainBatches
from optexp.engine.fused import FusedRuns
from optexp.engine.graphs import CapturedSteps
from optexp.engine.guard import Guard
from optexp.engine.loop import Ending, train
from optexp.engine.objective import Objective
from optexp.engine.runtime import Interruption
from optexp.engine.single import SingleRun
from optexp.engine.step_log import DeviceLog
from optexp.errors import BadInput
from optexp.instruments.look import Look
from optexp.nn.dropout import StackedStepState, StepState

# Learning rates that single and double precision both hold: a captured update reads them in single precision.
HALVED = ("schedule=step", "schedule.unit=step", "schedule.step_size=4", "schedule.gamma=0.5", "optimizer.lr=0.015625")
COMMON = ("engine.max_steps=30", "engine.log_every=5", "engine.eval_every=15", *HALVED)
MODELS = {
    "mlp": ("model=mlp", "model.hidden=[16]"),
    "resnet": ("model=resnet", "model.width=8"),
    "transformer": ("model=transformer", "dataset=pydocs", "model.width=16", "model.dropout=0.1"),
}


def as_on_a_device(training: Training, captured: bool = True) -> Training:
    """Give a training the program that it would have on a GPU."""
    program = SingleRun(
        training.model,
        training.optimizer,
        Objective(training.dataset.objective, training.engine.label_smoothing),
        training.batches,
        training.precision,
        seed=training.seed,
        clip_norm=training.engine.clip_norm,
        accumulate=training.engine.accumulate,
        guard=Guard(training.optimizer, training.device, on_device=True),
        captured=captured,
        new_graph=RecordedGraph,
    )
    assert isinstance(program.log, DeviceLog)
    training.__dict__["program"] = program
    return training


def replays(program: SingleRun | FusedRuns) -> dict[Look, int]:
    assert isinstance(program.take, CapturedSteps)
    assert program.take.refused is None
    return {look: graph.replays for look, (graph, _, _) in program.take._captured.items()}  # type: ignore[attr-defined]


def assert_close(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> None:
    """Rows agree as those of a device and of the host do, which round differently."""
    assert [row.keys() for row in found] == [row.keys() for row in expected]
    for row, other in zip(found, expected, strict=True):
        for tag, value in other.items():
            counted = tag.endswith(("sign_changes", "unexplained", "fit_residual"))
            assert row[tag] == pytest.approx(value, rel=1e-4, abs=1e-2 if counted else 1e-7), tag


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "words",
    [
        ("optimizer=sgd", "optimizer.dampening=0.5", "engine.clip_norm=1.0"),
        ("optimizer=adam", "engine.accumulate=2"),
        ("optimizer=adamw", "engine.clip_norm=0.5", "engine.label_smoothing=0.1"),
        ("optimizer=adagrad",),
    ],
)
def test_a_captured_run_is_the_run(model: str, words: tuple[str, ...]) -> None:
    words = (*MODELS[model], *COMMON, *words, "optimizer.fused=true")
    written, captured = (as_on_a_device(assembled(*words), captured) for captured in (False, True))
    (ending, _, expected), (other, _, found) = trained(written), trained(captured)
    assert other == ending
    assert found.without_times() == expected.without_times()
    assert replays(captured.program) == {Look.NOTHING: 17, Look(accuracy=True, sizes=True): 2}
    assert_close(expected.without_times()[:3], trained(assembled(*words))[2].without_times()[:3])


def test_augmented_images_are_drawn_anew_in_every_replay() -> None:
    def augmented(captured: bool) -> Training:
        training = assembled(*MODELS["resnet"], *COMMON, "optimizer=sgd")
        shaken = replace(training.dataset, augmentation=Augmentation(crop=1, flip=True))
        batches = TrainBatches(shaken, training.plan.samples_per_step, training.seed, training.device)
        return as_on_a_device(replace(training, dataset=shaken, batches=batches), captured)

    captured = augmented(captured=True)
    assert trained(captured)[2].without_times() == trained(augmented(captured=False))[2].without_times()
    assert replays(captured.program) == {Look.NOTHING: 17, Look(accuracy=True, sizes=True): 2}


class Noisy(nn.Module):
    """A model of somebody's that draws from torch's own generator."""

    def __init__(self, input_shape: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(math.prod(input_shape), num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layers(x)
        return outputs


class Waiting(Noisy):
    """One that asks the device for a number in every step."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2.0 if x.sum().item() > 0 else 1.0)


def foreign(kind: type[nn.Module], *words: str) -> Training:
    target = f"{kind.__module__}.{kind.__qualname__}"
    return assembled(*COMMON, *words, f"trust=[{kind.__module__}]", model={"_target_": target})


def test_torchs_generators_are_set_before_every_replay() -> None:
    expected = trained(as_on_a_device(foreign(Noisy), captured=False))[2]
    captured = as_on_a_device(foreign(Noisy))
    assert trained(captured)[2].without_times() == expected.without_times()
    assert replays(captured.program) == {Look.NOTHING: 17, Look(accuracy=True, sizes=True): 2}


def test_a_step_that_waits_is_taken_as_it_is_written(caplog: pytest.LogCaptureFixture) -> None:
    expected = trained(as_on_a_device(foreign(Waiting), captured=False))[2]
    training = as_on_a_device(foreign(Waiting))
    assert trained(training)[2].without_times() == expected.without_times()
    assert isinstance(training.program.take, CapturedSteps)
    assert training.program.take.refused is not None
    assert [record.message for record in caplog.records] == [
        "steps are not captured as CUDA graphs: operation not permitted when stream is capturing: _local_scalar_dense"
    ]


def test_a_graph_that_does_something_else_is_not_used() -> None:
    class Wrong(RecordedGraph):
        def replay(self) -> None:
            self.operations = [one for one in self.operations if "_fused_" not in one[0].__name__]
            super().replay()

    words = (*MODELS["mlp"], *COMMON, "optimizer=sgd")
    expected = trained(as_on_a_device(assembled(*words), captured=False))[2]
    training = as_on_a_device(assembled(*words))
    assert isinstance(training.program.take, CapturedSteps)
    training.program.take._new_graph = Wrong
    assert trained(training)[2].without_times() == expected.without_times()
    assert training.program.take.refused == "a replayed step differs by 100.0% from the step that was captured"


@pytest.mark.parametrize("forgotten", ["the batch", "the learning rate", "the masks"])
def test_a_number_that_is_baked_into_the_graph_is_noticed(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle of these tests sees what it is there to see."""
    words = (*MODELS["transformer"], *COMMON, "optimizer=sgd")
    expected = trained(as_on_a_device(assembled(*words), captured=False))[2]
    captured = as_on_a_device(assembled(*words))
    compute = transfers.HostNumbers.compute
    batch_size = captured.plan.samples_per_step
    shape = {"the batch": (batch_size,), "the learning rate": (), "the masks": (1, 2)}[forgotten]

    def forgetful(numbers: transfers.HostNumbers) -> None:
        before = [place.value for place in numbers._places]
        compute(numbers)
        for place, value in zip(numbers._places, before, strict=True):
            if value.shape == shape:
                place.value = value

    monkeypatch.setattr(transfers.HostNumbers, "compute", forgetful)
    assert trained(captured)[2].without_times() != expected.without_times()
    assert replays(captured.program) == {Look.NOTHING: 17, Look(accuracy=True, sizes=True): 2}


def test_masks_cannot_be_drawn_from_a_number_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def baked(state: StepState, purpose: str, layer: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.tensor(float(state.step)).expand(shape)

    monkeypatch.setattr(StepState, "uniform", baked)
    training = as_on_a_device(assembled(*MODELS["transformer"], *COMMON, "optimizer=sgd"))
    trained(training)
    assert isinstance(training.program.take, CapturedSteps)
    assert training.program.take.refused is not None
    assert "baked" in training.program.take.refused


def test_it_is_refused_where_there_is_no_cuda() -> None:
    with pytest.raises(BadInput) as refused:
        assembled(*MODELS["mlp"], "engine.cuda_graph=true", "engine.device=cpu")
    assert str(refused.value) == "engine.cuda_graph=true: engine.device is cpu; allowed here are false and null"


def test_it_is_refused_where_the_update_needs_the_host() -> None:
    training = assembled(*MODELS["mlp"], "optimizer=rmsprop")
    training.engine = replace(training.engine, cuda_graph=True)
    with pytest.raises(
        BadInput, match=r"engine\.cuda_graph=true: the update of RMSprop is not one of torch's fused ones;"
    ):
        _ = training.program


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("optimizer=rmsprop",), "the update of RMSprop is not one of torch's fused ones"),
        (("engine.precision=fp64",), "torch's kernels read a learning rate on the device in single precision"),
    ],
)
def test_steps_that_need_the_host_are_not_captured(words: tuple[str, ...], reason: str) -> None:
    training = as_on_a_device(assembled(*MODELS["mlp"], *COMMON, *words))
    assert training.program.why_not_captured == reason
    assert not isinstance(training.program.take, CapturedSteps)


# ------------------------------------------------------------------------------------------------------ several members

RULES = ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"]
THREE = [("seed=1",), ("seed=2", "optimizer.lr=2e-3", "engine.clip_norm=0.5"), ("seed=1", "optimizer.lr=3e-3")]


def program_of(trainings: Sequence[Training], captured: bool) -> FusedRuns:
    """Fuse as on a GPU."""
    program: Any = functools.partial(FusedRuns, on_host=False, new_graph=RecordedGraph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            optexp.fuse, "FusedRuns", lambda *given, **named: program(*given, **named | {"captured": captured})
        )
        found: FusedRuns = optexp.fuse.fuse(trainings)
    found.optimizer.by_kernel = False
    return found


def together(common: Sequence[str], captured: bool) -> tuple[list[tuple[Ending | None, Rows]], FusedRuns]:
    trainings = group(common, THREE)
    program = program_of(trainings, captured)
    members = [member_of(training) for training in trainings]
    train(program, [member for member, _ in members], trainings[0].plan, trainings[0].validation, Interruption())
    return [(member.ending, rows) for member, rows in members], program


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("model", MODELS)
def test_a_captured_group_is_the_group(model: str, optimizer: str) -> None:
    common = [*MODELS[model], *COMMON, f"optimizer={optimizer}", "engine.label_smoothing=0.1"]
    expected, _ = together(common, captured=False)
    found, program = together(common, captured=True)
    assert replays(program) == {Look.NOTHING: 17, Look(accuracy=True, sizes=True): 2}
    for (ending, rows), (other, others) in zip(found, expected, strict=True):
        assert ending == other
        assert rows.without_times() == others.without_times()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_member_that_diverges_is_found_when_metrics_arrive(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on in graphs captured anew; the diverged one ends where it does when the host looks each time."""
    common = [*MODELS["mlp"], *COMMON, "engine.max_steps=40", "optimizer=adam"]
    stacked = TrainBatches.stacked

    def poisoned(members: Sequence[TrainBatches], clock: Clock) -> Batch:
        batch = stacked(members, clock)
        if len(members) < 3:
            return batch
        bad = transfers.to_device(lambda: torch.tensor(value if clock() == 11 else 0.0), batch.inputs.device)
        inputs = batch.inputs.clone()
        inputs[1, 0] += bad
        return Batch(inputs, batch.targets)

    monkeypatch.setattr(TrainBatches, "stacked", staticmethod(poisoned))
    expected, _ = together(common, captured=False)
    assert expected[1][0] == Ending("diverged", 11, "train/loss is nan at step 12; the update was not applied")
    for late in (False, True):
        if late:  # as on a device that is some steps behind
            monkeypatch.setattr(transfers.ToHost, "arrived", lambda reading: False)
        found, program = together(common, captured=True)
        for (ending, rows), (other, others) in zip(found, expected, strict=True):
            assert ending == other
            assert rows.without_times() == others.without_times()
        assert program.members == 2
        assert sum(replays(program).values()) > 10


# ------------------------------------------------------------------------------------------------------ late readings


@pytest.mark.parametrize("captured", [False, True])
def test_readings_that_arrive_late_are_recorded_in_order(captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*MODELS["mlp"], *COMMON, "optimizer=sgd", "engine.checkpoint_every=7", "engine.log_every=3")
    expected = trained(assembled(*words))[2]
    monkeypatch.setattr(transfers.ToHost, "arrived", lambda reading: False)
    found = trained(as_on_a_device(assembled(*words), captured))[2]
    assert_close(found.without_times(), expected.without_times())


def test_a_run_that_diverges_unseen_ends_at_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*MODELS["mlp"], "engine.max_steps=60", "schedule=constant", "optimizer.lr=1e15", "engine.log_every=10")
    ending, _, expected = trained(assembled(*words))
    monkeypatch.setattr(transfers.ToHost, "arrived", lambda reading: False)
    training = as_on_a_device(assembled(*words))
    late, _, found = trained(training)
    assert late == ending
    assert late.status == "diverged"
    assert found.rows[-1]["step"] == expected.rows[-1]["step"]
    assert all(bool(torch.isfinite(parameter).all()) for parameter in training.model.parameters())


def test_the_log_of_a_device_outgrows_its_ring_and_survives_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceLog, "CAPACITY", 4)
    words = (*MODELS["mlp"], *COMMON, "engine.log_every=50", "engine.eval_every=30")
    expected = trained(assembled(*words))[2]
    assert_close(trained(as_on_a_device(assembled(*words)))[2].without_times(), expected.without_times())
    first, second = (as_on_a_device(assembled(*words)) for _ in range(2))
    for step in range(11):
        first.program.step(step, [0.01])
    second.program.load_state(0, first.program.state(0))
    assert second.program.log.losses == first.program.log.losses
    for program in (first.program, second.program):
        for step in range(11, 14):
            program.step(step, [0.01])
    assert second.program.read().rows() == first.program.read().rows()


def test_draws_on_the_device_are_those_of_the_host() -> None:
    for state, shape in ((StepState(seed=3, step=5), (7,)), (StackedStepState([3, 4], torch.device("cpu"), 5), (7,))):
        arguments: Any = ("dropout", 2, shape, torch.device("cpu"))[: 4 if isinstance(state, StepState) else 3]
        expected = state.uniform(*arguments)
        numbers = transfers.HostNumbers(torch.device("cpu"))
        for again in (False, True):
            with numbers.placed(again):
                assert torch.equal(state.uniform(*arguments), expected)
        state.step = 6
        expected = state.uniform(*arguments)
        numbers.compute()
        numbers.send()
        with numbers.placed(again=True):
            assert torch.equal(state.uniform(*arguments), expected)


def test_a_step_that_asks_for_other_numbers_is_not_captured() -> None:
    numbers = transfers.HostNumbers(torch.device("cpu"))
    with numbers.placed():
        transfers.to_device(lambda: torch.ones(2), torch.device("cpu"))
    with numbers.placed(again=True):
        transfers.to_device(lambda: torch.ones(2), torch.device("cpu"))
        with pytest.raises(RuntimeError, match="other numbers than in the step before"):
            transfers.to_device(lambda: torch.ones(2), torch.device("cpu"))
    with numbers.placed(), pytest.raises(RuntimeError, match="more than 65536 bytes"):
        transfers.to_device(lambda: torch.ones(1 << 15), torch.device("cpu"))
