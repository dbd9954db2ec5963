"""Monitor in the training loops that people have: mixed precision, accumulation, schedulers, DDP, other optimizers."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from loops import batches, hooks, network, sgd, train, weights
from pytorch_optimizer import Lion
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import LBFGS, SGD, Adam, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, OneCycleLR

from optexp import Monitor
from optexp.errors import BadInput

UNEXPLAINED = "ledger/group0/unexplained"


def test_autocast_in_bfloat16() -> None:
    model = network()
    optimizer = sgd(model)
    monitor = Monitor(model, optimizer, every=1)
    norms = []
    for inputs, targets in batches(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        norms.append(math.hypot(*[p.grad.norm().item() for p in model.parameters()]))
        optimizer.step()
        monitor.step(loss)
    rows = monitor.history().rows
    assert [row["optim/grad_norm"] for row in rows] == pytest.approx(norms, rel=1e-5)
    assert abs(rows[-1][UNEXPLAINED]) < 1e-4


def scaled_step(
    model: nn.Module, optimizer: Optimizer, scaler: GradScaler, batch: tuple[Tensor, Tensor], clip: float | None = None
) -> tuple[Tensor, float]:
    """Take a step with a scaled loss; return the loss, and the norm of the gradient of the unscaled one."""
    inputs, targets = batch
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), targets)
    scaler.scale(loss).backward()
    norm = math.hypot(*[p.grad.norm().item() for p in model.parameters()]) / scaler.get_scale()
    if clip is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    scaler.step(optimizer)
    scaler.update()
    return loss, norm


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("fused", [False, True])
def test_a_loss_scale_is_taken_out(fused: bool, clip: float | None) -> None:
    """torch's fused optimizers get scaled gradients and divide by themselves; the others get them divided."""
    model = network()
    optimizer = Adam(model.parameters(), lr=0.01, fused=fused)
    scaler = GradScaler("cpu", init_scale=512.0)
    monitor = Monitor(model, optimizer, every=1, scaler=scaler)
    norms = []
    for batch in batches(6):
        loss, norm = scaled_step(model, optimizer, scaler, batch, clip)
        monitor.step(loss)
        norms.append(norm)
    rows = monitor.history().rows
    assert [row["optim/grad_norm"] for row in rows] == pytest.approx(norms, rel=1e-5)
    expected = [1.0 if clip is None else min(1.0, clip / norm) for norm in norms]
    assert [row.get("optim/clip_coefficient", 1.0) for row in rows] == pytest.approx(expected, rel=1e-4)
    assert abs(rows[3][UNEXPLAINED]) < 1e-4


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_overflow_are_none(fused: bool) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.01, fused=fused)
    scaler = GradScaler("cpu", init_scale=2.0)
    monitor = Monitor(model, optimizer, every=1, scaler=scaler)
    for number, (inputs, targets) in enumerate(batches(8)):
        overflows = number in (0, 1, 4)
        before = weights(model)
        loss, _ = scaled_step(model, optimizer, scaler, (inputs * (math.inf if overflows else 1), targets))
        monitor.step(0.0 if overflows else loss)
        assert torch.equal(before, weights(model)) == overflows
    steps = {row["step"] for row in monitor.history().rows if row.get("optim/update_ratio")}
    assert steps == {1, 2, 3, 4, 5}


def test_a_scaler_that_nobody_told_of_is_refused_where_it_would_be_taken_for_clipping() -> None:
    model = network()
    optimizer, scaler = sgd(model), GradScaler("cpu", init_scale=512.0)
    monitor = Monitor(model, optimizer)
    with pytest.raises(BadInput, match=r"^scaler: is not given"):
        scaled_step(model, optimizer, scaler, batches(1)[0], clip=0.05)
    monitor.close()


def test_accumulated_gradients_are_those_of_the_whole_step() -> None:
    """Parts of a batch give the row of the whole."""
    rows = []
    for parts in (1, 4):
        model = network()
        optimizer = sgd(model)
        monitor = Monitor(model, optimizer, every=1)
        for inputs, targets in batches(4):
            optimizer.zero_grad()
            total = 0.0
            for x, y in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
                loss = F.cross_entropy(model(x), y) / parts
                loss.backward()
                total += loss.item()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            monitor.step(total)
        rows.append([{tag: v for tag, v in row.items() if tag != "time"} for row in monitor.history().rows])
    for whole, accumulated in zip(*rows, strict=True):
        assert accumulated == pytest.approx(whole, rel=1e-3, abs=1e-4)


def test_the_rate_is_that_of_the_step_and_the_base_that_of_the_scheduler() -> None:
    model = network()
    optimizer = sgd(model, lr=0.1)
    scheduler = ExponentialLR(optimizer, 0.5)
    monitor = Monitor(model, optimizer, every=1)
    for batch in batches(4):
        train(model, optimizer, [batch], monitor.step)
        scheduler.step()
    history = monitor.history()
    assert [row["optim/lr"] for row in history.rows] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert [row["optim/effective_lr"] for row in history.rows] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert history.settings["lr"] == 0.1
    assert history.schedule is None


def constant(optimizer: Optimizer) -> Any:
    return ExponentialLR(optimizer, 1.0)


def rising(optimizer: Optimizer) -> Any:
    return LinearLR(optimizer, 0.01, 1.0, total_iters=10)


def one_cycle(optimizer: Optimizer) -> Any:
    return OneCycleLR(optimizer, 0.1, total_steps=40, pct_start=0.25)


@pytest.mark.parametrize(("scheduler", "steps"), [(constant, None), (rising, 11), (one_cycle, 10)])
def test_warm_up_is_seen_in_the_rates(scheduler: Callable[[Optimizer], Any], steps: int | None) -> None:
    model = network()
    optimizer = sgd(model, lr=0.1)
    schedule = scheduler(optimizer)
    monitor = Monitor(model, optimizer, every=1)
    for batch in batches(30):
        train(model, optimizer, [batch], monitor.step)
        schedule.step()
    history = monitor.history()
    assert history.settings["lr"] == pytest.approx(0.1)
    assert (history.schedule.warmup_steps if history.schedule else None) == steps


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed_data_parallel() -> None:
    rows = []
    for wrap in (lambda model: model, DistributedDataParallel):
        model = network()
        wrapped, optimizer = wrap(model), sgd(model)
        monitor = Monitor(wrapped, optimizer, every=1)
        train(wrapped, optimizer, batches(4), monitor.step, 0.05, model.parameters())
        rows.append([{tag: v for tag, v in row.items() if tag != "time"} for row in monitor.history().rows])
    assert rows[1] == [pytest.approx(row, rel=1e-6, abs=1e-6) for row in rows[0]]
    assert "layer/0.weight/grad_norm" in rows[1][1]


@pytest.mark.slow
def test_gradients_are_looked_at_after_their_reduction_over_processes(tmp_path: Path) -> None:
    program = Path(__file__).with_name("two_processes.py")
    ended = subprocess.run([sys.executable, program, tmp_path / "store"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_compiled_models_keep_their_names() -> None:
    model = network()
    compiled = torch.compile(model, backend="eager")
    optimizer = sgd(model)
    monitor = Monitor(compiled, optimizer, every=1)
    train(compiled, optimizer, batches(3), monitor.step)
    history = monitor.history()
    assert {tag for row in history.rows for tag in row if tag.endswith("grad_norm")} == {
        "optim/grad_norm",
        "layer/0.weight/grad_norm",
        "layer/2.weight/grad_norm",
    }
    assert history.inputs is not None


class HandWritten(Optimizer):
    """SGD with dampened momentum, as one would write it."""

    def __init__(self, params: Any, lr: float, momentum: float, dampening: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("buffer", p.grad.clone())
                buffer.mul_(group["momentum"]).add_(p.grad, alpha=1 - group["dampening"])
                p.sub_(buffer, alpha=group["lr"])


def test_the_effective_rate_of_a_hand_written_rule_is_measured() -> None:
    model = network()
    optimizer = HandWritten(model.parameters(), 0.01, 0.9, 0.5)
    monitor = Monitor(model, optimizer)
    train(model, optimizer, batches(20), monitor.step)
    row = monitor.history().rows[-1]
    assert row["probe/effective_lr"] == pytest.approx(0.01 * 0.5 / 0.1, rel=1e-3)


def test_an_optimizer_of_another_package() -> None:
    model = network()
    optimizer = Lion(model.parameters(), lr=0.01, weight_decay=0.1)
    monitor = Monitor(model, optimizer)
    train(model, optimizer, batches(20), monitor.step)
    assert abs(monitor.history().rows[-1][UNEXPLAINED]) < 1e-3


class Calling(SGD):
    """Its step calls that of its base class: torch runs hooks twice once the base class has been used itself."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_a_step_within_a_step_is_one_step() -> None:
    rows = []
    for kind in (SGD, Calling):
        model = network()
        optimizer = kind(model.parameters(), lr=0.01, momentum=0.9)
        monitor = Monitor(model, optimizer, every=1)
        train(model, optimizer, batches(4), monitor.step)
        rows.append(monitor.history().rows[-1]["optim/update_ratio"])
    assert rows[0] == rows[1]


class Evaluation:
    """A closure as optimizers want it; it notes the norms of the gradients."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, inputs: Tensor, targets: Tensor) -> None:
        self.of = model, optimizer, inputs, targets
        self.norms: list[float] = []

    def __call__(self) -> Tensor:
        model, optimizer, inputs, targets = self.of
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        self.norms.append(math.hypot(*[p.grad.norm().item() for p in model.parameters()]))
        return loss


@pytest.mark.parametrize("named", [False, True])
def test_a_closure_is_measured_at_the_weights_before_the_step(named: bool) -> None:
    rows = []
    for by_closure in (False, True):
        model = network()
        optimizer = sgd(model)
        monitor = Monitor(model, optimizer, every=1)
        for inputs, targets in batches(4):
            closure = Evaluation(model, optimizer, inputs, targets)
            if by_closure:
                loss = optimizer.step(closure=closure) if named else optimizer.step(closure)
            else:
                loss = closure()
                optimizer.step()
            monitor.step(loss)
        rows.append([{tag: v for tag, v in row.items() if tag != "time"} for row in monitor.history().rows])
    assert rows[0] == rows[1]


def test_l_bfgs_is_measured_from_outside_and_not_disturbed() -> None:
    ended = []
    for watched in (False, True):
        model = network()
        optimizer = LBFGS(model.parameters(), lr=0.1, max_iter=5)
        monitor = Monitor(model, optimizer, every=1) if watched else None
        ratios, norms = [], []
        for inputs, targets in batches(3):
            before, closure = weights(model), Evaluation(model, optimizer, inputs, targets)
            loss = optimizer.step(closure)
            ratios.append(((weights(model) - before).norm() / before.norm()).item())
            norms.append(closure.norms[0])
            if monitor is not None:
                monitor.step(loss)
        ended.append(weights(model))
    assert monitor is not None
    rows = monitor.history().rows
    assert torch.equal(*ended)
    assert [row["optim/update_ratio"] for row in rows] == pytest.approx(ratios, rel=1e-5)
    assert [row["optim/grad_norm"] for row in rows] == pytest.approx(norms, rel=1e-5)


def test_a_step_that_raises_is_none() -> None:
    model = network()
    optimizer = sgd(model)
    monitor = Monitor(model, optimizer, every=1)

    def broken() -> Tensor:
        raise MemoryError

    for number, batch in enumerate(batches(4)):
        if number in (0, 2):
            with pytest.raises(MemoryError):
                optimizer.step(broken)
        train(model, optimizer, [batch], monitor.step, 0.05, model.parameters())
    rows = monitor.history().rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all("optim/update_ratio" in row for row in rows)
    monitor.close()
    assert hooks(model, optimizer) == 0
