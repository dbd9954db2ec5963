"""Slices against losses that are computed directly, at weights that are set by hand."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS, convolutional, perceptron

from optexp.curvature.filters import filter_normalized
from optexp.curvature.loss import MeanLoss
from optexp.curvature.perturbation import adaptive_ball, ball, random_rise, rises
from optexp.curvature.slices import around, barrier, between, line, plane, spread
from optexp.datasets.batches import Batch
from optexp.engine.objective import Objective
from optexp.engine.runtime import Precision

FP64 = Precision("fp64", torch.device("cpu"))


def direct(loss: MeanLoss, model: torch.nn.Module) -> float:
    """Return the mean loss of a model over all samples at once."""
    inputs, targets = (torch.cat(parts) for parts in zip(*loss.batches, strict=True))
    with torch.no_grad():
        outputs = model.eval()(inputs)
    smoothing = loss.objective.label_smoothing
    return float(F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), label_smoothing=smoothing))


def moved(loss: MeanLoss, change: torch.Tensor) -> torch.nn.Module:
    model = copy.deepcopy(loss.model)
    flat = torch.nn.utils.parameters_to_vector(model.parameters()) + change
    torch.nn.utils.vector_to_parameters(flat.detach(), model.parameters())
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_a_line_and_a_plane_around_a_checkpoint(name: str) -> None:
    loss = NETWORKS[name]()
    torch.manual_seed(3)
    x_way, y_way = torch.randn(2, loss.size, dtype=torch.float64)
    before = loss.weights()
    place = around(loss, x_way, y_way)
    positions = [-0.7, 0.0, 0.3]
    (found,) = line([loss], place, positions)
    assert found == pytest.approx([direct(loss, moved(loss, x * x_way)) for x in positions], rel=1e-12)
    grid = plane(loss, place, [-0.5, 0.2], [0.0, 0.4, -1.0])
    assert grid == [
        pytest.approx([direct(loss, moved(loss, x * x_way + y * y_way)) for x in (-0.5, 0.2)], rel=1e-12)
        for y in (0.0, 0.4, -1.0)
    ]
    torch.testing.assert_close(loss.weights(), before, rtol=0, atol=0)


def test_between_two_networks_the_ends_are_these_networks() -> None:
    """Running statistics go with the weights, and counters stay."""
    loss, other = convolutional(), convolutional()
    torch.manual_seed(9)
    other.move(torch.randn(other.size, dtype=torch.float64))
    other.model.train()(torch.randn(30, 1, 6, 6, dtype=torch.float64))
    state = {name: tensor.clone() for name, tensor in other.model.eval().state_dict().items()}
    own = {name: tensor.clone() for name, tensor in loss.model.state_dict().items()}
    across = torch.randn(loss.size, dtype=torch.float64)
    place = between(loss, state, across)
    (found,) = line([loss], place, [0.0, 0.25, 1.0])
    assert found[0] == pytest.approx(loss.value(), rel=1e-12)
    assert found[2] == pytest.approx(direct(loss, other.model), rel=1e-12)
    mixed = copy.deepcopy(loss.model)
    mixed.load_state_dict({k: 0.75 * v + 0.25 * state[k] if v.is_floating_point() else v for k, v in own.items()})
    assert found[1] == pytest.approx(direct(loss, mixed), rel=1e-12)
    shifted = MeanLoss(mixed, loss.objective, loss.batches, FP64)
    shifted.move(shifted.weights() + 0.3 * across)
    assert plane(loss, place, [0.25], [0.3]) == [[pytest.approx(shifted.value(), rel=1e-12)]]
    for name, tensor in loss.model.state_dict().items():
        torch.testing.assert_close(tensor, own[name], rtol=0, atol=0)


def test_the_curvature_of_a_line_is_that_of_the_hessian() -> None:
    """Of a smooth network: where ReLU bends, a line has curvature that the Hessian does not know of."""
    loss = NETWORKS["transformer"]()
    torch.manual_seed(1)
    way = torch.randn(loss.size, dtype=torch.float64)
    (found,) = line([loss], around(loss, way), [-1e-4, 0.0, 1e-4])
    curvature = (found[0] - 2 * found[1] + found[2]) / 1e-8
    assert curvature == pytest.approx(float(way @ loss.hessian_products(way[None])[0]), rel=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_filters_of_a_direction_are_as_long_as_those_of_the_weights(name: str) -> None:
    loss = NETWORKS[name]()
    weights, direction = loss.weights(), torch.randn(loss.size, dtype=torch.float64)
    found = filter_normalized(direction, weights, loss.shapes)
    model, turned = copy.deepcopy(loss.model), copy.deepcopy(loss.model)
    torch.nn.utils.vector_to_parameters(found, turned.parameters())
    torch.nn.utils.vector_to_parameters(direction, model.parameters())
    for network in (loss.model, model, turned):
        network.requires_grad_(False)
    for own, new, drawn in zip(loss.model.parameters(), turned.parameters(), model.parameters(), strict=True):
        if own.ndim < 2:
            assert not new.any()
            continue
        for filter_own, filter_new, filter_drawn in zip(own, new, drawn, strict=True):
            assert float(filter_new.norm()) == pytest.approx(float(filter_own.norm()), rel=1e-12)
            cosine = F.cosine_similarity(filter_new.flatten(), filter_drawn.flatten(), dim=0)
            assert float(cosine) == pytest.approx(1.0)


def test_a_filter_of_zeros_does_not_move() -> None:
    shapes = [torch.Size((2, 3))]
    weights = torch.tensor([0.0, 0.0, 0.0, 3.0, 0.0, 4.0])
    found = filter_normalized(torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]), weights, shapes)
    assert found.tolist() == [0.0] * 6
    found = filter_normalized(torch.ones(6), weights, shapes)
    assert found.tolist() == pytest.approx([0, 0, 0, *[5 / 3**0.5] * 3])


def test_rescaling_neighbouring_layers_leaves_the_filter_normalized_sharpness() -> None:
    """The network stays the same function; without the normalization, the same steps would be others."""
    loss = perceptron()
    draws = [torch.randn(loss.size, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    before = random_rise(loss, iter(draws).__next__, 0.1, 2)
    first, second = loss.model.layers[1], loss.model.layers[3]
    with torch.no_grad():
        first.weight.mul_(5), first.bias.mul_(5), second.weight.div_(5)
    assert random_rise(loss, iter(draws).__next__, 0.1, 2) == pytest.approx(before, rel=1e-9)


def quadratic(curvatures: list[float], at: list[float]) -> MeanLoss:
    """Return ½ Σ λ_i w_i² as the mean squared error of a linear layer."""
    size = len(curvatures)
    x = torch.diag(torch.tensor(curvatures, dtype=torch.float64).mul(size / 2).sqrt())
    model = torch.nn.Linear(size, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([at]))
    return MeanLoss(model, Objective("regression"), [Batch(x, torch.zeros(size, 1).double())], FP64)


def test_the_largest_rise_in_a_ball_of_a_quadratic() -> None:
    """At the minimum of one coordinate the gradient knows nothing of it: the start along it finds the worst."""
    loss = quadratic([8.0, 2.0], at=[0.0, 1.0])
    assert loss.value() == pytest.approx(1.0)
    rho = 0.5
    sam = rises(loss, ball(rho), 1)[0]
    assert sam == pytest.approx(0.5 * 2 * ((1 + rho) ** 2 - 1))  # along the gradient, which has no part in the first
    aside = rises(loss, ball(rho), 1, torch.tensor([3.0, 0.0], dtype=torch.float64))[0]
    assert aside == pytest.approx(0.5 * 8 * rho**2)
    angles = torch.linspace(0, 2 * torch.pi, 100001, dtype=torch.float64)
    exact = (0.5 * 8 * (rho * angles.cos()) ** 2 + 0.5 * 2 * (1 + rho * angles.sin()) ** 2 - 1).max()
    start = torch.tensor([0.3, 1.0], dtype=torch.float64)
    assert max(rises(loss, ball(rho), 60, start)) == pytest.approx(float(exact), rel=1e-6)
    assert loss.weights().tolist() == [0.0, 1.0]


def test_an_adaptive_ball_is_measured_in_weights() -> None:
    """ASAM's change T² g ρ / ‖T g‖ with T = |w| (Kwon et al., equation 7)."""
    weights, gradient = torch.tensor([2.0, -0.5, 0.0]), torch.tensor([1.0, 3.0, 7.0])
    change = adaptive_ball(0.1, weights)(gradient)
    scaled = weights.abs() * gradient
    torch.testing.assert_close(change, 0.1 * weights**2 * gradient / scaled.norm())
    assert float((change[:2] / weights[:2].abs()).norm()) == pytest.approx(0.1)
    assert ball(0.1)(torch.zeros(3)).tolist() == [0.0] * 3


def test_a_random_rise_of_a_quadratic_has_its_mean() -> None:
    """One filter of norm r turned at random: ratio² · r² · trace / (2 n) on average."""
    loss = quadratic([4.0, 2.0, 1.0, 1.0], at=[3.0, 0.0, 4.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    mean, error = random_rise(
        loss, lambda: torch.randn(4, dtype=torch.float64, generator=generator), ratio=0.2, draws=400
    )
    assert abs(mean - 0.04 * 25 * 8 / 8) < 4 * error
    assert error < 0.05


def test_barrier_and_positions() -> None:
    assert barrier([-0.5, 0.0, 0.5, 1.0, 1.5], [9.0, 1.0, 4.0, 3.0, 9.0]) == 2.0
    assert barrier([0.0, 0.5, 1.0], [1.0, 0.0, 1.0]) == 0.0
    assert spread(-0.5, 1.5, 41)[10] == 0.0
    assert spread(-0.5, 1.5, 41)[30] == 1.0
    assert spread(-0.3, 0.3, 21)[10] == 0.0
    assert spread(-1.0, 1.0, 3) == [-1.0, 0.0, 1.0]
