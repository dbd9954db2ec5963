"""What is measured of steps, in double precision: torch's optimizers and closed forms are the oracles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pytorch_optimizer import Lion
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop

from optexp.instruments import successive
from optexp.instruments.ledger import amplification
from optexp.instruments.look import Look
from optexp.instruments.observer import Observer, Row
from optexp.instruments.rules import SingleRule

FIRST, SECOND = Look(sizes=True, remember=True), Look(sizes=True, probe=True)

KNOWN: list[tuple[Any, dict[str, Any]]] = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "weight_decay": 0.3}),
    (SGD, {"lr": 0.1, "dampening": 0.9}),  # which torch ignores without momentum
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 1e-4, "momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-2}),
    (SGD, {"lr": 0.01, "momentum": 0.8, "dampening": 0.5}),
    (SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (SGD, {"lr": 0.01, "momentum": 0.9, "maximize": True}),
    (Adam, {"lr": 0.01}),
    (Adam, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True, "eps": 1e-3}),
    (AdamW, {"lr": 0.01, "weight_decay": 0.5, "betas": (0.8, 0.95)}),
    (RMSprop, {"lr": 0.01}),
    (RMSprop, {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.2, "weight_decay": 0.1}),
    (Lion, {"lr": 0.01, "weight_decay": 0.1}),
    (Lion, {"lr": 0.01, "weight_decay": 0.1, "weight_decouple": False}),
]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shape = {"generator": generator, "dtype": torch.float64}
    return [(torch.randn(16, 6, **shape), torch.randn(16, 3, **shape)) for _ in range(count)]  # type: ignore[call-overload]


class Trained:
    """A model after `steps` steps, the last two of them looked at; what they were is kept for the tests."""

    def __init__(
        self,
        optimizer: Callable[[nn.Module], Optimizer],
        steps: int = 6,
        clip: float | None = None,
        rates: Sequence[float] = (),
        model: nn.Module | None = None,
    ) -> None:
        self.model = model or network()
        self.optimizer = optimizer(self.model)
        self.observer = Observer(SingleRule(self.optimizer, self.model), batch_size=16)
        self.gradients: list[Tensor] = []  # before clipping
        self.updates: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.coefficients: list[float] = []
        self.rows: list[Row] = []
        for step, (inputs, targets) in enumerate(batches(steps)):
            if rates:
                for group in self.optimizer.param_groups:
                    group["lr"] = rates[step]
            self._step(inputs, targets, clip, {steps - 2: FIRST, steps - 1: SECOND}.get(step, Look.NOTHING))

    def _step(self, inputs: Tensor, targets: Tensor, clip: float | None, look: Look) -> None:
        self.optimizer.zero_grad()
        (self.model(inputs) - targets).square().mean().backward()
        self.gradients.append(self._flat(gradients=True))
        coefficient = None
        if clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            coefficient = min(1.0, clip / (norm.item() + 1e-6))
        self.coefficients.append(1.0 if coefficient is None else coefficient)
        self.weights.append(self._flat())
        self.observer.before(look, coefficient)
        self.optimizer.step()
        found = self.observer.after(look)
        self.updates.append(self._flat() - self.weights[-1])
        if found:
            numbers = {name: value[0].tolist() for name, value in found.items()}
            self.rows.append(self.observer.reading()(numbers, 0))

    def _flat(self, gradients: bool = False) -> Tensor:
        values = [p.grad if gradients else p.detach() for p in self.model.parameters()]
        return torch.cat([value.flatten().clone() for value in values if value is not None])


def of(kind: Any, settings: dict[str, Any]) -> Callable[[nn.Module], Optimizer]:
    return lambda model: kind(model.parameters(), **settings)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize(("kind", "settings"), KNOWN)
def test_the_account_reconciles_with_the_measured_step(kind: Any, settings: dict[str, Any], clip: float | None) -> None:
    """The direction computed from settings and state alone explains the update that was measured."""
    run = Trained(of(kind, settings), clip=clip)
    row = run.rows[-1]
    assert abs(row["ledger/group0/unexplained"]) < 4e-6  # 1e-5 relative
    gradient, weight, update = run.gradients[-1].norm(), run.weights[-1].norm(), run.updates[-1].norm()
    assert row["ledger/group0/update"] == pytest.approx(math.log10(update / weight), abs=1e-9)
    assert row["ledger/group0/gradient"] == pytest.approx(math.log10(gradient / weight), abs=1e-9)
    factors = [settings["lr"], *amplification(settings, run.observer.rule.amplifies), run.coefficients[-1]]
    entries = row["ledger/group0/gradient"] + row["ledger/group0/direction"]
    assert sum(map(math.log10, factors)) + entries == pytest.approx(row["ledger/group0/update"], abs=1e-9)


class Ignoring(SGD):
    """A planted bug: dampening is taken and not applied."""

    def step(self, closure: Any = None) -> Any:
        kept = [group["dampening"] for group in self.param_groups]
        for group in self.param_groups:
            group["dampening"] = 0.0
        super().step(closure)
        for group, value in zip(self.param_groups, kept, strict=True):
            group["dampening"] = value


def test_an_optimizer_that_ignores_dampening_is_found_by_its_steps() -> None:
    """Its state explains the step, but the effective rate that is measured is not that of the settings."""
    settings = {"lr": 0.01, "momentum": 0.9, "dampening": 0.9}
    honest, buggy = (Trained(of(kind, settings)).rows[-1] for kind in (SGD, Ignoring))
    assert honest["probe/effective_lr"] == pytest.approx(0.01, rel=1e-6)
    assert buggy["probe/effective_lr"] == pytest.approx(0.1, rel=1e-6)


class Unused(nn.Sequential):
    """The network with a layer that no input reaches: its parameters never get a gradient."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(50, 50))
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        return self[2](self[1](self[0](inputs)))


@pytest.mark.parametrize(("kind", "settings"), KNOWN)
def test_what_has_no_gradient_is_no_part_of_the_step(kind: Any, settings: dict[str, Any]) -> None:
    row, used = (Trained(of(kind, settings), model=model).rows[-1] for model in (Unused(), network()))
    assert abs(row["ledger/group0/unexplained"]) < 4e-6
    for tag in ("probe/eps_share", "probe/dead_units", "probe/effective_lr", "probe/signal", "probe/alpha"):
        assert row.get(tag, 0.0) == pytest.approx(used.get(tag, 0.0), rel=1e-6), tag


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_first_update_does_not_tell_how_much_of_it_is_momentum(nesterov: bool) -> None:
    row = Trained(of(SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": nesterov}), steps=2).rows[-1]
    assert "probe/effective_lr" not in row
    plain = Trained(of(SGD, {"lr": 0.01}), steps=2).rows[-1]
    assert plain["probe/effective_lr"] == pytest.approx(0.01, rel=1e-6)


def test_an_unknown_rule_has_no_account_of_its_own() -> None:
    row = Trained(of(Adadelta, {"lr": 1.0})).rows[-1]
    assert "ledger/group0/unexplained" not in row
    assert math.isfinite(row["ledger/group0/direction"])
    assert "probe/effective_lr" not in row


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize(("kind", "settings"), [known for known in KNOWN if known[0] is SGD])
def test_the_effective_rate_is_measured_from_two_steps(kind: Any, settings: dict[str, Any], clip: float | None) -> None:
    row = Trained(of(kind, settings), clip=clip).rows[-1]
    expected = settings["lr"] * math.prod(amplification(settings))
    assert row["probe/effective_lr"] == pytest.approx(expected, rel=1e-6)
    assert row["probe/fit_residual"] < 1e-4


def test_the_effective_rate_follows_a_schedule() -> None:
    rates = [0.1 * 0.7**step for step in range(6)]
    row = Trained(of(SGD, {"lr": 0.1, "momentum": 0.9}), rates=rates).rows[-1]
    assert row["probe/effective_lr"] == pytest.approx(10 * rates[-1], rel=1e-6)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_probes_are_what_their_formulas_say(clip: float | None) -> None:
    run = Trained(of(SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}), clip=clip)
    (g1, g2), (s1, s2), row = run.gradients[-2:], run.updates[-2:], run.rows[-1]
    assert row["probe/signal"] == pytest.approx(float(g1 @ g2), rel=1e-9)
    assert row["probe/noise"] == pytest.approx(float((g1 @ g1 + g2 @ g2) / 2 - g1 @ g2), rel=1e-9)
    if g1 @ g2 > 0:
        assert row["probe/noise_scale"] == pytest.approx(16 * row["probe/noise"] / row["probe/signal"])
    assert row["probe/alpha"] == pytest.approx(float(-(g2 @ s1) / (g1 @ s1)), rel=1e-9)
    assert row["probe/momentum_cosine"] == pytest.approx(float(-(g2 @ s1) / (g2.norm() * s1.norm())), rel=1e-9)
    moving = (s1 * s2) != 0
    assert row["probe/sign_changes"] == pytest.approx(float(((s1 * s2) < 0).sum() / moving.sum()), rel=1e-6)
    decay = 0.1 * run.weights[-1].norm() / g2.norm()
    assert row["probe/decay_ratio"] == pytest.approx(float(decay), rel=1e-9)
    weight = run.model[0].weight  # type: ignore[index]
    assert row["layer/0.weight/grad_norm"] == pytest.approx(g2[: weight.numel()].norm().item(), rel=1e-9)
    ratio = s2[: weight.numel()].norm() / run.weights[-1][: weight.numel()].norm()
    assert row["layer/0.weight/update_ratio"] == pytest.approx(ratio.item(), rel=1e-9)


def test_the_noise_scale_is_the_batch_at_which_noise_equals_signal() -> None:
    """Per-sample gradients that are G plus noise of variance σ² in every element: tr Σ / |G|² = n σ² / |G|²."""
    n, batch, sigma, signals, noises = 400, 16, 0.5, [], []
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(n, 1, bias=False).double()
    true = torch.full((1, n), 0.05, dtype=torch.float64)
    optimizer = SGD(model.parameters(), lr=0.0)
    observer = Observer(SingleRule(optimizer, model), batch)
    for _ in range(40):
        for look in (FIRST, SECOND):
            samples = sigma * torch.randn(batch, 1, n, generator=generator, dtype=torch.float64)
            model.weight.grad = true + samples.mean(0)
            observer.before(look)
            numbers = {name: value[0].tolist() for name, value in observer.after(look).items()}
        row = observer.reading()(numbers, 0)
        signals.append(row["probe/signal"])
        noises.append(row["probe/noise"])
    exact = n * sigma**2 / float(true.square().sum())
    assert batch * sum(noises) / sum(signals) == pytest.approx(exact, rel=0.1)


class Quadratic(nn.Module):
    """The loss curvature / 2 · w², which no batch changes."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
        self.scale = math.sqrt(curvature / 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.weight.expand(1, 1)


@pytest.mark.parametrize("product", [0.01, 0.5, 0.99, 1.9])
def test_alpha_tells_where_on_a_parabola_the_step_has_ended(product: float) -> None:
    """A step of gradient descent goes lr · curvature of the way to the bottom: alpha is that minus 1."""
    model = Quadratic(curvature=4.0)
    optimizer = SGD(model.parameters(), lr=product / 4.0)
    observer, row = Observer(SingleRule(optimizer, model)), {}
    for look in (FIRST, SECOND):
        optimizer.zero_grad()
        model(torch.zeros(1)).square().sum().backward()
        observer.before(look)
        optimizer.step()
        numbers = {name: value[0].tolist() for name, value in observer.after(look).items()}
        row = observer.reading()(numbers, 0)
    assert row["probe/alpha"] == pytest.approx(product - 1, abs=1e-9)
    assert row["probe/sign_changes"] == (product > 1)


def test_units_without_a_gradient_are_counted() -> None:
    model = network()
    with torch.no_grad():
        model[0].bias[:3] = -100.0  # three of the eight hidden units answer to no input
    row = Trained(of(SGD, {"lr": 1e-3}), model=model).rows[-1]
    assert row["probe/dead_units"] == pytest.approx(3 / 11)


def test_a_large_eps_is_seen_in_the_second_moments() -> None:
    assert Trained(of(Adam, {"lr": 1e-3, "eps": 1e6})).rows[-1]["probe/eps_share"] == 1
    assert Trained(of(Adam, {"lr": 1e-3, "eps": 1e-12})).rows[-1]["probe/eps_share"] == 0


def test_the_first_step_of_a_run_is_no_probe() -> None:
    run = Trained(of(SGD, {"lr": 0.1}), steps=2)
    assert "probe/alpha" not in run.rows[0]
    assert "probe/alpha" in run.rows[1]


def test_groups_have_accounts_of_their_own() -> None:
    def optimizer(model: nn.Module) -> Optimizer:
        weights = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim == 1]
        return SGD([{"params": weights, "lr": 0.1}, {"params": others, "lr": 0.001, "momentum": 0.9}], lr=1.0)

    row = Trained(optimizer).rows[-1]
    assert abs(row["ledger/group0/unexplained"]) < 4e-6
    assert abs(row["ledger/group1/unexplained"]) < 4e-6
    assert row["ledger/group0/direction"] == pytest.approx(0, abs=1e-9)  # plain gradient descent
    assert row["ledger/group1/direction"] < 0  # gradients that do not agree


def test_what_is_remembered_outlives_a_checkpoint() -> None:
    """A run that is resumed between the two steps of a probe measures what an uninterrupted one does."""
    rows = []
    for resumed in (False, True):
        model = network()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        observer = Observer(SingleRule(optimizer, model))
        for (inputs, targets), look in zip(batches(2), (FIRST, SECOND), strict=True):
            optimizer.zero_grad()
            (model(inputs) - targets).square().mean().backward()
            observer.before(look, 0.5)
            optimizer.step()
            numbers = {name: value[0].tolist() for name, value in observer.after(look).items()}
            if resumed and look is FIRST:
                saved = observer.state(0)
                observer = Observer(SingleRule(optimizer, model))
                observer.load_state({0: saved})
        rows.append(observer.reading()(numbers, 0))
    assert rows[0] == rows[1]


def test_dot_products_do_not_depend_on_the_pieces_they_are_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    whole = Trained(of(SGD, settings)).rows[-1]
    monkeypatch.setattr(successive, "_PIECE", 7)
    assert Trained(of(SGD, settings)).rows[-1] == pytest.approx(whole, rel=1e-9, abs=1e-6)
