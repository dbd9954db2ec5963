"""A step of the engine is the step that a plain PyTorch loop takes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trainings import assembled

from optexp.datasets.batches import EvalBatches
from optexp.engine import backward as engine_backward
from optexp.engine import state
from optexp.engine.single import SingleRun
from optexp.instruments.look import Look
from optexp.optimizers.build import build_optimizer

BASE = ("dataset=digits", "model=mlp", "model.hidden=[16]", "schedule=constant", "engine.max_steps=30")


def parameters(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("words", "kind", "settings"),
    [
        (("optimizer=sgd", "optimizer.dampening=0.5"), torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
        (("optimizer=sgd", "optimizer.nesterov=true"), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (("optimizer=adam",), torch.optim.Adam, {}),
        (("optimizer=adamw", "optimizer.weight_decay=0.1"), torch.optim.AdamW, {"weight_decay": 0.1}),
        (("optimizer=rmsprop",), torch.optim.RMSprop, {}),
        (("optimizer=adagrad",), torch.optim.Adagrad, {}),
    ],
)
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_losses_and_weights_equal_those_of_a_bare_loop(words, kind, settings, clip_norm) -> None:  # type: ignore[no-untyped-def]
    extra = ("engine.decay_norm_and_bias=true", f"engine.clip_norm={clip_norm or 'null'}", "optimizer.lr=0.01")
    training, twin = assembled(*BASE, *words, *extra), assembled(*BASE, *words, *extra)
    decay = settings.pop("weight_decay", training.config["optimizer"]["weight_decay"])
    optimizer = kind(twin.model.parameters(), lr=0.01, weight_decay=decay, foreach=False, **settings)
    settings["weight_decay"] = decay
    for step in range(30):
        training.program.step(step, [0.01])
        batch = twin.program.batches.take(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(twin.model(batch.inputs), batch.targets)
        loss.backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(twin.model.parameters(), clip_norm)
        optimizer.step()
        assert training.program.log.losses[-1] == pytest.approx(loss.item(), rel=2e-5)
    torch.testing.assert_close(parameters(training.model), parameters(twin.model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_accumulation_in_uneven_parts_does_not_change_the_update(parts: int) -> None:
    """32 samples in 3 or 5 parts are uneven; in float64 the trajectory is the same to rounding."""
    runs = [assembled(*BASE, f"engine.accumulate={k}", "engine.precision=fp64") for k in (1, parts)]
    for training in runs:
        for step in range(10):
            training.program.step(step, [0.05], look=Look(accuracy=True, sizes=True) if step == 9 else Look.NOTHING)
    torch.testing.assert_close(parameters(runs[0].model), parameters(runs[1].model), rtol=1e-10, atol=1e-12)
    first, second = (training.program.read().rows()[0] for training in runs)
    assert first["train/loss"] == pytest.approx(second["train/loss"], rel=1e-9)
    assert first["train/accuracy"] == second["train/accuracy"]


def test_accumulation_counts_tokens_and_not_parts() -> None:
    words = ("model=transformer", "dataset=pydocs", "dataset.batch_size=5", "model.width=16", "optimizer=sgd")
    runs = [assembled(*words, "engine.max_steps=5", f"engine.accumulate={k}", "engine.precision=fp64") for k in (1, 2)]
    for training in runs:
        for step in range(5):
            training.program.step(step, [0.1])
    torch.testing.assert_close(parameters(runs[0].model), parameters(runs[1].model), rtol=1e-9, atol=1e-11)


def test_read_reports_means_and_the_clipped_fraction() -> None:
    training = assembled(*BASE, "engine.clip_norm=1.0")
    program = training.program
    for step in range(7):
        program.step(step, [0.05], look=Look(accuracy=True, sizes=True) if step == 6 else Look.NOTHING)
    losses, norms = torch.tensor(program.log.losses), torch.tensor(program.log.norms)
    values = program.read().rows()[0]
    assert values["train/loss"] == pytest.approx(losses.mean().item(), rel=1e-6)
    assert values["optim/grad_norm"] == pytest.approx(norms[-1].item())
    assert values["optim/clipped"] == pytest.approx((norms > 1.0).float().mean().item())
    assert values["optim/effective_lr"] == pytest.approx(0.5)
    assert 0 < values["optim/update_ratio"] < 1
    assert 0 <= values["train/accuracy"] <= 1
    assert program.log.losses == []


def test_the_update_ratio_includes_clipping_momentum_and_lr() -> None:
    training = assembled(*BASE, "engine.clip_norm=0.01", "optimizer.momentum=0", "optimizer.weight_decay=0")
    before = parameters(training.model).clone()
    training.program.step(0, [0.5], look=Look(accuracy=True, sizes=True))
    change = (parameters(training.model) - before).norm()
    assert change.item() == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert training.program.read().rows()[0]["optim/update_ratio"] == pytest.approx(
        (change / before.norm()).item(), rel=1e-4
    )


def test_evaluation_is_in_evaluation_mode_and_changes_nothing() -> None:
    training = assembled("model=resnet", "engine.max_steps=5", "engine.label_smoothing=0.2")
    for step in range(3):
        training.program.step(step, [0.05])
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    values = training.program.evaluate(training.validation)[0]
    assert training.model.training
    assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
    training.model.eval()
    split = training.dataset.val
    with torch.no_grad():
        logits = training.model(split.inputs)
    assert split.targets is not None
    assert values["loss"] == pytest.approx(F.cross_entropy(logits, split.targets).item(), rel=1e-5)
    assert values["accuracy"] == pytest.approx((logits.argmax(1) == split.targets).float().mean().item())


def test_small_evaluation_batches_give_the_same_result() -> None:
    training = assembled(*BASE)
    small = EvalBatches(training.dataset, training.dataset.val, "cpu", max_batch=37)
    whole, parts = training.program.evaluate(training.validation)[0], training.program.evaluate(small)[0]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert parts["accuracy"] == whole["accuracy"]


def test_bf16_trains_and_keeps_master_weights_in_fp32() -> None:
    training = assembled(*BASE, "engine.precision=bf16", "optimizer.lr=0.05")
    reference = assembled(*BASE, "optimizer.lr=0.05")
    for step in range(20):
        training.program.step(step, [0.05])
        reference.program.step(step, [0.05])
    assert all(parameter.dtype == torch.float32 for parameter in training.model.parameters())
    ours, exact = training.program.read().rows()[0]["train/loss"], reference.program.read().rows()[0]["train/loss"]
    assert ours == pytest.approx(exact, rel=0.02)
    assert ours != exact


def test_fp16_unscales_before_it_clips() -> None:
    """Clipped to norm 0.01 whatever the loss scale: clipping scaled gradients would shrink the step 65,536 times."""
    training = assembled(
        *BASE, "engine.precision=fp16", "engine.clip_norm=0.01", "optimizer.momentum=0", "optimizer.weight_decay=0"
    )
    before = parameters(training.model).clone()
    training.program.step(0, [0.5], look=Look(accuracy=True, sizes=True))
    assert (parameters(training.model) - before).norm().item() == pytest.approx(0.005, rel=1e-2)
    values = training.program.read().rows()[0]
    assert values["optim/loss_scale"] == 65536
    assert values["optim/grad_norm"] < 100


def test_fp16_skips_an_overflowing_step_and_lowers_the_scale() -> None:
    training = assembled(*BASE, "engine.precision=fp16")
    training.program.precision.scaler._init_scale = 2.0**40  # overflows in the first backward pass
    before = parameters(training.model).clone()
    assert training.program.step(0, [0.5]) == []
    assert torch.equal(parameters(training.model), before)
    assert training.program.precision.scaler.get_scale() == 2.0**39
    assert training.program.divergences == {}


def test_foreign_models_draw_from_a_stream_of_their_own_per_step() -> None:
    """torch's own Dropout uses the global generator: it is seeded per step, so any step can be repeated alone."""
    training = assembled(*BASE)
    program = training.program
    drop = torch.nn.Dropout(0.5)
    program.draws_globally = True
    program.forward = lambda inputs: training.model(drop(inputs))  # type: ignore[assignment]
    program.step(3, [0.0])
    torch.manual_seed(99)
    program.step(3, [0.0])
    program.step(4, [0.0])
    assert program.log.losses[0] == program.log.losses[1]
    assert program.log.losses[1] != program.log.losses[2]


def test_gradients_that_no_loss_scale_can_cure_stop_an_fp16_run() -> None:
    training = assembled(*BASE, "engine.precision=fp16")
    program = training.program
    program.parameters[0].register_hook(lambda gradient: gradient * float("nan"))
    before = parameters(training.model).clone()
    steps = 0
    while not program.step(steps, [0.05]):
        steps += 1
        assert steps < 100
    assert steps == 16  # the scale is halved from 2**16 to 1; then there is nothing left to try
    program.read().rows()
    assert program.divergences[0].quantity == "gradient norm"
    assert program.divergences[0].step == 17
    assert torch.equal(parameters(training.model), before)


def test_schedule_free_optimizers_are_evaluated_at_their_own_weights() -> None:
    training = assembled(*BASE, optimizer={"_target_": "pytorch_optimizer.ScheduleFreeAdamW", "lr": 0.01})
    for step in range(30):
        training.program.step(step, [0.01])
    at_training_weights = parameters(training.model).clone()
    ours = training.program.evaluate(training.validation)[0]["loss"]
    assert torch.allclose(parameters(training.model), at_training_weights, atol=1e-6)
    training.optimizer.eval()  # type: ignore[attr-defined]
    training.model.eval()
    split = training.dataset.val
    assert split.targets is not None
    with torch.no_grad():
        expected = F.cross_entropy(training.model(split.inputs), split.targets).item()
    assert ours == pytest.approx(expected, rel=1e-5)


OPTIMIZERS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    (torch.optim.Adagrad, {"lr": 0.05}),
    (torch.optim.RMSprop, {"lr": 0.005, "momentum": 0.5, "weight_decay": 0.1}),
    (torch.optim.NAdam, {"lr": 0.01}),
]


class Peculiar(nn.Module):
    """Everything that a user's model may do with its parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(64, 64)
        self.tied = nn.Linear(64, 64)
        self.tied.weight = self.first.weight
        self.frozen = nn.Linear(64, 64).requires_grad_(False)
        self.never = nn.Parameter(torch.ones(3))
        self.sometimes = nn.Linear(64, 64)
        self.last = nn.Linear(64, 10)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.last.weight.data = self.last.weight.data.clamp(-0.1, 0.1)
        x = self.frozen(self.tied(self.first(x.flatten(1)).relu()).relu())
        if self.calls % 3 == 0:
            x = x + self.sometimes(x)
        self.calls += 1
        return self.last(x)


def run_of(model: nn.Module, kind: Any, settings: dict[str, Any]) -> SingleRun:
    base = assembled(*BASE)
    optimizer = build_optimizer(kind, settings, model, decay_norm_and_bias=True)
    return SingleRun(model, optimizer, base.program.objective, base.batches, base.precision, seed=0, clip_norm=1.0)


@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_peculiar_models_train_as_in_a_bare_loop(kind: Any, settings: dict[str, Any]) -> None:
    """Parameters that are tied, frozen, used never or in some steps, or are given other memory in each."""
    run, model = run_of(Peculiar(), kind, settings), Peculiar()
    optimizer = kind([p for p in model.parameters() if p.requires_grad], foreach=False, **settings)
    for step in range(12):
        run.step(step, [settings["lr"]], look=Look(accuracy=True, sizes=True) if step == 5 else Look.NOTHING)
        batch = run.batches.take(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch.inputs), batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        assert run.log.losses[-1:] == [pytest.approx(loss.item(), rel=1e-4)]
    torch.testing.assert_close(parameters(run.model), parameters(model), rtol=1e-3, atol=1e-5)
    ours, theirs = state.optimizer_state(run.model, run.optimizer), state.optimizer_state(model, optimizer)
    assert ours["parameters"].keys() == theirs["parameters"].keys()
    for name, values in theirs["parameters"].items():
        assert ours["parameters"][name].keys() == values.keys()
        for key, value in values.items():
            assert ours["parameters"][name][key].shape == value.shape
            torch.testing.assert_close(ours["parameters"][name][key], value, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("model", ["mlp", "resnet"])
@pytest.mark.parametrize(("kind", "settings"), OPTIMIZERS)
def test_a_loaded_state_goes_on_bit_by_bit(model: str, kind: Any, settings: dict[str, Any]) -> None:
    runs = [run_of(assembled(f"model={model}").model, kind, settings) for _ in range(2)]
    for step in range(4):
        runs[0].step(step, [0.01], look=Look(accuracy=True, sizes=True) if step == 3 else Look.NOTHING)
    saved = copy.deepcopy(runs[0].state(0))
    runs[1].load_state(0, saved)
    for step in range(4, 8):
        for run in runs:
            run.step(step, [0.01])
    first, second = (run.state(0) for run in runs)
    assert all(torch.equal(value, second["model"][name]) for name, value in first["model"].items())
    for name, values in first["optimizer"]["parameters"].items():
        assert all(torch.equal(value, second["optimizer"]["parameters"][name][key]) for key, value in values.items())
    assert (first["unread"], first["optimizer"]["groups"]) == (second["unread"], second["optimizer"]["groups"])


def test_gradients_are_those_of_loss_backward() -> None:
    assert engine_backward._engine_is_as_known()
    runs = [assembled(*BASE).program for _ in range(2)]
    runs[1].backward = engine_backward.Backward(direct=False)
    for run in runs:
        run.step(0, [0.1])
    for ours, theirs in zip(runs[0].parameters, runs[1].parameters, strict=True):
        assert ours.grad is not None
        assert torch.equal(ours.grad, theirs.grad)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("error", [TypeError, AttributeError])
def test_an_engine_that_is_called_otherwise_is_left_alone(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*arguments: Any) -> None:
        raise error

    engine_backward._engine_is_as_known.cache_clear()
    monkeypatch.setattr(engine_backward, "_run_engine", refuses)
    run = assembled(*BASE).program
    engine_backward._engine_is_as_known.cache_clear()
    assert not run.backward._direct
    before = parameters(run.model)
    run.step(0, [0.1])
    assert not torch.equal(parameters(run.model), before)
