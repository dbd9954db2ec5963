"""From a checked configuration to the objects of one training, before anything is written.

Everything that a user can get wrong and that only data, model or machine can reveal is refused here with BadInput,
so that a run directory is made only for a run that can start.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from optexp import streams
from optexp.config import build
from optexp.config.check import total_steps
from optexp.config.schema import Engine
from optexp.datasets.base import Dataset
from optexp.datasets.batches import EvalBatches, TrainBatches, num_train_samples
from optexp.datasets.trivial import trivial_baseline
from optexp.engine import state
from optexp.engine.checkpoint import weights_of
from optexp.engine.graphs import SMALL_STEP
from optexp.engine.loop import Plan
from optexp.engine.objective import Objective
from optexp.engine.runtime import Precision, choose_device
from optexp.engine.single import SingleRun
from optexp.errors import BadInput, listed
from optexp.instruments.flops import counted_flops
from optexp.optimizers import collection, demands
from optexp.optimizers.build import build_optimizer
from optexp.optimizers.notes import optimizer_notes
from optexp.schedules import BoundSchedule, Plateau, Schedule

BY_NAME = f"{collection.by_name.__module__}.{collection.by_name.__name__}"
BESIDE: dict[str, list[str]] = {"dataset": ["batch_size"], "model": [], "schedule": []}
"""Keys of a group that are not meant for its target."""


@dataclass
class Training:
    """The objects of one run, ready to train."""

    config: dict[str, Any]
    choices: Mapping[str, str | None]
    engine: Engine
    device: torch.device
    precision: Precision
    dataset: Dataset
    batches: TrainBatches
    model: nn.Module
    optimizer: Optimizer
    base_lr: float
    schedule: BoundSchedule
    plan: Plan
    validation: EvalBatches
    model_facts: dict[str, int | None] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)  # reference values of val/loss
    data_facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def flops_per_step(self) -> float | None:
        """FLOPs of one training step, forward and backward (which takes twice as many); None when unknown."""
        flops = self.model_facts["flops_per_sample"]
        return 3 * flops * self.plan.samples_per_step if flops else None

    @cached_property
    def test(self) -> EvalBatches | None:
        """The test split, when the run is to be measured on it."""
        if not self.engine.evaluate_test:
            return None
        size = evaluation_batch(self.dataset, self.plan.samples_per_step)
        return EvalBatches(self.dataset, self.dataset.test, self.device, size)

    @property
    def captured(self) -> bool:
        """Whether to take whole steps as CUDA graphs: by default small ones, of models that are known to allow it."""
        if self.device.type != "cuda" or self.engine.cuda_graph is not None:
            return bool(self.engine.cuda_graph)
        known = type(self.model).__module__.split(".")[0] in ("optexp", "torchvision")
        return known and self.flops_per_step is not None and self.flops_per_step < SMALL_STEP

    @cached_property
    def program(self) -> SingleRun:
        """The program that trains this run alone. Raises BadInput where engine.cuda_graph=true cannot be."""
        program = SingleRun(
            self.model,
            self.optimizer,
            Objective(self.dataset.objective, self.engine.label_smoothing),
            self.batches,
            self.precision,
            seed=self.seed,
            clip_norm=self.engine.clip_norm,
            accumulate=self.engine.accumulate,
            compiled=self.engine.compile,
            captured=self.captured,
        )
        if self.engine.cuda_graph and program.why_not_captured:
            raise BadInput(f"engine.cuda_graph=true: {program.why_not_captured}; allowed are false and null")
        return program


def assemble(
    config: dict[str, Any], engine: Engine, choices: Mapping[str, str | None], resuming: bool = False
) -> Training:
    """Build data, model, optimizer, schedule and program of a run.

    `config` is a composed configuration that passed `config.check`; `choices` tells what was chosen of each group.
    `resuming` leaves out initial weights from elsewhere, which a checkpoint will replace.
    Raises BadInput for everything that keeps the run from starting.
    """
    device = choose_device(engine.device)
    precision = Precision(engine.precision, device)
    if engine.cuda_graph and device.type != "cuda":
        raise BadInput(f"engine.cuda_graph=true: engine.device is {device.type}; allowed here are false and null")
    targets = _targets(config, choices)
    dataset = _dataset(config, targets["dataset"])
    batch_size = _batch_size(config["dataset"]["batch_size"], dataset, engine)
    _check_reads(targets["model"], dataset, choices)
    model = _model(config, targets["model"], dataset)
    model_facts = _facts(model, dataset)
    notes = [] if resuming else _initial_weights(model, engine)
    _place(model, engine, dataset, device, precision)
    optimizer = _optimizer(config, targets["optimizer"], model, engine, dataset, device)
    batches = TrainBatches(dataset, batch_size, config["seed"], device)
    plan = Plan(
        total_steps=total_steps(engine, batches.steps_per_epoch),
        steps_per_epoch=batches.steps_per_epoch,
        samples_per_step=batch_size,
        log_every=engine.log_every,
        evaluation=engine.evaluation_interval,
        checkpoint=engine.checkpoint_interval,
        patience=engine.early_stopping_patience,
        probe_every=engine.probe_every,
    )
    validation = EvalBatches(dataset, dataset.val, device, evaluation_batch(dataset, batch_size))
    return Training(
        _with_absolute_paths(config),
        choices,
        engine,
        device,
        precision,
        dataset,
        batches,
        model,
        optimizer,
        float(optimizer.param_groups[0]["lr"]),
        _schedule(config, targets["schedule"], plan, dataset, engine),
        plan,
        validation,
        model_facts,
        trivial_baseline(dataset) | dataset.baselines,
        dataset.details | {"batch_size": batch_size, "inputs": _input_facts(validation)},
        [*notes, *optimizer_notes(optimizer, engine.clip_norm, plan.steps_per_epoch == 1)],
    )


def sibling(
    first: Training,
    config: dict[str, Any],
    engine: Engine,
    choices: Mapping[str, str | None],
    own_model: bool = True,
) -> Training:
    """Build a run that differs from `first` in numbers and seed only: data and checks are shared, and so is the model
    where its weights would be the same; or in any case, to see whether the rest can be built, without `own_model`.
    Raises BadInput as `assemble` does.
    """
    targets = _targets(config, choices)
    model, notes = first.model, first.notes[:1] if engine.init_from else []
    if own_model and any(config[key] != first.config[key] for key in ("seed", "model")):
        model = _model(config, targets["model"], first.dataset)
        notes = _initial_weights(model, engine)
        _place(model, engine, first.dataset, first.device, first.precision)
    optimizer = _optimizer(config, targets["optimizer"], model, engine, first.dataset, first.device)
    return dataclasses.replace(
        first,
        config=_with_absolute_paths(config),
        choices=choices,
        engine=engine,
        batches=first.batches.of_seed(config["seed"]),
        model=model,
        optimizer=optimizer,
        base_lr=float(optimizer.param_groups[0]["lr"]),
        schedule=_schedule(config, targets["schedule"], first.plan, first.dataset, engine),
        notes=[*notes, *optimizer_notes(optimizer, engine.clip_norm, first.plan.steps_per_epoch == 1)],
    )


def _targets(config: dict[str, Any], choices: Mapping[str, str | None]) -> dict[str, Callable[..., Any]]:
    """Return what is to be called for each group, after checking the arguments it will get."""
    origin = f"experiment={choices['experiment']}" if choices.get("experiment") else ""
    build.trust(config["trust"])
    targets = {
        group: build.locate(group, config[group].get("_target_"), config["trust"])
        for group in ("model", "dataset", "optimizer", "schedule")
    }
    if targets["optimizer"] is collection.by_name:
        targets["optimizer"] = collection.named(str(config["optimizer"].get("name")))
    _check_kinds(config, targets)
    supplied = {"optimizer": ["params"], "model": ["input_shape", "num_outputs", "context_length"]}
    for group, target in targets.items():
        given = _optimizer_arguments(config) if group == "optimizer" else build.arguments(config[group], BESIDE[group])
        build.check_arguments(group, target, given, supplied.get(group, []), origin)
    return targets


def _place(model: nn.Module, engine: Engine, dataset: Dataset, device: torch.device, precision: Precision) -> None:
    if engine.channels_last and dataset.kind == "images":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.to(device, precision.parameter_dtype)


def _optimizer(
    config: dict[str, Any],
    target: Callable[..., Any],
    model: nn.Module,
    engine: Engine,
    dataset: Dataset,
    device: torch.device,
) -> Optimizer:
    given, every = _optimizer_arguments(config), engine.decay_norm_and_bias
    optimizer = build_optimizer(target, given, model, every, dataset.num_outputs)
    demands.check(optimizer, engine.precision, engine.compile, device)
    return optimizer


def _optimizer_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the optimizer; the name of one that is chosen by name is none of them."""
    chosen = config["optimizer"].get("_target_") == BY_NAME
    return build.arguments(config["optimizer"], leave_out=["name"] if chosen else [])


def _schedule(
    config: dict[str, Any], target: Callable[..., Any], plan: Plan, dataset: Dataset, engine: Engine
) -> BoundSchedule:
    schedule: Schedule = build.call("schedule", target, **build.arguments(config["schedule"]))
    _check_combinations(schedule, dataset, engine)
    return schedule.bind(plan.total_steps, plan.steps_per_epoch)


def _with_absolute_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with the files it names as absolute paths: a run may be resumed from another folder."""
    changed = {group: dict(config[group]) for group in ("engine", "dataset")}
    for group, key in (("engine", "init_from"), ("dataset", "root"), ("dataset", "path")):
        if isinstance(changed[group].get(key), str):
            changed[group][key] = str(Path(changed[group][key]).expanduser().absolute())
    return {**config, **changed}


def evaluation_batch(dataset: Dataset, batch_size: int) -> int:
    """Return how many samples to evaluate at once: up to 1024 while inputs and outputs stay below 2^25 numbers."""
    numbers = math.prod(dataset.input_shape) + dataset.num_outputs
    if dataset.kind == "tokens":
        numbers = dataset.input_shape[0] * dataset.num_outputs
    return max(min(1024, 2**25 // numbers), min(batch_size, 1024))


def _check_combinations(schedule: Schedule, dataset: Dataset, engine: Engine) -> None:
    if engine.label_smoothing and dataset.objective == "regression":
        raise BadInput(
            f"engine.label_smoothing={engine.label_smoothing}: dataset '{dataset.name}' is a regression; allowed is 0"
        )
    if isinstance(schedule, Plateau) and schedule.mode == "max":
        raise BadInput("schedule.mode=max: the metric is val/loss, which is better when lower; allowed is min")


def _check_kinds(config: dict[str, Any], targets: dict[str, Callable[..., Any]]) -> None:
    if not (isinstance(targets["optimizer"], type) and issubclass(targets["optimizer"], Optimizer)):
        raise BadInput(f"optimizer._target_={config['optimizer']['_target_']}: is not a torch.optim.Optimizer")
    if not (isinstance(targets["schedule"], type) and issubclass(targets["schedule"], Schedule)):
        raise BadInput(f"schedule._target_={config['schedule']['_target_']}: is not an optexp.schedules.Schedule")
    for group, target in targets.items():
        own = str(config[group]["_target_"]).split(".")[0] in ("optexp", *config["trust"])
        is_model = group == "model" and isinstance(target, type) and issubclass(target, nn.Module)
        if group in ("model", "dataset") and not (own or is_model):
            raise BadInput(f"{group}._target_={config[group]['_target_']}: is not a {group}")


def _dataset(config: dict[str, Any], target: Callable[..., Any]) -> Dataset:
    node = config["dataset"]
    dataset = build.call("dataset", target, **build.arguments(node, leave_out=["batch_size"]))
    if not isinstance(dataset, Dataset):
        raise BadInput(f"dataset._target_={node['_target_']}: does not return an optexp.datasets.base.Dataset")
    return dataset


def _batch_size(wanted: int | str, dataset: Dataset, engine: Engine) -> int:
    available = num_train_samples(dataset)
    size = available if wanted == "full" else int(wanted)
    if size > available:
        raise BadInput(
            f"dataset.batch_size={size}: {dataset.name} has {available} training samples; "
            f"allowed are 1 to {available}, or full"
        )
    if engine.accumulate > size:
        raise BadInput(f"engine.accumulate={engine.accumulate}: a batch of {size} cannot be split into more parts")
    return size


def _check_reads(model: Callable[..., Any], dataset: Dataset, choices: Mapping[str, str | None]) -> None:
    reads = getattr(model, "reads", None)
    if reads is not None and dataset.kind not in reads:
        raise BadInput(
            f"model={choices.get('model')} and dataset={choices.get('dataset')}: the model reads {' or '.join(reads)}, "
            f"the data set has {dataset.kind}"
        )


def _model(config: dict[str, Any], target: Callable[..., Any], dataset: Dataset) -> nn.Module:
    """Build the model with its own stream of random numbers."""
    given = build.arguments(config["model"])
    shapes = {"input_shape": dataset.input_shape, "num_outputs": dataset.num_outputs}
    if dataset.kind == "tokens":
        shapes["context_length"] = dataset.input_shape[0]
    for name, value in shapes.items():
        if build.takes(target, name) and name not in given:
            given[name] = value
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.key(config["seed"], "init"))
        model = build.call("model", target, **given)
    if not isinstance(model, nn.Module):
        raise BadInput(f"model._target_={config['model']['_target_']}: does not make a torch.nn.Module")
    return model


def _facts(model: nn.Module, dataset: Dataset) -> dict[str, int | None]:
    """Count parameters, and the FLOPs of one sample's forward pass (training takes about three times as many).

    The pass also shows whether the model takes the data.
    """
    sample = next(iter(EvalBatches(dataset, dataset.val, "cpu", max_batch=1))).inputs
    with counted_flops() as counter:
        outputs = _forward(model, sample, dataset)
    if not isinstance(outputs, torch.Tensor) or outputs.shape[-1] != dataset.num_outputs:
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise BadInput(f"model: its output is {found}; {dataset.name} needs a last axis of {dataset.num_outputs}")
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "flops_per_sample": counter.get_total_flops() or None,
    }


def _input_facts(validation: EvalBatches) -> dict[str, float] | None:
    """Return mean, standard deviation and largest size of the numbers that the model reads; None for tokens.

    They are those of the first batch of the validation split: the same for every seed.
    """
    inputs = next(iter(validation)).inputs
    if not inputs.is_floating_point():
        return None
    return {"mean": inputs.mean().item(), "std": inputs.std().item(), "largest": inputs.abs().max().item()}


def _forward(model: nn.Module, sample: torch.Tensor, dataset: Dataset) -> Any:
    """Run one sample through the model in evaluation mode; raises BadInput when it does not fit."""
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return model(sample)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        shape = "×".join(map(str, sample.shape[1:]))
        raise BadInput(f"model: cannot take a sample of {dataset.name} ({shape}): {_first_line(error)}") from error
    finally:
        model.train()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _initial_weights(model: nn.Module, engine: Engine) -> list[str]:
    if engine.init_from is None:
        return []
    source, weights = weights_of(Path(engine.init_from))
    taken, left = state.load_matching(model, weights)
    if not taken:
        raise BadInput(f"engine.init_from={engine.init_from}: no tensor of it matches the model by name and shape")
    unused = len(weights) - len(taken)
    note = f"initial weights from {source}: {len(taken)} tensors taken, {unused} unused"
    return [note + (f", {len(left)} left as initialized ({listed(left[:6])}{', …' if len(left) > 6 else ''})")]
