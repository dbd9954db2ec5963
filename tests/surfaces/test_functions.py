"""The surfaces: their values, minima and curvatures are those they are known for."""

from __future__ import annotations

import math

import pytest
import torch

from optexp.surfaces.functions import SURFACES, heights

KNOWN = {
    "ravine": ((math.cos(math.pi / 6), math.sin(math.pi / 6)), 0.5),  # one unit along
    "saddle": ((0.0, 0.0), 0.25),
    "beale": ((1.0, 1.0), 1.5**2 + 2.25**2 + 2.625**2),
    "rosenbrock": ((-1.2, 1.0), 24.2),
    "noisy_quadratic": ((2.0, 3.0), 47.0),
}
CURVATURES = {"ravine": [1, 100], "saddle": [1, 2], "noisy_quadratic": [1, 10]}


def point(place: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(place, dtype=torch.float64)


@pytest.mark.parametrize("name", SURFACES)
def test_values_and_minima(name: str) -> None:
    surface = SURFACES[name]
    place, value = KNOWN[name]
    assert float(surface.f(point(place))) == pytest.approx(value)
    for minimum in surface.minima:
        at = point(minimum)
        assert float(surface.f(at)) == pytest.approx(0, abs=1e-15)
        assert torch.autograd.functional.jacobian(surface.f, at).abs().max() < 1e-12
        found = torch.linalg.eigvalsh(torch.autograd.functional.hessian(surface.f, at))
        assert found.min() > 0
        if name in CURVATURES:
            assert found.tolist() == pytest.approx(CURVATURES[name])


def test_the_saddle_is_one() -> None:
    hessian = torch.autograd.functional.hessian(SURFACES["saddle"].f, point((0.0, 0.0)))
    assert torch.linalg.eigvalsh(hessian).tolist() == pytest.approx([-1, 1])


@pytest.mark.parametrize("name", SURFACES)
def test_starts_and_minima_are_in_the_picture(name: str) -> None:
    surface = SURFACES[name]
    for x, y in (*surface.starts, *surface.minima):
        assert surface.x[0] < x < surface.x[1]
        assert surface.y[0] < y < surface.y[1]
    along_x, along_y, above = heights(surface, 7)
    assert above[2][5] == pytest.approx(float(surface.f(point((along_x[5], along_y[2])))))
