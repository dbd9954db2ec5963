"""The slices that are drawn of a checkpoint: along its top eigenvector, at random, and towards another checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optexp.curvature.filters import filter_normalized
from optexp.curvature.of_run import Checkpoint, Curvature
from optexp.curvature.slices import Place, around, barrier, between, line, plane, spread
from optexp.report.figures.landscape import Panel, Plane


@dataclass(frozen=True)
class Slicing:
    """How slices are taken; see conf/task/sharpness.yaml."""

    points: int
    directions: int
    plane_points: int
    radius: float


@dataclass(frozen=True)
class Pictures:
    """Slices as plain numbers, as they are drawn; `barrier` between two checkpoints is None for one."""

    panels: list[Panel]
    plane: Plane | None
    barrier: float | None

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each point of each slice."""
        rows = [
            {"slice": panel.title, "direction": label, "split": split, "x": x, "y": 0.0, "loss": loss}
            for panel in self.panels
            for label, losses, split in panel.lines
            for x, loss in zip(panel.positions, losses, strict=True)
        ]
        if self.plane is not None:
            for y, losses in zip(self.plane.ys, self.plane.losses, strict=True):
                for x, loss in zip(self.plane.xs, losses, strict=True):
                    rows.append({"slice": "plane", "direction": "", "split": "train", "x": x, "y": y, "loss": loss})
        return rows


def landscape(
    checkpoint: Checkpoint, other: Checkpoint | None, found: Curvature, slicing: Slicing, seed: int
) -> Pictures:
    """Take all slices of a checkpoint; with `other`, those that lead to it in place of the random ones."""
    panels = [_along_top(checkpoint, found, slicing)]
    x_way, y_way = _random_directions(checkpoint, max(slicing.directions, 2), seed)[:2]
    if other is not None:
        place = between(checkpoint.loss, other.training.model.state_dict(), y_way)
        panel = _towards(checkpoint, other, place, slicing)
        panels.append(panel)
        marks = {label: (x, 0.0) for label, x in panel.marks.items()}
        xlabel, reach = "from the one to the other", (-0.5, 1.5)
        height = barrier(panel.positions, panel.lines[0][1])
    else:
        place = around(checkpoint.loss, x_way, y_way)
        if slicing.directions:
            panels.append(_at_random(checkpoint, slicing, seed))
        marks = {f"step {checkpoint.step:,}": (0.0, 0.0)}
        xlabel, reach = "random direction 1 (norms of the filters)", (-slicing.radius, slicing.radius)
        height = None
    if not slicing.plane_points:
        return Pictures(panels, None, height)
    xs = spread(*reach, slicing.plane_points)
    ys = spread(-slicing.radius, slicing.radius, slicing.plane_points)
    losses = plane(checkpoint.loss, place, xs, ys)
    number = 1 if other is not None else 2
    ylabel = f"random direction {number} (norms of the filters)"
    return Pictures(panels, Plane("training loss", xlabel, ylabel, xs, ys, losses, marks), height)


def _along_top(checkpoint: Checkpoint, found: Curvature, slicing: Slicing) -> Panel:
    """Follow the top eigenvector as far as its parabola takes to rise by 1."""
    value = found.spectrum.eigenvalues[0]
    reach = math.sqrt(2 / value) if value > 0 else slicing.radius
    positions = spread(-reach, reach, slicing.points)
    losses = [checkpoint.loss, checkpoint.validation]
    train, val = line(losses, around(checkpoint.loss, found.spectrum.vectors[0]), positions)
    slope = float(checkpoint.loss.gradient() @ found.spectrum.vectors[0])
    lines = [("", train, "train"), ("", val, "val")]
    return Panel("along the top eigenvector", "distance", positions, lines, (found.loss, slope, value))


def _random_directions(checkpoint: Checkpoint, number: int, seed: int) -> list[Tensor]:
    draw, weights = checkpoint.draws(seed, "slices"), checkpoint.loss.weights()
    return [filter_normalized(draw(), weights, checkpoint.loss.shapes) for _ in range(number)]


def _at_random(checkpoint: Checkpoint, slicing: Slicing, seed: int) -> Panel:
    positions = spread(-slicing.radius, slicing.radius, slicing.points)
    lines = []
    for number, direction in enumerate(_random_directions(checkpoint, slicing.directions, seed)):
        train, val = line([checkpoint.loss, checkpoint.validation], around(checkpoint.loss, direction), positions)
        lines += [(f"direction {number + 1}", train, "train"), (f"direction {number + 1}", val, "val")]
    return Panel("along random filter-normalized directions", "norms of the filters", positions, lines)


def _towards(checkpoint: Checkpoint, other: Checkpoint, place: Place, slicing: Slicing) -> Panel:
    positions = spread(-0.5, 1.5, slicing.points if slicing.points % 4 == 1 else 4 * (slicing.points // 4) + 5)
    train, val = line([checkpoint.loss, checkpoint.validation], place, positions)
    marks = dict(zip(ends(checkpoint, other), (0.0, 1.0), strict=True))
    return Panel(
        "between the checkpoints", "share of the way", positions, [("", train, "train"), ("", val, "val")], marks=marks
    )


SHORT = 12
"""Characters that two names may begin with alike: a picture has room for the first 18 of each."""


def ends(first: Checkpoint, second: Checkpoint) -> tuple[str, str]:
    """Return a name for each of two checkpoints, told apart by what differs: checkpoint and step of one run, names of
    runs, or of runs of one name the folders in which their paths differ.
    """
    one, other = first.run.path.resolve(), second.run.path.resolve()
    if one == other:
        return f"{first.name}, step {first.step:,}", f"{second.name}, step {second.step:,}"
    # From the end on; the root is a part of both, so that the shorter path has one left where it ends.
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    names = next((a, b) for a, b in pairs if a != b)
    letters = enumerate(zip(*names, strict=False))
    alike = next((place for place, (a, b) in letters if a != b), min(map(len, names)))
    return names if alike <= SHORT else ("…" + names[0][alike - 1 :], "…" + names[1][alike - 1 :])
