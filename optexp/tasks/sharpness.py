"""The task `sharpness`: how curved the training loss is at a checkpoint, and what it looks like around it."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from optexp.config.check import GROUPS_OF_A_TRAINING
from optexp.config.compose import Composed
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.config.values import Above, AtLeast
from optexp.curvature.of_run import Checkpoint, Curvature, Measuring, load_checkpoint, measure, numbers
from optexp.curvature.pictures import Pictures, Slicing, landscape
from optexp.engine.state import check_fits
from optexp.errors import BadInput, StorageError
from optexp.records.console import relative, say
from optexp.records.numbers import measured, setting
from optexp.report.figures.landscape import plane_figure, slices_figure
from optexp.report.figures.style import save_png
from optexp.report.tables import Column, print_table
from optexp.run import Result
from optexp.task_record import Found, carry_out


@dataclass(frozen=True)
class SharpnessSettings(Measuring):
    """What to measure, and how; see conf/task/sharpness.yaml."""

    run: str | None = None
    between: str | None = None
    between_checkpoint: Literal["last", "best"] | None = None
    points: Annotated[int, AtLeast(3)] = 41
    directions: Annotated[int, AtLeast(0)] = 2
    plane_points: Annotated[int, AtLeast(0)] = 17
    radius: Annotated[float, Above(0)] = 1.0

    def __post_init__(self) -> None:
        if self.between_checkpoint is not None and self.between is None:
            raise BadInput(f"between_checkpoint={self.between_checkpoint}: is that of task.between=DIR, which is null")

    @property
    def at_other_end(self) -> Measuring:
        """How the checkpoint of task.between is read."""
        return dataclasses.replace(self, checkpoint=self.between_checkpoint or self.checkpoint)


class Sharpness:
    """One measurement, refused or ready when constructed (BadInput): the run is rebuilt there."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        self.settings = settings = task_settings(SharpnessSettings, composed.config["task"])
        if composed.choices.get("experiment"):
            raise BadInput(
                f"experiment={composed.choices['experiment']}: task=sharpness takes model, data and optimizer from the "
                "run's own config.yaml; leave it out"
            )
        if settings.run is None:
            raise BadInput("task.run must be set: add task.run=DIR, the directory of a run")
        if settings.plane_points in (1, 2):
            raise BadInput(f"task.plane_points={settings.plane_points}: allowed are 0 and integers ≥ 3")
        self.seed, trust = int(composed.config["seed"]), composed.config["trust"]
        self.checkpoint = _loaded("run", settings.run, settings, self.seed, trust)
        self.other = None
        if settings.between is not None:
            self.other = _loaded("between", settings.between, settings.at_other_end, self.seed, trust)
            if self.other.is_that_of(self.checkpoint):
                raise BadInput(
                    f"task.between={settings.between}: is checkpoint '{self.other.name}' of task.run itself; "
                    "allowed are another run and another task.between_checkpoint"
                )
            try:
                check_fits(self.checkpoint.training.model.state_dict(), self.other.training.model.state_dict())
            except BadInput as error:
                raise BadInput(f"task.between={settings.between}: is a run of another model ({error})") from None
        run = self.checkpoint.run  # what was measured belongs into the record, and not the defaults of other groups
        config = {**composed.config, **{group: run.config[group] for group in GROUPS_OF_A_TRAINING}}
        choices = {
            **composed.choices,
            **{group: run.choice(group) for group in GROUPS_OF_A_TRAINING if group != "engine"},
        }
        self.composed = dataclasses.replace(composed, config=config, choices=choices)

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Measure, and leave tables, figures and result.json in the directory `path`."""
        return carry_out(self.composed, path, command, overrides, self._work)

    def _work(self, path: Path) -> Found:
        checkpoint, settings = self.checkpoint, self.settings
        for note in [*checkpoint.notes, *(self.other.notes if self.other is not None else [])]:
            say(f"  {note}")
        say(
            f"{relative(checkpoint.run.path)} at step {checkpoint.step:,} ({checkpoint.name}): "
            f"{checkpoint.loss.size:,} weights, {checkpoint.samples:,} samples"
        )
        if self.other is not None:
            say(f"to {relative(self.other.run.path)} at step {self.other.step:,} ({self.other.name})")
        found = measure(checkpoint, settings, self.seed)
        row = numbers(checkpoint, found)
        slicing = Slicing(settings.points, settings.directions, settings.plane_points, settings.radius)
        pictures = landscape(checkpoint, self.other, found, slicing, self.seed)
        answer = sentence(checkpoint, found, row)
        lines = table(checkpoint, found, row, settings)
        if pictures.barrier is not None:
            lines.append(_line("barrier between the two", pictures.barrier, "highest rise above the straight line"))
        say(answer)
        print()
        print_table(lines, COLUMNS)
        _write(path, lines, pictures)
        result = {
            "answer": answer,
            "run": str(checkpoint.run.path),
            "checkpoint": checkpoint.name,
            "step": checkpoint.step,
            "between": self._between(),
            "samples": checkpoint.samples,
            "parameters": checkpoint.loss.size,
            "lr": checkpoint.lr,
            "largest_lr": checkpoint.largest_lr,
            "stability": checkpoint.stability.formula,
            "measured": row,
            "spectrum": _spectrum(found),
            "slices": dataclasses.asdict(pictures),
        }
        metrics = {f"sharpness/{name}": value for name, value in row.items()}
        return Found(metrics, result, row["top_eigenvalue"])

    def _between(self) -> dict[str, Any] | None:
        if self.other is None:
            return None
        return {"run": str(self.other.run.path), "checkpoint": self.other.name, "step": self.other.step}


def _loaded(key: str, name: str, settings: Measuring, seed: int, trust: Sequence[str]) -> Checkpoint:
    try:
        return load_checkpoint(Path(name).expanduser().absolute(), settings, seed, trust)
    except BadInput as error:
        raise BadInput(f"task.{key}={name}: {error}") from None


def _spectrum(found: Curvature) -> dict[str, Any]:
    spectrum = found.spectrum
    return {
        "eigenvalues": spectrum.eigenvalues,
        "residuals": spectrum.residuals,
        "converged": spectrum.converged,
        "lowest": spectrum.lowest,
        "lowest_residual": spectrum.lowest_residual,
        "products": spectrum.products,
    }


# What is said ---------------------------------------------------------------------------------------------------

COLUMNS = [
    Column("quantity"),
    Column("value", text=measured, numeric=True),
    Column("uncertainty"),
    Column("meaning", optional=1),
]


def sentence(checkpoint: Checkpoint, found: Curvature, row: Mapping[str, float]) -> str:
    """Return the answer in one line: the largest eigenvalue, and on which side of the stability limit it is."""
    value = row["top_eigenvalue"]
    text = f"λ_max = {measured(value)}"
    if not found.spectrum.converged[0]:
        text += f" (not converged after {found.spectrum.products} products)"
    limit = row.get("stability_limit")
    if limit is None:
        return f"{text}; {checkpoint.stability.formula}"
    curvature = row.get("preconditioned_eigenvalue", value)
    if "preconditioned_eigenvalue" in row:
        text += f"; preconditioned {measured(curvature)}"
    name = type(checkpoint.training.optimizer).__name__
    rate = f"lr {setting(checkpoint.largest_lr)}{', the largest so far' if _has_fallen(checkpoint) else ''}"
    where = f"the stability limit {measured(limit)} of {name} at {rate}"
    if curvature <= 0:
        return f"{text}: not positive, so below {where}"
    ratio = limit / curvature
    if ratio >= 1:
        return f"{text}: below {where}, by a factor of {ratio:.3g}"
    return f"{text}: above {where}, by a factor of {1 / ratio:.3g}"


def _has_fallen(checkpoint: Checkpoint) -> bool:
    return checkpoint.lr < checkpoint.largest_lr * (1 - 1e-9)


def table(
    checkpoint: Checkpoint, found: Curvature, row: Mapping[str, float], measuring: Measuring
) -> list[dict[str, Any]]:
    """Return the lines of the table: quantity, value, uncertainty, meaning."""
    spectrum = found.spectrum
    samples = f"mean over {checkpoint.samples:,} training samples, step {checkpoint.step:,} ({checkpoint.name})"
    lines = [_line("training loss", found.loss, samples), _line("gradient norm", found.gradient_norm, "of that loss")]
    for number, value in enumerate(spectrum.eigenvalues):
        text = f"‖Hv − λv‖ = {measured(spectrum.residuals[number])}"
        text += "" if spectrum.converged[number] else ", not converged"
        lines.append(_line(f"eigenvalue {number + 1}", value, "of the Hessian, the largest ones", text))
    text = f"‖Hv − λv‖ = {measured(spectrum.lowest_residual)}"
    lines.append(_line("lowest eigenvalue", spectrum.lowest, "at most this: negative at a saddle", text))
    lines.append(_line("trace", found.trace[0], "of the Hessian", f"± {measured(found.trace[1])}"))
    lines += _stability_lines(checkpoint, found, row)
    rho, ratio = setting(measuring.rho), setting(measuring.filter_ratio)
    lines.append(_line("SAM sharpness", found.sam, f"rise of the loss at distance {rho} along the gradient"))
    worst = f"the same after {measuring.ascent_steps} ascent steps, or along the top eigenvector"
    lines.append(_line("SAM sharpness, worst", found.sam_worst, worst))
    relative_rho = f"ASAM's step of {setting(measuring.adaptive_rho)} in units of the weights"
    lines.append(_line("adaptive sharpness", found.adaptive, relative_rho))
    mean, error = found.filter_normalized
    moved = f"mean rise when each filter moves by {ratio} of its norm"
    lines.append(_line("filter-normalized", mean, moved, f"± {measured(error)}"))
    return lines


def _stability_lines(checkpoint: Checkpoint, found: Curvature, row: Mapping[str, float]) -> list[dict[str, Any]]:
    statement = checkpoint.stability
    lines = []
    if found.preconditioned is not None:
        residual = f"‖Hv − λv‖ = {measured(found.preconditioned.residuals[0])}"
        residual += "" if found.preconditioned.converged[0] else ", not converged"
        name = type(checkpoint.training.optimizer).__name__
        value = found.preconditioned.eigenvalues[0]
        lines.append(_line("preconditioned", value, f"largest eigenvalue as {name} sees it", residual))
    if "stability_limit" not in row:
        return [*lines, {"quantity": "stability limit", "meaning": statement.formula}]
    meaning = f"{statement.formula} at lr {setting(checkpoint.largest_lr)}"
    lines.append(_line("stability limit", row["stability_limit"], meaning + ", the largest so far"))
    if _has_fallen(checkpoint):
        now = statement.limit(checkpoint.lr)
        lines.append(_line("stability limit now", math.inf if now is None else now, f"at lr {setting(checkpoint.lr)}"))
    return lines


def _line(quantity: str, value: float, meaning: str, uncertainty: str = "") -> dict[str, Any]:
    return {"quantity": quantity, "value": value, "uncertainty": uncertainty, "meaning": meaning}


# What is written ------------------------------------------------------------------------------------------------


def _write(path: Path, lines: Sequence[Mapping[str, Any]], pictures: Pictures) -> None:
    figures = path / "figures"
    try:
        figures.mkdir(exist_ok=True)
        save_png(slices_figure(pictures.panels), figures / "slices.png")
        if pictures.plane is not None:
            save_png(plane_figure(pictures.plane), figures / "plane.png")
        _write_csv(path / "sharpness.csv", ("quantity", "value", "uncertainty", "meaning"), lines)
        _write_csv(path / "slices.csv", ("slice", "direction", "split", "x", "y", "loss"), pictures.rows())
    except OSError as error:
        raise StorageError(f"cannot write into {path}: {error.strerror or error}") from error
    print()
    say(f"  pictures     {relative(figures)}")
    say(f"  tables       {relative(path / 'sharpness.csv')}, slices.csv, result.json")


def _write_csv(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
