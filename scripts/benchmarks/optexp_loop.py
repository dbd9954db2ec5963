"""optexp's own engine as a contestant, and the same training as a problem for the others."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.bare import Problem, fresh, windows
from optexp.assemble import Training, sibling
from optexp.config import build
from optexp.config.compose import Composer
from optexp.datasets.base import Dataset, Split
from optexp.engine.checkpoint import Checkpoints
from optexp.engine.loop import Member, train
from optexp.engine.runtime import Interruption
from optexp.fuse import fuse
from optexp.records.console import Console
from optexp.records.metrics_file import MetricsFile
from optexp.records.run_directory import config_text
from optexp.records.sinks import Row, Sink
from optexp.records.tensorboard import TensorBoard
from optexp.tasks import check_composed
from optexp.tasks.train import Train

LOG_EVERY = 10  # optexp's default
NEVER = "1000000"  # an interval longer than any run here
OWN_CONFIGS = str(Path(__file__).parent / "conf")  # data sets made for benchmarks


class Source:
    """Makes the training of a case anew for every repeat: the same data and the same initial weights each time."""

    def __init__(self, words: Sequence[str]) -> None:
        """`words` are overrides of optexp's defaults."""
        self._composed = Composer(OWN_CONFIGS).compose([*words, "trust=[benchmarks]"])

    def training(self) -> Training:
        """Return the training as `optexp` assembles it."""
        return Train(self._composed, check_composed(self._composed)).training

    def group(self, members: int) -> list[Training]:
        """Return `members` trainings that differ in their seeds."""
        first, composed = self.training(), self._composed
        others = [{**composed.config, "seed": seed} for seed in range(1, members)]
        return [first, *(sibling(first, config, first.engine, composed.choices) for config in others)]

    def problem(self) -> Problem:
        """Return the same training as the other contestants need it."""
        training = self.training()
        data, config = training.dataset, training.config
        inputs, targets = _pairs(data, data.train, training.device)
        val_inputs, val_targets = _pairs(data, data.val, training.device)
        stride = data.input_shape[0] if data.kind == "tokens" else 1
        return Problem(
            model=fresh(training.model),
            inputs=inputs,
            targets=targets,
            val_inputs=val_inputs[::stride],
            val_targets=val_targets[::stride],
            optimizer=build.locate("optimizer", config["optimizer"]["_target_"], ()),
            arguments={key: value for key, value in build.arguments(config["optimizer"]).items() if value is not None},
            batch_size=training.plan.samples_per_step,
            clip_norm=training.engine.clip_norm,
            total_steps=training.plan.total_steps,
            stride=stride,
        )


def _pairs(data: Dataset, split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of all samples on the device, images normalized (see Problem)."""
    if data.kind == "tokens":
        return windows(split.inputs.to(device), data.input_shape[0])
    assert split.targets is not None
    inputs = split.inputs.to(device)
    if inputs.dtype == torch.uint8:
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (data.mean, data.std))
        inputs = (inputs.float() / 255 - mean) / std
    return inputs, split.targets.to(device)


def rows_of(training: Training, steps: int) -> list[Tensor]:
    """Return the rows of a Problem that optexp's first batches consist of."""
    # For tokens, `sample_ids` counts windows and leaves out their shift.
    return [training.batches._positions(step) for step in range(steps)]


class Observer:
    """A sink behind all others: when a step was logged (seconds), and with which loss.

    `whole` is how long the training took (seconds), until everything of it was written.
    """

    def __init__(self) -> None:
        self.whole = 0.0
        self.seconds: dict[int, float] = {}
        self.losses: list[float] = []

    def log(self, row: Row) -> None:
        self.seconds[int(row["step"])] = time.perf_counter()
        self.losses.append(row["train/loss"])

    def flush(self) -> None:
        """Nothing waits."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """There is nothing to close."""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder for what a run writes, and let what it prints go nowhere."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        yield Path(folder)


def run_engine(*trainings: Training, sinks: bool = True, checkpoints: bool = False) -> Observer:
    """Train one run, or several as one program; return what was observed of the first.

    Each has the sinks of a default run (metrics.jsonl and TensorBoard; a single one the console, too), or none.
    """
    first, observer = trainings[0], Observer()
    program = first.program if len(trainings) == 1 else fuse(trainings)
    with scratch() as folder:
        members = []
        for number, training in enumerate(trainings):
            own = folder / str(number)
            own.mkdir()
            saved = Checkpoints(own / "checkpoints") if checkpoints else None
            members.append(Member(training.schedule, training.base_lr, _sinks(training, own) if sinks else [], saved))
        if sinks and len(trainings) == 1:
            members[0].sinks = [*members[0].sinks, Console(first.plan.total_steps, "bench")]
        used = [sink for member in members for sink in member.sinks]
        members[0].sinks = [*members[0].sinks, observer]
        start = time.perf_counter()
        train(program, members, first.plan, first.validation, Interruption())
        for sink in used:
            sink.close({"status": "completed", "reason": None})
        for member in members:
            if member.checkpoints is not None:
                member.checkpoints.wait()
        observer.whole = time.perf_counter() - start
    return observer


def _sinks(training: Training, folder: Path) -> list[Sink]:
    events = TensorBoard(folder / "tensorboard", {"seed": 0}, config_text(training.config), "optexp")
    return [MetricsFile(folder / "metrics.jsonl"), events]
