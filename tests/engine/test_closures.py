"""Optimizers that ask for more than gradients: a closure, curvature, or other weights for evaluation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from trainings import assembled, trained

from optexp import streams
from optexp.assemble import Training
from optexp.engine.hutchinson import HutchinsonBackward
from optexp.errors import BadInput

LBFGS = ("optimizer=lbfgs", "engine.max_steps=3", "engine.eval_every=3")
MLP = ("model=mlp", "model.hidden=[8]", "dataset=digits")
RESNET = ("model=resnet", "model.width=4", "model.depth=8", "dataset=digits", "dataset.batch_size=64")
TRANSFORMER = ("model=transformer", "model.width=8", "model.layers=1", "model.heads=2", "model.dropout=0.2")
TOKENS = ("dataset=pydocs", "dataset.context_length=8", "dataset.batch_size=8")


def flat(run: Training) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


def steps(run: Training, number: int) -> None:
    for step in range(number):
        run.program.step(step, [run.base_lr])


def test_lbfgs_takes_the_steps_that_torch_takes_in_a_loop_of_its_own() -> None:
    words = (*LBFGS, *MLP, "dataset.batch_size=full", "schedule=constant", "engine.precision=fp64")
    run, plain = assembled(*words), assembled(*words)
    batch = plain.batches.at(lambda: 0)
    optimizer = torch.optim.LBFGS(plain.model.parameters(), line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(plain.model(batch.inputs.double()), batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for step in range(3):
        run.program.step(step, [1.0])
        optimizer.step(closure)  # type: ignore[arg-type]
    torch.testing.assert_close(flat(run), flat(plain), rtol=1e-6, atol=1e-9)  # sums of a full batch in another order


@pytest.mark.parametrize("words", [(*TRANSFORMER, *TOKENS), RESNET])
def test_evaluations_of_a_step_are_of_one_function(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same weights all evaluations of a step give the same loss and gradients: batch, masks, parts repeat."""
    run = assembled(*LBFGS, *words, "engine.accumulate=2")
    found: list[tuple[float, torch.Tensor]] = []

    def step(closure: Any) -> None:
        for _ in range(3):
            loss = float(closure())
            found.append((loss, torch.cat([p.grad.flatten() for p in run.program.parameters if p.grad is not None])))
            with torch.no_grad():
                run.program.parameters[0].mul_(1.0)  # the same weights, and not the same version of them

    buffers = [buffer.clone() for buffer in run.model.buffers()]
    monkeypatch.setattr(run.optimizer, "step", step)
    run.program.step(0, [1.0])
    assert found[0][0] == found[1][0] == found[2][0]
    assert torch.equal(found[0][1], found[1][1])
    once = assembled("optimizer=sgd", *words, "engine.accumulate=2")
    once.program.step(0, [0.0])
    assert len(buffers) == len(list(once.model.buffers()))
    assert all(map(torch.equal, run.model.buffers(), once.model.buffers()))  # statistics count one evaluation


def test_lbfgs_trains_convolutions_in_channels_last() -> None:
    ending, _, rows = trained(assembled(*LBFGS, *RESNET))
    assert ending.status == "completed"
    assert all(map(math.isfinite, rows.series("train/loss")))


def test_an_evaluation_that_is_not_finite_undoes_the_step() -> None:
    run = assembled(*LBFGS, *MLP, "optimizer.line_search_fn=null", "optimizer.lr=1e30", "dataset.batch_size=full")
    steps(run, 1)
    before = flat(run)
    assert run.program.divergences == {} or run.program.divergences[0].step == 1
    while not run.program.divergences:
        before = flat(run)
        run.program.step(run.program.step_state.step + 1, [1e30])
    assert torch.equal(flat(run), before)
    assert torch.isfinite(before).all()
    assert not math.isfinite(run.program.divergences[0].value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("optimizer=lbfgs", "engine.precision=fp16"), "engine.precision=fp16: LBFGS needs more than one gradient"),
        (("optimizer=sophia", "engine.precision=fp16"), "engine.precision=fp16: SophiaH needs more than one gradient"),
        (("optimizer=sophia", "engine.compile=true"), "engine.compile=true: SophiaH differentiates twice"),
    ],
)
def test_what_the_engine_cannot_give_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        assembled(*MLP, *words)


@pytest.mark.parametrize("words", [(), ("engine.accumulate=4",)])
def test_estimates_are_those_of_the_exact_hessian(words: tuple[str, ...]) -> None:
    """The mean of z · (H z) over the very vectors z that were drawn, with H from torch; clipping does not touch it."""
    signs = ("optimizer.hessian_distribution=rademacher", "optimizer.num_samples=3", "engine.clip_norm=1e-3")
    run = assembled("model=linear", "dataset=digits", "optimizer=sophia", "engine.precision=fp64", *signs, *words)
    batch = run.batches.at(lambda: 0)
    named = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    sizes = [value.numel() for value in named.values()]

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = zip(named.items(), vector.split(sizes), strict=True)
        values = {name: part.view_as(value) for (name, value), part in parts}
        outputs = torch.func.functional_call(run.model, values, (batch.inputs.double(),))
        return torch.nn.functional.cross_entropy(outputs, batch.targets)

    vector = torch.cat([value.flatten() for value in named.values()])
    exact = torch.autograd.functional.hessian(loss, vector)  # type: ignore[no-untyped-call]
    hessian = run.program.hessian
    assert hessian is not None
    generator = streams.generator(run.seed, "hessian", 0)
    ordered = [p for group in run.optimizer.param_groups for p in group["params"]]
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    expected = torch.zeros_like(vector)
    for _ in range(3):
        draws = {names[p]: hessian._draw(p, generator).flatten() for p in ordered}
        z = torch.cat([draws[name] for name in named])
        assert set(z.tolist()) == {-1.0, 1.0}
        expected += z * (exact @ z) / 3
    steps(run, 1)
    found = torch.cat([run.optimizer.state[p]["hessian"].flatten() for p in run.model.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_estimates_are_made_where_the_optimizer_would_make_them() -> None:
    run = assembled(*TRANSFORMER, *TOKENS, "optimizer=sophia", "optimizer.update_period=2")
    hessian = run.program.hessian
    assert isinstance(hessian, HutchinsonBackward)
    due, estimates = [], []
    for step in range(4):
        due.append(hessian.is_due())
        run.program.step(step, [run.base_lr])
        estimates.append(run.optimizer.state[run.program.parameters[0]]["hessian"].clone())
    assert due == [True, False, True, False]
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.equal(estimates[1], estimates[2])
    assert all(parameter.grad is None or not parameter.grad.requires_grad for parameter in run.program.parameters)


def test_schedule_free_is_evaluated_and_saved_at_its_average() -> None:
    words = (*MLP, "optimizer=schedule_free", "schedule=constant")
    run, unseen = assembled(*words), assembled(*words)
    steps(run, 5)
    steps(unseen, 5)
    beta1 = run.optimizer.param_groups[0]["betas"][0]
    parameter = run.program.parameters[0]
    trained_at, z = parameter.detach().clone(), run.optimizer.state[parameter]["z"]
    average = (trained_at - (1 - beta1) * z) / beta1  # y = (1 - b1) z + b1 x
    tree = run.program.state(0)
    name = next(iter(dict(run.model.named_parameters())))
    torch.testing.assert_close(tree["model"][name], average)
    assert torch.equal(tree["trained"][0], trained_at)
    assert torch.equal(parameter.detach(), trained_at)
    elsewhere = assembled(*MLP, "optimizer=sgd")
    elsewhere.model.load_state_dict(tree["model"])
    assert elsewhere.program.evaluate(elsewhere.validation) == run.program.evaluate(run.validation)
    steps(run, 3)
    steps(unseen, 3)
    assert torch.equal(flat(run), flat(unseen))  # looking has changed nothing
