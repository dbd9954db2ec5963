"""The task `line_fit`: SGD with momentum against AdamW on y = 2x + 1, as the guide has it and without its helpers."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from optexp.assemble import Training, assemble
from optexp.config.check import check
from optexp.config.compose import Composed, Composer
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.config.values import Above, AtLeast
from optexp.errors import StorageError
from optexp.records.console import relative, say
from optexp.records.numbers import measured
from optexp.report.figures.line_fit import line_fit_figure, slope_figure
from optexp.report.figures.style import save_png
from optexp.report.tables import Column, print_table
from optexp.run import Result
from optexp.task_record import Found, carry_out

LINE = (2.0, 1.0)
"""Slope and intercept of the points, but for their noise."""

TOLERANCE = 0.05
"""A fit has arrived when slope and intercept are within this fraction of the line's."""

POINTS = 142
"""Of which 100 are trained on, as in the guide."""

_PLAIN = (
    *("schedule=constant", "~schedule.T_0", "~schedule.T_mult", "~schedule.unit"),
    *("engine.clip_norm=null", "optimizer.weight_decay=0"),
)
TRAINERS = {"with restarts, clip, decay": (), "plain": _PLAIN}
"""What the experiments set, and the same without restarts, gradient clipping and weight decay."""

OPTIMIZERS = {"SGD momentum 0.9": "line_fit_sgd", "AdamW betas 0.9, 0.95": "line_fit_adamw"}


@dataclass(frozen=True)
class LineFitSettings:
    """See conf/task/line_fit.yaml."""

    steps: Annotated[int, AtLeast(1)] = 100
    lr: Annotated[float, Above(0)] = 0.1


@dataclass(frozen=True)
class Fit:
    """A line on its way: slope, intercept and loss over all points at the start and after each step."""

    optimizer: str
    trainer: str
    slopes: list[float]
    intercepts: list[float]
    losses: list[float]

    @property
    def overshoot(self) -> float:
        """How far the slope goes beyond the true one, seen from where it started."""
        side = math.copysign(1.0, LINE[0] - self.slopes[0])
        return max(0.0, *(side * (slope - LINE[0]) for slope in self.slopes))

    @property
    def within(self) -> list[bool]:
        """At which steps slope and intercept are both within 5 % of the line's."""
        return [
            all(abs(found - true) <= TOLERANCE * abs(true) for found, true in zip(pair, LINE, strict=True))
            for pair in zip(self.slopes, self.intercepts, strict=True)
        ]

    @property
    def arrival(self) -> int | None:
        """The first step after which the fit is within 5 %; None for never."""
        return next((step for step, inside in enumerate(self.within) if inside), None)

    @property
    def settling(self) -> int | None:
        """The step from which on it stays there; None when it is outside at the end."""
        outside = [step for step, inside in enumerate(self.within) if not inside]
        last = outside[-1] + 1 if outside else 0
        return last if last < len(self.slopes) else None

    def summary(self) -> dict[str, Any]:
        """Return the main numbers."""
        row: dict[str, Any] = {"trainer": self.trainer, "optimizer": self.optimizer, "slope": self.slopes[-1]}
        row |= {"intercept": self.intercepts[-1], "loss": self.losses[-1], "overshoot": self.overshoot}
        return row | {"arrival": self.arrival, "settling": self.settling}


class LineFit:
    """Four fits from the same initial weights, refused or ready when constructed (BadInput)."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        self.composed = composed
        self.settings = task_settings(LineFitSettings, composed.config["task"])
        composer = Composer()
        common = [f"seed={composed.config['seed']}", f"dataset.num_points={POINTS}", "engine.device=cpu"]
        common += [f"engine.max_steps={self.settings.steps}", f"optimizer.lr={self.settings.lr!r}"]
        self.words = {
            (trainer, optimizer): [f"experiment={experiment}", *common, *changes]
            for trainer, changes in TRAINERS.items()
            for optimizer, experiment in OPTIMIZERS.items()
        }
        self.trainings = {names: _training(composer, words) for names, words in self.words.items()}

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Fit, and leave figures and all numbers in the directory `path`."""
        return carry_out(self.composed, path, command, overrides, self._work)

    def _work(self, path: Path) -> Found:
        torch.set_num_threads(1)  # two numbers
        fits = [_fitted(training, *names) for names, training in self.trainings.items()]
        points = _points(next(iter(self.trainings.values())))
        best = _least_squares(*points)
        self._print(fits, best)
        self._draw(fits, points, path / "figures")
        metrics = {
            f"{fit.trainer}/{fit.optimizer}/{key}": value
            for fit in fits
            for key, value in fit.summary().items()
            if isinstance(value, float)
        }
        runs = [
            {**fit.summary(), "command": shlex.join(["optexp", *words]), **asdict(fit)}
            for fit, words in zip(fits, self.words.values(), strict=True)
        ]
        facts = {"line": LINE, "tolerance": TOLERANCE, "points": len(points[0]), "settings": asdict(self.settings)}
        return Found(metrics, {**facts, "least_squares": best.summary(), "runs": runs})

    def _print(self, fits: Sequence[Fit], best: Fit) -> None:
        """Print what happened on the way, and the table."""
        for trainer in TRAINERS:
            sgd, adamw = (fit for fit in fits if fit.trainer == trainer)
            say(
                f"{trainer}: the slope overshoots by {measured(sgd.overshoot)} with SGD, {measured(adamw.overshoot)} "
                f"with AdamW; within 5 % for good {_when(sgd.settling)} and {_when(adamw.settling)}"
            )
        columns = [
            Column("optimizer"),
            *(Column(key, text=measured, numeric=True) for key in ("slope", "intercept", "loss", "overshoot")),
            Column("arrival", title="first within 5 %", text=_step, numeric=True),
            Column("settling", title="stays within 5 %", text=_step, numeric=True),
        ]
        reference = {key: best.summary()[key] for key in ("slope", "intercept", "loss")}
        rows = [fit.summary() for fit in fits] + [
            {"trainer": "without steps", "optimizer": "least squares", **reference}
        ]
        print_table(rows, columns, group_by="trainer")
        say("one seed; optexp study=line_fit asks the same over eight")

    def _draw(self, fits: Sequence[Fit], points: tuple[Tensor, Tensor], folder: Path) -> None:
        groups = [
            {
                "title": trainer,
                "restarts": self._restarts(trainer),
                "fits": [asdict(f) for f in fits if f.trainer == trainer],
            }
            for trainer in TRAINERS
        ]
        pairs = list(zip(*(side.tolist() for side in points), strict=True))
        try:
            folder.mkdir(exist_ok=True)
            save_png(line_fit_figure(groups, pairs, LINE), folder / "line_fit.png")
            save_png(slope_figure(groups, LINE[0], TOLERANCE), folder / "slope.png")
        except OSError as error:
            raise StorageError(f"cannot write into {folder}: {error.strerror or error}") from error
        say(f"{relative(folder)}: line_fit.png, slope.png")

    def _restarts(self, trainer: str) -> list[int]:
        """Return the steps at which the learning rate rises again."""
        training = next(training for names, training in self.trainings.items() if names[0] == trainer)
        rates = [training.schedule.lr(step, 1.0) for step in range(self.settings.steps)]
        return [step for step in range(1, len(rates)) if rates[step] > rates[step - 1]]


def _training(composer: Composer, words: Sequence[str]) -> Training:
    composed = composer.compose(list(words))
    engine = check(composed.config, composed.choices)
    return assemble(composed.config, engine, composed.choices)


def _points(training: Training) -> tuple[Tensor, Tensor]:
    """Return x and y of the points that are trained on, float64 [100]."""
    split = training.dataset.train
    assert split.targets is not None
    return split.inputs.double().flatten(), split.targets.double().flatten()


def _fitted(training: Training, trainer: str, optimizer: str) -> Fit:
    """Take all steps of a training and return the line after each; after a divergence there are no more."""
    program, x_y = training.program, _points(training)
    weight, bias = sorted(program.parameters, key=lambda parameter: -parameter.ndim)
    path = [(weight.item(), bias.item())]
    for step in range(training.plan.total_steps):
        if program.step(step, [training.schedule.lr(step, training.base_lr)]):
            break
        path.append((weight.item(), bias.item()))
    slopes, intercepts = ([place[side] for place in path] for side in (0, 1))
    return Fit(optimizer, trainer, slopes, intercepts, [_loss(place, *x_y) for place in path])


def _loss(line: tuple[float, float], x: Tensor, y: Tensor) -> float:
    return float((line[0] * x + line[1] - y).square().mean())


def _least_squares(x: Tensor, y: Tensor) -> Fit:
    """Return the line with the smallest loss."""
    ones = torch.stack([x, torch.ones_like(x)], 1)
    slope, intercept = torch.linalg.lstsq(ones, y).solution.tolist()
    return Fit("least squares", "", [slope], [intercept], [_loss((slope, intercept), x, y)])


def _when(step: int | None) -> str:
    return "never" if step is None else f"from step {step}"


def _step(step: int | None) -> str:
    return "never" if step is None else str(step)
