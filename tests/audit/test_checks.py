"""Comparing trajectories: the first deviating step, relative to the distance travelled."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from optexp.audit import problems
from optexp.audit.checks import deviation, first_difference, told_apart
from optexp.audit.subject import configured, subject
from optexp.audit.variants import variant_checks

PATH = np.array([[1.0, 2.0], [1.5, 2.0], [3.0, 2.0]])


def test_a_deviation_is_relative_to_the_distance_travelled() -> None:
    off = PATH.copy()
    off[2, 0] += 0.02  # of a distance of 2
    assert deviation(off, PATH, 0.011).step is None
    found = deviation(off, PATH, 0.009)
    assert (found.step, found.found, found.expected) == (2, pytest.approx(3.02), 3.0)
    assert found.largest == pytest.approx(0.01)


def test_what_does_not_move_is_compared_with_the_size_of_the_weights() -> None:
    still = np.ones((3, 2))
    assert deviation(still + np.array([[0, 0], [0, 0], [0, 1e-3]]), still, 1e-4).step == 2


def test_a_comparison_ends_where_the_expected_path_overflows() -> None:
    wild = np.vstack([PATH, [[np.inf, 2.0]]])
    assert deviation(np.vstack([PATH, [[np.nan, 2.0]]]), wild, 1e-9).step is None
    assert deviation(np.vstack([PATH[:2], [[np.nan, 2.0]], [[0, 0]]]), wild, 1e-9).step == 2


def test_steps_compared_are_counted_and_too_few_are_told() -> None:
    wild = np.vstack([PATH, [[1e101, 2.0]], [[np.inf, 2.0]]])
    off = deviation(wild, wild, 1e-9)
    assert (off.compared, off.steps, off.step) == (2, 4, None)
    assert off.over() == "2 of 4 steps (then the expected weights exceed 1e+100)"
    assert off.too_short(2) is None
    assert "after step 2" in str(off.too_short())
    assert deviation(PATH, PATH, 1e-9).too_short() is None  # all that there is


def test_early_deviations_show_though_the_weights_diverge_later() -> None:
    diverging = 2.0 ** np.arange(300)[:, None]
    off = diverging.copy()
    off[3] *= 1.01
    assert deviation(off, diverging, 1e-3).step == 3


def test_numbers_that_differ_are_never_printed_alike() -> None:
    assert told_apart(1.38863, 1.388630032) == ("1.38863", "1.38863003")
    assert len(set(told_apart(1.0, float(np.nextafter(1.0, 2.0))))) == 2


def test_equal_paths_have_no_first_difference_and_overflow_is_one() -> None:
    assert first_difference(PATH, PATH) is None
    other = PATH.copy()
    other[1, 1] += 1e-3
    assert first_difference(PATH, other) == 1
    other[1, 1] = math.inf
    assert first_difference(PATH, other) == 1


@pytest.mark.parametrize(
    "make", [problems.constant_gradient, problems.quadratic, problems.sparse_gradient, problems.zero_gradient]
)
def test_gradients_are_those_of_the_loss(make: object) -> None:
    problem = make()  # type: ignore[operator]
    for step in (1, 2, 10):
        weights = [torch.tensor(start, requires_grad=True) for start in problem.starts]
        problem.loss(weights, step).backward()
        for index, own in enumerate(weights):
            expected = problem.gradient(index, problem.starts[index], step)
            assert own.grad is not None
            np.testing.assert_allclose(own.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


def test_every_element_of_the_sparse_problem_is_seen_and_some_are_rare() -> None:
    problem = problems.sparse_gradient()
    seen = [np.mean([problem.gradient(1, problem.starts[1], t) != 0 for t in range(1, 61)], 0)]
    np.testing.assert_allclose(seen[0], [1, 1 / 2, 1 / 3, 1 / 4, 1], rtol=1e-9)


def test_the_default_type_is_given_back() -> None:
    given = {"lr": 0.1}
    found = subject(configured(torch.optim.NAdam, given), given)
    found.follow(problems.quadratic(), 2)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.slow
def test_compiled_code_is_compared() -> None:
    given = {"lr": 0.1, "momentum": 0.9}
    found = subject(configured(torch.optim.SGD, given), given)
    check = {check.name: check for check in variant_checks(found, compiled=True)}["agrees: compiled"]
    assert (check.verdict, check.numbers["settings"]) == ("pass", 1)
