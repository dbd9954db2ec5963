"""Probes against closed forms: rates on quadratics, growth at a saddle, recursions of buffers, counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy
import pytest
import torch

from optexp.errors import BadInput
from optexp.studies import probes
from optexp.studies.study import read_study, study_files

PLAIN = {"name": "SGD"}
MOMENTUM = {"name": "SGD", "momentum": 0.9}
NESTEROV = {"name": "SGD", "momentum": 0.9, "nesterov": True}


def heavy_ball(curvature: float, lr: float, momentum: float, start: float, steps: int) -> numpy.ndarray:
    """Return the iterates of v = μ v + λ x, x = x − lr v: powers of a 2 × 2 matrix applied to (x, v) = (start, 0)."""
    matrix = numpy.array([[1 - lr * curvature, -lr * momentum], [curvature, momentum]])
    with numpy.errstate(all="ignore"):
        states = accumulate(range(steps), lambda state, _: matrix @ state, initial=numpy.array([start, 0.0]))
        return numpy.array([state[0] for state in states])


def ravine_starts() -> list[list[float]]:
    with torch.random.fork_rng(devices=[]):
        return probes._starts(torch.ones(2, dtype=torch.float64)).tolist()


@pytest.mark.parametrize(("step", "coefficient"), [(1, 1.0), (2, 0.25), (7, 0.25)])
def test_torch_dampens_from_the_second_gradient_on(step: int, coefficient: float) -> None:
    arguments = {"dampening": 0.75, "momentum": 0.5, "step": step}
    assert probes.call("buffer_coefficient", arguments) == [pytest.approx(coefficient, rel=1e-12)]


@pytest.mark.parametrize("dampening", [0.0, 0.9])
def test_the_long_run_step_is_the_effective_learning_rate(dampening: float) -> None:
    found = probes.call("long_run_step", {"lr": 0.03, "dampening": dampening, "momentum": 0.9})
    assert found == [pytest.approx(math.log10(0.03 * (1 - dampening) / (1 - 0.9)), abs=1e-9)]


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [
        (PLAIN, 0.0),
        (MOMENTUM, 1.0),
        ({"name": "Adam"}, 2.0),
        ({"name": "Adam", "amsgrad": True}, 3.0),
        ({"name": "RMSprop"}, 1.0),
        ({"name": "pytorch_optimizer.Lion"}, 1.0),
    ],
)
def test_state_per_parameter(optimizer: dict[str, Any], kept: float) -> None:
    assert probes.call("state_per_parameter", {"optimizer": optimizer}) == [kept]
    assert probes.call("state_per_parameter", {"optimizer": optimizer, "over": {"name": "AdamW"}}) == [kept / 2]


def test_an_optimizer_that_is_no_optimizer() -> None:
    for name in ("Lion", "torch.nn.Linear", "pytorch_optimizer.Loin"):
        with pytest.raises(BadInput, match=name):
            probes.call("state_per_parameter", {"optimizer": {"name": name}})


def fastest(momentum: float, condition: float, most: int = 300) -> list[tuple[int, float]]:
    """Return for each start of the probes the fewest steps to a millionth of f, and the rate for them."""
    paths = {
        rate: [heavy_ball(curvature, rate / condition, momentum, 1.0, most) for curvature in (1.0, condition)]
        for rate in probes.RATES
    }
    found = []
    for x, y in ravine_starts():
        needed = {}
        for rate, (along, across) in paths.items():
            with numpy.errstate(all="ignore"):  # rates that are too large
                values = (x * along) ** 2 + condition * (y * across) ** 2
            needed[rate] = int(numpy.flatnonzero(~(values <= 1e-6 * values[0]))[-1]) + 1
        best = min(needed, key=lambda rate: needed[rate])
        found.append((needed[best], best))
    return found


def test_steps_in_a_ravine_are_those_of_the_closed_form() -> None:
    first, second = PLAIN, {"name": "SGD", "momentum": 0.5}
    found = probes.call("steps_in_a_ravine", {"first": first, "second": second, "condition": 10.0})
    pairs = zip(fastest(0.0, 10.0), fastest(0.5, 10.0), strict=True)
    assert found == pytest.approx([math.log2(one / other) for (one, _), (other, _) in pairs], abs=1e-9)


def test_the_gain_in_a_ravine_over_that_in_a_bowl() -> None:
    both = {"first": PLAIN, "second": {"name": "SGD", "momentum": 0.3}}
    ravine, bowl = (probes.call("steps_in_a_ravine", both | {"condition": number}) for number in (8.0, 2.0))
    found = probes.call("steps_in_a_ravine", both | {"condition": 8.0, "than_at": 2.0})
    assert found == pytest.approx([one - other for one, other in zip(ravine, bowl, strict=True)])
    assert max(found) > min(found)


def test_swing_of_gradient_descent_near_its_limit() -> None:
    """y is multiplied by 1 − 1.8 = −0.8 at each step: 1.8 (1 + 0.8 + 0.8² + …) = 9 of way. At rate 1 there is 1."""
    arguments = {"first": PLAIN, "second": MOMENTUM, "condition": 10.0, "steps": 200}
    for rate, of_first in ((1.8, 9.0), (1.0, 1.0)):
        path = heavy_ball(10.0, rate / 10.0, 0.9, 1.0, 200)
        of_second = float(numpy.abs(numpy.diff(path)).sum())
        found = probes.call("swing_in_a_ravine", arguments | {"rate": rate})
        assert found == pytest.approx([math.log2(of_first / of_second)] * probes.SEEDS, abs=1e-6)


def test_swing_at_the_fastest_rate() -> None:
    """At rate r the steep direction is multiplied by 1 − r at each step: r / (2 − r) of way if r > 1."""
    first, second = PLAIN, {"name": "SGD", "lr": 0.1}  # an lr of its own wins: 1 / condition, so y goes straight down
    found = probes.call("swing_in_a_ravine", {"first": first, "second": second, "condition": 10.0})
    assert found == pytest.approx([math.log2(rate / (2 - rate)) for _, rate in fastest(0.0, 10.0)], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "largest"),
    [(MOMENTUM, 2 * (1 + 0.9)), (NESTEROV, 2 * (1 + 0.9) / (1 + 2 * 0.9)), (MOMENTUM | {"dampening": 0.5}, 7.6)],
)
def test_largest_stable_rates(settings: dict[str, Any], largest: float) -> None:
    found = probes.call("stable_rates", {"first": PLAIN, "second": settings, "steps": 1000})
    assert found == [pytest.approx(math.log2(largest / 2), abs=math.log2(1.02))]


def test_steps_across_a_saddle() -> None:
    lr, offset = 0.05, 1e-4
    with torch.random.fork_rng(devices=[]):
        offsets = probes._starts(torch.tensor([1.0, offset], dtype=torch.float64))[:, 1].abs().tolist()
    expected = []
    for y in offsets:
        plain = math.ceil(math.log(1 / y) / math.log(1 + lr))
        path = heavy_ball(-1.0, lr, 0.9, y, plain)
        expected.append(math.log2(plain / int(numpy.flatnonzero(path > 1)[0])))
    found = probes.call("steps_across_a_saddle", {"first": PLAIN, "second": MOMENTUM, "lr": lr, "offset": offset})
    assert found == pytest.approx(expected, abs=1e-9)


def test_who_stays_at_a_saddle_is_counted_with_the_most_steps() -> None:
    stays = {"name": "SGD", "lr": 0.0}
    found = probes.call("steps_across_a_saddle", {"first": stays, "second": stays, "most": 5})
    assert found == [0.0] * probes.SEEDS


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Adagrad", lambda step: 1 / math.sqrt(step)),
        ("RMSprop", lambda step: 1 / math.sqrt(1 - 0.99**step)),
        ("SGD", lambda step: 1.0),
    ],
)
def test_step_after(name: str, size: Callable[[int], float]) -> None:
    early, late = (sum(size(step) for step in range(begin, begin + 10)) for begin in (20, 300))
    arguments = {"optimizer": {"name": name}, "early": 20, "late": 300, "noise": 0.0}
    assert probes.call("step_after", arguments) == pytest.approx([math.log10(late / early)] * probes.SEEDS, abs=1e-6)


def test_step_after_under_noise_differs_between_starts() -> None:
    found = probes.call("step_after", {"optimizer": {"name": "Adagrad"}, "early": 100, "late": 1000})
    assert found == pytest.approx([-0.5] * probes.SEEDS, abs=0.1)
    assert len(set(found)) == probes.SEEDS


def test_rates_that_rise() -> None:
    (adagrad,), (rmsprop,) = (
        probes.call("share_of_rising_rates", {"optimizer": {"name": name}, "steps": 500})
        for name in ("Adagrad", "RMSprop")
    )
    assert adagrad == 0.0
    assert 0.25 < rmsprop < 0.75


def test_decay_under_noise() -> None:
    """AdamW multiplies by 1 − lr λ; Adam takes steps of lr off a weight with nothing but its penalty."""
    adamw, adam = (
        probes.call("decay_under_noise", {"optimizer": {"name": name}, "small": 0.0}) for name in ("AdamW", "Adam")
    )
    assert max(adamw) < 0.01
    assert 0.1 < min(adam) <= max(adam) < math.log10(1 / 0.5) + 0.01


def test_tokens_are_learnt() -> None:
    """Divergences are never negative, and vanish as the model learns a distribution of which it is capable."""
    chance = torch.full([32], 1 / 32, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        before = probes._trained_on_tokens(PLAIN, 0.0, chance, 1)
        after = probes._trained_on_tokens({"name": "Adam"}, 0.03, chance, 200)
    assert before.shape == after.shape == (probes.SEEDS, 32)
    assert after.min() >= 0
    assert after.mean() < 0.1 * before.mean()


def test_excess_on_tokens_compares_the_best_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = {"A": {0.1: 3.0, 1.0: 1.0}, "B": {0.1: 0.25, 1.0: math.nan}}

    def trained(settings: dict[str, Any], lr: float, chance: torch.Tensor, steps: int) -> torch.Tensor:
        rare = torch.arange(128) >= 64
        return lookup[settings["name"]][lr] * (1 + rare.double()).expand(probes.SEEDS, 128)

    monkeypatch.setattr(probes, "TOKEN_RATES", [0.1, 1.0])
    monkeypatch.setattr(probes, "_trained_on_tokens", trained)
    both = {"first": {"name": "A"}, "second": {"name": "B"}}
    assert probes.call("excess_on_tokens", both) == pytest.approx([2 * 1.0 - 2 * 0.25] * probes.SEEDS)
    found = probes.call("excess_on_tokens", both | {"tokens": "rare more than frequent"})
    assert found == pytest.approx([1.0 - 0.25] * probes.SEEDS)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("buffer_coeficient", {}, r"probe=buffer_coeficient: no such probe \(did you mean 'buffer_coefficient'"),
        ("buffer_coefficient", {"damping": 0.9}, r"buffer_coefficient\.damping=0\.9: no such argument; there are damp"),
        ("step_after", {}, r"step_after\.optimizer: is missing"),
        ("step_after", {"optimizer": {"name": "Adagard"}}, r"name=Adagard: torch\.optim has no such optimizer"),
        ("step_after", {"optimizer": {"name": "Adagrad", "momentum": 0.9}}, r"name=Adagrad: .*momentum"),
    ],
)
def test_what_is_wrong_is_told(name: str, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        probes.call(name, arguments)


def test_the_random_state_of_the_caller_stays() -> None:
    before = torch.get_rng_state()
    probes.call("step_after", {"optimizer": PLAIN, "early": 1, "late": 20})
    assert torch.equal(torch.get_rng_state(), before)


def test_every_probe_that_a_study_asks_for_is_there() -> None:
    asked = [
        (answer.probe, answer.arguments)
        for file in study_files().values()
        for answer in read_study(file).answers.values()
        if answer.probe is not None
    ]
    for name, arguments in asked:
        probes.check(name, arguments)
    assert asked
