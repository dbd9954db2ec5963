"""Where the step went, against closed forms."""

from __future__ import annotations

import math

import pytest
from histories import history

from optexp.diagnosis.account import GOOD_UPDATE, account
from optexp.diagnosis.measures import Measures


@pytest.mark.parametrize(("momentum", "dampening"), [(0.9, 0.9), (0.8, 0.5), (0.99, 0.99)])
def test_dampening_takes_exactly_its_factor(momentum: float, dampening: float) -> None:
    made = account(Measures(history(settings={"momentum": momentum, "dampening": dampening})))
    assert made is not None
    assert made.parts == {"dampening": pytest.approx(-math.log10(1 - dampening))}
    ratio = math.log10((dampening and 1 - dampening) / 1)
    assert made.parts["dampening"] == pytest.approx(-ratio)


def test_dampening_without_momentum_is_ignored_as_torch_ignores_it() -> None:
    made = account(Measures(history(settings={"momentum": 0.0, "dampening": 0.9})))
    assert made is not None
    assert made.parts == {}


@pytest.mark.parametrize("steps", [200, 500, 1000])
@pytest.mark.parametrize("missing", [1, 2, 3.5])
def test_the_shortfall_is_the_logarithm_of_the_update(steps: int, missing: float) -> None:
    made = account(Measures(history(steps, update=GOOD_UPDATE * 10**-missing)))
    assert made is not None
    assert made.shortfall == pytest.approx(missing)
    assert made.rest == pytest.approx(missing)


def test_the_parts_add_up() -> None:
    settings = {"lr": 1e-3, "momentum": 0.9, "dampening": 0.9}
    every = {"optim/clip_coefficient": 0.01}
    made = account(Measures(history(update=1e-7, settings=settings, lr=lambda step: 1e-5, every=every)))
    assert made is not None
    assert made.parts == {
        "dampening": pytest.approx(1.0),
        "clipping": pytest.approx(2.0),
        "schedule": pytest.approx(2.0 - 0.3),  # 0.3 is what a usual decay takes
    }
    assert made.rest + sum(made.parts.values()) == pytest.approx(made.shortfall)


def test_clipping_takes_nothing_from_a_rule_that_normalizes() -> None:
    settings = {"lr": 1e-3, "momentum": 0.0, "eps": 1e-8}
    made = account(Measures(history(optimizer="Adam", settings=settings, every={"optim/clip_coefficient": 0.01})))
    assert made is not None
    assert "clipping" not in made.parts


def test_the_factor_left_by_clipping_follows_from_the_gradients_where_it_was_not_recorded() -> None:
    made = account(Measures(history(clip_norm=0.1, gradient=10.0)))
    assert made is not None
    assert made.parts == {"clipping": pytest.approx(2.0)}


@pytest.mark.parametrize("eps", [1e-4, 1.0])
def test_eps_takes_what_exceeds_the_gradient(eps: float) -> None:
    element = 1e-3  # of the gradient; 10,000 parameters, so that its norm is 0.1
    size = 0.3 * element / (element + eps)  # an update's elements in units of the learning rate
    settings = {"lr": 1e-3, "momentum": 0.0, "eps": eps}
    update = size * 1e-3 * 100 / 20
    made = account(Measures(history(optimizer="Adam", settings=settings, gradient=0.1, update=update)))
    assert made is not None
    expected = math.log10(1 + eps / element)
    assert made.parts.get("epsilon", 0.0) == pytest.approx(expected if expected > 0.05 else 0.0)
