"""What can be trained together, and how many at once: by measurement."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from optexp import fuse as module
from optexp.engine.fused import FusedRuns
from optexp.engine.single import SingleRun
from optexp.errors import Unstackable
from optexp.fuse import fuse, group_size, unfusable

sys.path.append(str(Path(__file__).parent / "engine"))

from trainings import assembled, group

MLP = ("model=mlp", "model.hidden=[9]", "dataset.batch_size=8", "engine.max_steps=30")


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"])
def test_optimizers_with_a_rule_can_be_fused(optimizer: str) -> None:
    training = assembled(*MLP, f"optimizer={optimizer}")
    assert unfusable(training) is None
    assert isinstance(fuse([training, training]), FusedRuns)


UNFUSABLE: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "no rule": (
        MLP,
        {"optimizer": {"_target_": "torch.optim.NAdam"}},
        "NAdam has no update rule for many members at once",
    ),
    "fp16": ((*MLP, "engine.precision=fp16"), {}, "engine.precision=fp16 scales the loss of each run by itself"),
}


@pytest.mark.parametrize("name", UNFUSABLE)
def test_what_cannot_be_fused_is_known_beforehand(name: str) -> None:
    words, nodes, reason = UNFUSABLE[name]
    training = assembled(*words, **nodes)
    assert unfusable(training) == reason
    with pytest.raises(Unstackable, match=reason):
        fuse([training, training])


def test_settings_that_must_be_common_are_refused() -> None:
    trainings = group((*MLP, "optimizer=adam"), [("optimizer.amsgrad=true",), ()])
    with pytest.raises(Unstackable, match=r"optimizer\.amsgrad differs between members"):
        fuse(trainings)
    with pytest.raises(Unstackable, match=r"optimizer\.capturable is true"):
        fuse(group((*MLP, "optimizer=rmsprop", "optimizer.capturable=true"), [(), ("seed=1",)]))


def test_a_model_that_draws_by_itself_is_refused_with_the_reason() -> None:
    """torch's dropout asks the global generator, which many runs at once cannot do as each does alone."""
    sample = group(("trust=[foreign]", "model=drawing", *MLP[2:]), [("seed=0",), ("seed=1",)])
    assert unfusable(sample[0]) is None
    with pytest.raises(Unstackable, match=r"its model cannot be vectorized: .*random"):
        group_size(sample, 10)


def test_measuring_leaves_the_runs_as_they_were() -> None:
    sample = group(MLP, [("seed=0",), ("seed=1", "optimizer.lr=0.1")])
    before = [copy.deepcopy((one.model.state_dict(), one.optimizer.state_dict())) for one in sample]
    size, reason = group_size(sample, 5)
    assert (size, reason) == (5, "") or (size == 0 and "one by one" in reason)  # by real measurement
    for training, (model, optimizer) in zip(sample, before, strict=True):
        assert training.optimizer.state_dict() == optimizer
        for name, value in training.model.state_dict().items():
            assert torch.equal(value, model[name])
        assert training.program.log.losses == []


class Machine:
    """A machine that takes the given milliseconds for a step of so many runs, and has as much memory as it is given."""

    def __init__(self, patch: pytest.MonkeyPatch, alone: float, together: Callable[[int], float]) -> None:
        self.alone, self.together = alone, together
        self.tried: list[int] = []
        self.used, self.left = 0, 2**40
        patch.setattr(module, "fuse", self.fuse)
        patch.setattr(module, "_seconds", self.seconds)
        patch.setattr(module, "_memory_in_use", lambda device: self.used)
        patch.setattr(module, "_memory_left", lambda device: self.left)

    def fuse(self, trainings: list[Any]) -> list[Any]:
        self.tried.append(len(trainings))
        self.used = max(self.used, 2**20 * len(trainings))  # a megabyte each, the most so far
        return trainings

    def seconds(self, program: Any, training: Any, members: int) -> float:
        if isinstance(program, SingleRun):
            return self.alone / 1000
        assert len(program) == members
        return self.together(members) / 1000


@pytest.fixture(scope="module")
def sample() -> list[Any]:
    return group(MLP, [("seed=0",), ("seed=1",)])


def test_numbers_double_while_a_share_of_a_step_falls(sample: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, alone=1, together=lambda members: 1 + 0.01 * members)
    assert group_size(sample, 1000) == (256, "")
    assert machine.tried == [8, 16, 32, 64, 128, 256]
    machine.tried.clear()
    assert group_size(sample, 100) == (100, "")
    assert machine.tried == [8, 16, 32, 64, 100]
    machine.tried.clear()
    assert group_size(sample, 3) == (3, "")
    assert machine.tried == [3]


def test_numbers_stop_when_a_share_grows(sample: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 32 the caches are too small: 0.10 ms each at 8, 0.05 at 16, 0.052 at 32, 0.2 from there."""
    shares = {8: 0.10, 16: 0.05, 32: 0.052, 64: 0.2}
    machine = Machine(monkeypatch, alone=1, together=lambda members: members * shares[members])
    assert group_size(sample, 1000) == (32, "")
    assert machine.tried == [8, 16, 32, 64]


def test_a_larger_program_may_cost_a_tenth_more(sample: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {8: 0.100, 16: 0.109, 32: 0.109, 64: 0.111}
    Machine(monkeypatch, alone=1, together=lambda members: members * shares[members])
    assert group_size(sample, 1000) == (32, "")


@pytest.mark.parametrize(("share", "size"), [(0.89, 10), (0.91, 0), (1.5, 0)])
def test_no_program_when_it_does_not_pay(
    sample: list[Any], monkeypatch: pytest.MonkeyPatch, share: float, size: int
) -> None:
    Machine(monkeypatch, alone=1, together=lambda members: members * share)
    found, reason = group_size(sample, 10)
    assert found == size
    assert reason == ("" if size else f"together a step would take {share:.2g} ms of each, one by one 1 ms")


def test_memory_bounds_a_program(sample: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of 2 n may grow by as much again, which must fit into half of what is left."""
    machine = Machine(monkeypatch, alone=1, together=lambda members: 1)
    machine.left = 100 * 2**20
    assert group_size(sample, 1000) == (64, "")
    assert machine.tried == [8, 16, 32, 64]


def test_memory_that_runs_out_bounds_a_program(sample: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def together(members: int) -> float:
        if members > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1

    machine = Machine(monkeypatch, alone=1, together=together)
    assert group_size(sample, 1000) == (16, "")
    assert machine.tried == [8, 16, 32]


def test_what_fails_in_larger_programs_only_bounds_them(sample: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def together(members: int) -> float:
        if members > 8:
            raise RuntimeError("more than 2^31 elements")
        return 1

    Machine(monkeypatch, alone=1, together=together)
    assert group_size(sample, 1000) == (8, "")


def test_what_fails_at_once_is_a_reason(sample: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def together(members: int) -> float:
        raise RuntimeError("vmap: no batching rule\nfor this operator")

    Machine(monkeypatch, alone=1, together=together)
    with pytest.raises(Unstackable, match=r"^its model cannot be vectorized: vmap: no batching rule$"):
        group_size(sample, 1000)


def test_no_memory_even_for_the_smallest_program_is_a_reason(
    sample: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def together(members: int) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    Machine(monkeypatch, alone=1, together=together)
    assert group_size(sample, 1000) == (0, "memory is too short for 8 at once")


def test_the_time_of_a_step_is_the_shortest_of_a_few(sample: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes a whole second more than the one before, but for the sixth; two do not count."""
    durations = [1, 1, 7, 6, 8, 3, 9]
    times = iter([sum(durations[: (tick + 1) // 2]) for tick in range(2 * len(durations))])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(module.time, "thread_time", module.time.perf_counter)
    taken = []

    class Program:
        def step(self, *arguments: Any) -> list[int]:
            taken.append(arguments)
            return []

    assert module._seconds(Program(), sample[0], 3) == 3
    assert taken == [(step, [0.05] * 3) for step in range(7)]
