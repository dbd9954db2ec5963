"""The task `surface`: paths of optimizers over surfaces of two parameters, each tuned with the same effort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from optexp.config.compose import Composed
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.config.values import Above, AtLeast, Between
from optexp.errors import BadInput, StorageError, listed, nearest
from optexp.records.console import relative, say
from optexp.records.numbers import measured, setting
from optexp.report.figures.style import save_png
from optexp.report.figures.surfaces import overview_figure, surface_figure, write_animation
from optexp.report.tables import Column, print_table
from optexp.run import Result
from optexp.surfaces import functions
from optexp.surfaces.contestants import Contestant, contestants
from optexp.surfaces.functions import SURFACES, heights
from optexp.surfaces.tuning import Effort, Outcome, compare, grid
from optexp.task_record import Found, carry_out


@dataclass(frozen=True)
class SurfaceSettings:
    """See conf/task/surface.yaml."""

    optimizers: list[str]
    surfaces: list[str]
    steps: Annotated[int, Between(1, 100_000)] = 200
    rates: Annotated[int, Between(1, 200)] = 16
    lowest_rate: Annotated[float, Above(0)] = 1e-4
    highest_rate: Annotated[float, Above(0)] = 10.0
    weight_decay: Annotated[float, AtLeast(0)] | None = None
    realizations: Annotated[int, Between(1, 1000)] = 8
    threshold: Annotated[float, Between(0, 1, open_above=True)] = 1e-3
    frames: Annotated[int, Between(0, 500)] = 48

    def __post_init__(self) -> None:
        for key, names in (("optimizers", self.optimizers), ("surfaces", self.surfaces)):
            if not names or not all(name.split() for name in names):
                raise BadInput(f"{key}={setting(names)}: allowed is a list of names, one at least")
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise BadInput(f"{key}={setting(names)}: {twice} stands there twice")
        for name in self.surfaces:
            if name not in SURFACES:
                raise BadInput(f"surfaces: no surface '{name}'{nearest(name, SURFACES)}; there are {listed(SURFACES)}")
        if self.lowest_rate > self.highest_rate:
            raise BadInput(
                f"lowest_rate={setting(self.lowest_rate)}: is above highest_rate={setting(self.highest_rate)}"
            )


COLUMNS = (
    Column("optimizer"),
    Column("lr", numeric=True),
    Column("effective_lr", title="effective lr", numeric=True),
    Column("loss", title="final loss", numeric=True),
    Column("steps", title="steps to threshold", numeric=True),
    Column("remark"),
)


class Surface:
    """Paths of several optimizers over several surfaces, refused or ready when constructed (BadInput)."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        self.composed = composed
        self.settings = own = task_settings(SurfaceSettings, composed.config["task"])
        self.contestants = contestants(composed, own.optimizers, own.weight_decay)
        rates = grid(own.lowest_rate, own.highest_rate, own.rates)
        self.effort = Effort(rates, own.steps, own.realizations, own.threshold, int(composed.config["seed"]))

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Walk, and leave pictures, an animation and all paths in the directory `path`."""
        return carry_out(self.composed, path, command, overrides, self._work)

    def _work(self, path: Path) -> Found:
        torch.set_num_threads(1)  # two numbers at a time
        every = {name: self._walk(SURFACES[name]) for name in self.settings.surfaces}
        self._print(every)
        pictures = [_picture(SURFACES[name], outcomes) for name, outcomes in every.items()]
        self._draw(pictures, path / "figures")
        rows = [outcome.summary() for outcomes in every.values() for outcome in outcomes]
        metrics = {f"final_loss/{row['surface']}/{row['optimizer']}": row["final_loss"] for row in rows}
        found = {
            "settings": asdict(self.settings),
            "seed": self.effort.seed,
            "optimizers": {each.name: _shown(each) for each in self.contestants},
            "surfaces": {name: _facts(SURFACES[name], outcomes) for name, outcomes in every.items()},
        }
        return Found(metrics, found)

    def _walk(self, surface: functions.Surface) -> list[Outcome]:
        return [compare(surface, contestant, self.effort) for contestant in self.contestants]

    def _print(self, every: Mapping[str, Sequence[Outcome]]) -> None:
        """Print who came lowest on each surface, the table, and what must be known to read it."""
        own = self.settings
        say(
            f"{own.steps} steps from each start; of {own.rates} learning rates from {setting(own.lowest_rate)} to "
            f"{setting(own.highest_rate)} each optimizer has the one with its smallest mean final loss"
        )
        for name, outcomes in every.items():
            best = min((outcome.summary() for outcome in outcomes), key=lambda row: row["final_loss"])
            say(f"  {name}: lowest is {best['optimizer']} with {measured(best['final_loss'])}")
        rows = [{"surface": name, **_row(outcome)} for name, outcomes in every.items() for outcome in outcomes]
        print_table(rows, COLUMNS, group_by="surface")
        say(
            "final loss: mean ± standard deviation over paths; steps to threshold: mean until the loss is "
            f"{setting(own.threshold)} of the first, and how many paths arrive"
        )
        decays = {each.name: each.weight_decay for each in self.contestants if each.weight_decay}
        if decays:
            shown = listed(f"{name} {setting(decay)}" for name, decay in decays.items())
            say(f"weight decay pulls to the origin, which is not every surface's minimum: {shown}; task.weight_decay=0")

    def _draw(self, pictures: Sequence[Mapping[str, Any]], folder: Path) -> None:
        try:
            folder.mkdir(exist_ok=True)
            for picture in pictures:
                save_png(surface_figure(picture), folder / f"{picture['name']}.png")
            save_png(overview_figure(pictures), folder / "surfaces.png")
            if self.settings.frames:
                write_animation(pictures, folder / "surfaces.gif", self.settings.frames)
        except OSError as error:
            raise StorageError(f"cannot write into {folder}: {error.strerror or error}") from error
        names = [f"{picture['name']}.png" for picture in pictures] + ["surfaces.png"]
        say(f"{relative(folder)}: {', '.join(names + ['surfaces.gif'] * bool(self.settings.frames))}")


def _row(outcome: Outcome) -> dict[str, Any]:
    """Return a line of the table."""
    row = outcome.summary()
    spread = row["final_loss_sd"]
    loss = measured(row["final_loss"]) + ("" if spread is None else f" ± {measured(spread)}")
    mean = row["steps_to_threshold"]
    remarks = []
    if row["diverged"]:
        loss = loss if row["final_loss"] < float("inf") else "diverged"
        remarks.append(f"{row['diverged']} of {row['paths']} diverged")
    if row["on_edge"]:
        remarks.append(f"lr on the {row['on_edge']} edge of the grid")
    if row["gradients_per_step"] > 1:
        remarks.append(f"up to {row['gradients_per_step']} gradients per step")
    return {
        "optimizer": row["optimizer"],
        "lr": row["lr"],
        "effective_lr": row["effective_lr"],
        "loss": loss,
        "steps": "never" if mean is None else f"{mean:.0f} ({row['arrived']}/{row['paths']})",
        "remark": "; ".join(remarks),
    }


def _shown(contestant: Contestant) -> dict[str, Any]:
    named = getattr(contestant.target, "__name__", str(contestant.target))
    return {"constructor": named, "arguments": {**contestant.arguments, "lr": "tuned"}}


def _facts(surface: functions.Surface, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything about a surface: what it is, and of each optimizer tuning, main numbers and paths.

    `paths` is how many there were; `drawn_paths` are those that the pictures show, one from each start.
    """
    return {
        "formula": surface.formula,
        "minima": surface.minima,
        "starts": surface.starts,
        "noise": surface.noise,
        "optimizers": [
            {
                **outcome.summary(),
                "tuning": [{"lr": lr, "mean_final_loss": loss} for lr, loss in outcome.tuning.items()],
                "final_losses": outcome.final,
                "arrivals": outcome.arrivals,
                "diverged_paths": outcome.diverged,
                "mean_losses": _mean_losses(outcome),
                "drawn_paths": _drawn(surface, outcome),
            }
            for outcome in outcomes
        ],
    }


def _drawn(surface: functions.Surface, outcome: Outcome) -> dict[str, Any]:
    """Return one path from each start, [start][step] in six digits: of several realizations of noise the first."""
    number = len(surface.starts)
    places, losses = outcome.points[:, :number].transpose(0, 1), outcome.losses[:, :number].T
    return {
        "places": [[(_brief(x), _brief(y)) for x, y in path] for path in places.tolist()],
        "losses": [[_brief(loss) for loss in path] for path in losses.tolist()],
    }


def _mean_losses(outcome: Outcome) -> list[float]:
    """Return the mean loss over all paths, realizations of the noise included, at every step."""
    return [_brief(loss) for loss in outcome.losses.mean(1).tolist()]


def _brief(number: float) -> float:
    return float(f"{number:.6g}")


def _picture(surface: functions.Surface, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what the figures need of a surface."""
    x, y, above = heights(surface)
    paths = [
        {"optimizer": o.optimizer, "lr": o.lr, "places": _drawn(surface, o)["places"], "mean_losses": _mean_losses(o)}
        for o in outcomes
    ]
    facts = {"name": surface.name, "formula": surface.formula, "minima": surface.minima}
    return {**facts, "x": x, "y": y, "heights": above, "paths": paths}
