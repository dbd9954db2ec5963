"""A run directory as a loss at a checkpoint, and the numbers that describe its curvature."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from optexp import streams
from optexp.assemble import Training, assemble
from optexp.config.check import check
from optexp.config.values import Above, AtLeast
from optexp.curvature.lanczos import Product, Spectrum, lanczos
from optexp.curvature.loss import MeanLoss
from optexp.curvature.perturbation import adaptive_ball, ball, random_rise, rises
from optexp.curvature.samples import FixedSamples
from optexp.curvature.stability import Stability, stability
from optexp.curvature.trace import trace
from optexp.engine.checkpoint import Checkpoints
from optexp.engine.objective import Objective
from optexp.engine.runtime import Precision, prepare
from optexp.errors import BadInput
from optexp.records.files import write_atomically
from optexp.records.reading import Run, read_run
from optexp.records.run_directory import plain_numbers

SHARPNESS_FILE = "sharpness.json"
"""Where `sharpness_row` keeps in the run directory what it has measured."""


@dataclass(frozen=True)
class Measuring:
    """How the curvature at a checkpoint is measured; see conf/task/sharpness.yaml."""

    checkpoint: Literal["last", "best"] = "last"
    samples: Annotated[int, AtLeast(1)] | None = 1024
    batch_size: Annotated[int, AtLeast(1)] = 256
    float64: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    eigenvalues: Annotated[int, AtLeast(1)] = 5
    tolerance: Annotated[float, Above(0)] = 1e-3
    max_products: Annotated[int, AtLeast(1)] = 300
    trace_draws: Annotated[int, AtLeast(2)] = 64
    rho: Annotated[float, Above(0)] = 0.05
    adaptive_rho: Annotated[float, Above(0)] = 0.5
    filter_ratio: Annotated[float, Above(0)] = 0.1
    filter_draws: Annotated[int, AtLeast(2)] = 32
    ascent_steps: Annotated[int, AtLeast(1)] = 10


@dataclass
class Checkpoint:
    """A run at one of its checkpoints: the mean training loss with the model's weights, and what the run had set."""

    run: Run
    name: str
    step: int
    training: Training
    loss: MeanLoss
    validation: MeanLoss
    samples: int
    stability: Stability
    lr: float
    largest_lr: float
    notes: list[str]

    def is_that_of(self, other: Checkpoint) -> bool:
        """Return whether both are one checkpoint of one run, however its directory is written."""
        return self.name == other.name and self.run.path.resolve() == other.run.path.resolve()

    def draws(self, seed: int, purpose: str, signs: bool = False) -> Callable[[], Tensor]:
        """Return what draws random vectors [P], the same sequence for the same seed: normal numbers, or signs."""
        generator = streams.generator(seed, purpose)
        like = self.loss.parameters[0]

        def draw() -> Tensor:
            if signs:
                return (2.0 * torch.randint(2, (self.loss.size,), generator=generator) - 1).to(like)
            return torch.randn(self.loss.size, generator=generator, dtype=torch.float64).to(like)

        return draw


def load_checkpoint(path: Path, measuring: Measuring, seed: int = 0, trust: Sequence[str] = ()) -> Checkpoint:
    """Rebuild a run from its directory: data and model from config.yaml, weights and optimizer from a checkpoint.

    `seed` decides which samples are taken. Raises BadInput where there is no run or no checkpoint, for what cannot be
    rebuilt here, and where the loss is not finite.
    """
    run = read_run(path)
    if (run.info.get("task") or "train") != "train":
        raise BadInput(
            f"{path}: is a run of task={run.info['task']}, which trains no model; name the directory of a training"
        )
    run.check_repeatable()
    config = {**run.config, "trust": list(trust)}
    config["engine"] = {
        **config["engine"],
        "device": measuring.device,
        "precision": "fp64" if measuring.float64 or config["engine"]["precision"] == "fp64" else "fp32",
        "compile": False,
        "cuda_graph": False,
    }
    choices = run.info.get("choices") or {}
    training = assemble(config, check(config, choices, ["trust"]), choices, resuming=True)
    notes: list[str] = []
    loaded = Checkpoints(path / "checkpoints").load(measuring.checkpoint, notice=notes.append)
    if loaded is None:
        raise BadInput(f"{path}: has no checkpoint '{measuring.checkpoint}'; {_why_none(run)}")
    step, tree = loaded
    program = training.program
    program.load_state(0, tree["program"])
    switch = getattr(training.optimizer, "eval", None)  # schedule-free optimizers evaluate at other weights
    if callable(switch):
        switch()
    flops = training.model_facts["flops_per_sample"]
    prepare(training.device, training.engine.threads, flops and 6 * flops * measuring.batch_size)
    lr = float(training.optimizer.param_groups[0]["lr"])
    steps, rates = run.series("optim/lr")
    seen = [rate for at, rate in zip(steps, rates, strict=True) if at <= step]
    samples, loss = _mean_loss(training, measuring, seed, "train")
    _, validation = _mean_loss(training, measuring, seed, "val")
    found = Checkpoint(
        run,
        measuring.checkpoint,
        step,
        training,
        loss,
        validation,
        samples,
        stability(training.optimizer, training.model),
        lr,
        max([*seen, lr]),
        notes,
    )
    value = loss.value()
    if value - value != 0:
        raise BadInput(f"{path}: the loss at checkpoint '{measuring.checkpoint}' is {value}: it has no curvature")
    return found


def _why_none(run: Run) -> str:
    if run.config["engine"].get("checkpoint_every") is None:
        return "engine.checkpoint_every=null keeps none"
    return f"it ended at step {run.last_step}, before its first one"


def _mean_loss(
    training: Training, measuring: Measuring, seed: int, split: Literal["train", "val"]
) -> tuple[int, MeanLoss]:
    dataset = training.dataset
    samples = FixedSamples(
        dataset, getattr(dataset, split), measuring.samples, seed, training.device, measuring.batch_size
    )
    smoothing = training.engine.label_smoothing if split == "train" else 0.0
    objective = Objective(dataset.objective, smoothing)
    precision = Precision(training.engine.precision, training.device)
    return samples.number, MeanLoss(training.model, objective, samples, precision)


@dataclass(frozen=True)
class Curvature:
    """Everything that is measured at a checkpoint."""

    loss: float
    gradient_norm: float
    spectrum: Spectrum
    trace: tuple[float, float]
    sam: float
    sam_worst: float
    adaptive: float
    filter_normalized: tuple[float, float]
    preconditioned: Spectrum | None


def measure(checkpoint: Checkpoint, measuring: Measuring, seed: int = 0) -> Curvature:
    """Measure the curvature at a checkpoint; `seed` decides about all that is drawn at random."""
    loss = checkpoint.loss
    weights = loss.weights()
    spectrum = lanczos(
        loss.hessian_products,
        checkpoint.draws(seed, "lanczos"),
        measuring.eigenvalues,
        measuring.tolerance,
        measuring.max_products,
    )
    estimate = trace(
        loss.hessian_products, checkpoint.draws(seed, "trace", signs=True), measuring.trace_draws, spectrum.vectors
    )
    in_ball = ball(measuring.rho)
    top = spectrum.vectors[0]
    along_gradient = rises(loss, in_ball, measuring.ascent_steps)
    along_top = [rise for start in (top, -top) for rise in rises(loss, in_ball, 1, start)]
    preconditioned = None
    if checkpoint.stability.preconditioner is not None:
        preconditioned = lanczos(
            preconditioned_products(checkpoint),
            checkpoint.draws(seed, "preconditioned lanczos"),
            1,
            measuring.tolerance,
            measuring.max_products,
        )
    return Curvature(
        loss.value(),
        float(loss.gradient().norm()),
        spectrum,
        estimate,
        along_gradient[0],
        max(along_gradient + along_top),
        rises(loss, adaptive_ball(measuring.adaptive_rho, weights), 1)[0],
        random_rise(loss, checkpoint.draws(seed, "directions"), measuring.filter_ratio, measuring.filter_draws),
        preconditioned,
    )


def preconditioned_products(checkpoint: Checkpoint) -> Product:
    """Return products with P^-1/2 H P^-1/2, which has the eigenvalues of P^-1 H and is symmetric.

    With H itself where the optimizer has no preconditioner P.
    """
    product, preconditioner = checkpoint.loss.hessian_products, checkpoint.stability.preconditioner
    if preconditioner is None:
        return product
    scale = preconditioner.rsqrt()
    return lambda vectors: scale * product(scale * vectors)


def numbers(checkpoint: Checkpoint, found: Curvature) -> dict[str, float]:
    """Return what was measured as one number per name; what does not apply has no name.

    `stability_limit` is that of the largest learning rate up to the checkpoint, `stability_ratio` the curvature it
    holds for (the Hessian's largest eigenvalue, or the preconditioned Hessian's) divided by it.
    """
    spectrum = found.spectrum
    row = {
        "train_loss": found.loss,
        "gradient_norm": found.gradient_norm,
        "top_eigenvalue": spectrum.eigenvalues[0],
        "top_residual": spectrum.residuals[0],
        "lowest_eigenvalue": spectrum.lowest,
        "trace": found.trace[0],
        "trace_error": found.trace[1],
        "sam": found.sam,
        "sam_worst": found.sam_worst,
        "adaptive": found.adaptive,
        "filter_normalized": found.filter_normalized[0],
        "filter_normalized_error": found.filter_normalized[1],
    }
    curvature = spectrum
    if found.preconditioned is not None:
        curvature = found.preconditioned
        row["preconditioned_eigenvalue"] = curvature.eigenvalues[0]
    limit = checkpoint.stability.limit(checkpoint.largest_lr)
    if limit is not None:
        row |= {"stability_limit": limit, "stability_ratio": curvature.eigenvalues[0] / limit}
    return row


def measure_run(
    path: Path, measuring: Measuring | None = None, seed: int = 0, trust: Sequence[str] = ()
) -> dict[str, float]:
    """Measure the curvature of a run at a checkpoint: one number per name, see `numbers`. Raises BadInput."""
    measuring = measuring or Measuring()
    checkpoint = load_checkpoint(path, measuring, seed, trust)
    return numbers(checkpoint, measure(checkpoint, measuring, seed))


IN_A_STUDY = Measuring(samples=4096, eigenvalues=1, trace_draws=32, filter_draws=16, ascent_steps=3, batch_size=1024)
"""How a study measures its runs: at their end, over all training samples of a small data set."""


def sharpness_row(path: Path, trust: Sequence[str] = ()) -> dict[str, float]:
    """Return what `measure_run` finds at the end of a run of a study, under `sharpness/…`.

    It is measured once and kept as sharpness.json in the run directory, together with how it was measured; what was
    measured otherwise, or at another step, is measured anew. Raises BadInput where the run keeps no checkpoint.
    """
    run = read_run(path)
    how: dict[str, Any] = {**dataclasses.asdict(IN_A_STUDY), "step": run.last_step}
    file = path / SHARPNESS_FILE
    if (kept := _kept(file, how)) is not None:
        return kept
    row = {f"sharpness/{name}": value for name, value in measure_run(path, IN_A_STUDY, trust=trust).items()}
    write_atomically(file, json.dumps({"how": how, "row": plain_numbers(row)}, indent=1).encode())
    return row


def _kept(file: Path, how: dict[str, Any]) -> dict[str, float] | None:
    """Return what an earlier measurement of this kind has left; None where there is none, or its file is cut short."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: float(value) for name, value in content["row"].items()} if content["how"] == how else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
