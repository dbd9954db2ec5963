"""Seconds per step, and per whole run, of optexp's engine and of bare loops that compute the same."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.bare import Loop, Problem
from benchmarks.contest import Contest, Contestant
from optexp.assemble import Training
from optexp.config import build
from optexp.config.compose import Composer
from optexp.engine.loop import Member, train
from optexp.engine.runtime import Interruption
from optexp.records.console import Console
from optexp.records.metrics_file import MetricsFile
from optexp.records.run_directory import config_text
from optexp.records.sinks import Row, Sink
from optexp.records.tensorboard import TensorBoard
from optexp.run import execute
from optexp.tasks import check_composed
from optexp.tasks.train import Train

LOG_EVERY = 10  # optexp's default
WARM_UP = 10  # steps before the clock starts
CHECKED = 20  # steps whose losses must agree
TOLERANCE = 1e-4  # relative; float32 rounding differs between memory layouts and between kernels


@dataclass(frozen=True)
class Case:
    """What is trained (overrides of optexp's defaults), and for how many steps the clock runs."""

    name: str
    words: tuple[str, ...]
    steps: int


CASES = (
    Case("MLP, AdamW, clip 1.0", ("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0"), 300),
    Case("MLP, SGD", ("model=mlp", "optimizer=sgd"), 300),
    Case("ResNet-8, SGD", ("model=resnet", "optimizer=sgd"), 80),
)
BARE: Mapping[str, Mapping[str, bool]] = {
    "bare, .item() each step": {"read_loss": True},
    "bare": {},
    "bare, tuned": {"tuned": True},
}


class _Source:
    """Makes the training of a case anew for every repeat: the same data and the same initial weights each time."""

    def __init__(self, words: Sequence[str]) -> None:
        self._composed = Composer().compose(words)

    def training(self) -> Training:
        return Train(self._composed, check_composed(self._composed)).training

    def problem(self) -> Problem:
        """Return the same training as a bare loop needs it."""
        training = self.training()
        data, config = training.dataset, training.config
        assert data.train.targets is not None
        assert data.val.targets is not None
        chosen = {key: value for key, value in build.arguments(config["optimizer"]).items() if value is not None}
        return Problem(
            model=training.model,
            inputs=data.train.inputs.to(training.device),
            targets=data.train.targets.to(training.device),
            val_inputs=data.val.inputs.to(training.device),
            val_targets=data.val.targets.to(training.device),
            optimizer=type(training.optimizer),
            arguments=chosen,
            batch_size=training.plan.samples_per_step,
            clip_norm=training.engine.clip_norm,
            total_steps=training.plan.total_steps,
        )


class _Observer:
    """A sink behind all others: when a step was logged (seconds), and with which loss."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self.losses: list[float] = []

    def log(self, row: Row) -> None:
        self.seconds[int(row["step"])] = time.perf_counter()
        self.losses.append(row["train/loss"])


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder for what a run writes, and let what it prints go nowhere."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        yield Path(folder)


def _run_engine(training: Training) -> _Observer:
    """Train with the sinks of a default run: metrics.jsonl, TensorBoard and the console."""
    observer = _Observer()
    with _scratch() as folder:
        events = TensorBoard(folder / "tensorboard", {"seed": 0}, config_text(training.config), "optexp")
        sinks: list[Sink] = [MetricsFile(folder / "metrics.jsonl"), events, Console(training.plan.total_steps, "bench")]
        member = Member(training.schedule, training.base_lr, [*sinks, observer], checkpoints=None)
        train(training.program, [member], training.plan, training.validation, Interruption())
        for sink in sinks:
            sink.close({"status": "completed", "reason": None})
    return observer


def step_contest(case: Case, steps: int | None = None) -> Contest:
    """Milliseconds per step, with optexp's default logging, without evaluations and checkpoints."""
    steps = steps or case.steps
    # The clock stops one logging interval before the end, because the last row waits for the last evaluation.
    total = WARM_UP + steps + LOG_EVERY
    steps_only = ("engine.eval_every=1000000", "engine.checkpoint_every=null")
    source = _Source([*case.words, *steps_only, f"engine.log_every={LOG_EVERY}", f"engine.max_steps={total}"])

    def engine() -> float:
        seconds = _run_engine(source.training()).seconds
        return 1000 * (seconds[WARM_UP + steps] - seconds[WARM_UP]) / steps

    def bare(options: Mapping[str, bool]) -> float:
        loop = Loop(source.problem(), **options)
        rows = loop.shuffled()
        loop.train(rows, 0, WARM_UP)
        start = time.perf_counter()
        loop.train(rows, WARM_UP, WARM_UP + steps)
        return 1000 * (time.perf_counter() - start) / steps

    contestants = [Contestant("optexp", engine)]
    contestants += [Contestant(name, partial(bare, options)) for name, options in BARE.items()]
    return Contest(case.name, "ms/step", contestants, counts="bare", goal=1.0, check=partial(largest_difference, case))


def run_contest(case: Case) -> Contest:
    """Seconds of a whole default run: evaluation and checkpoints after every epoch, and everything that is recorded."""
    source = _Source(case.words)

    def engine() -> float:
        training = source.training()
        with _scratch() as folder:
            start = time.perf_counter()
            result = execute(training, folder, ["optexp", *case.words])
            seconds = time.perf_counter() - start
        if result.status != "completed":  # a Ctrl-C during a run interrupts the run, as it should
            raise SystemExit(result.exit_status)
        return seconds

    def bare(options: Mapping[str, bool]) -> float:
        loop = Loop(source.problem(), **options)
        with _scratch() as folder:
            start = time.perf_counter()
            loop.train_and_save(folder)
            return time.perf_counter() - start

    contestants = [Contestant("optexp", engine)]
    contestants += [Contestant(name, partial(bare, options)) for name, options in BARE.items()]
    return Contest(f"{case.name}, whole run", "s", contestants, counts="bare", goal=None)


def largest_difference(case: Case) -> float:
    """Return the largest relative difference between optexp's and a bare loop's losses over the first steps.

    All start from the same weights and see the same batches. Raises AssertionError when it is above TOLERANCE.
    """
    source = _Source([*case.words, "engine.log_every=1", f"engine.max_steps={CHECKED}", "engine.eval_every=1000000"])
    training = source.training()
    ours = torch.tensor(_run_engine(training).losses, dtype=torch.float64)
    largest = 0.0
    for name, options in BARE.items():
        rows = (training.program.batches.sample_ids(step) for step in range(CHECKED))
        losses = Loop(source.problem(), **options).train(rows, 0, CHECKED)
        theirs = torch.tensor([float(loss) for loss in losses], dtype=torch.float64)
        difference = ((ours - theirs).abs() / theirs.abs()).max().item()
        if not difference <= TOLERANCE:
            raise AssertionError(f"{case.name}: the losses of optexp and '{name}' differ by {difference:.1e}")
        largest = max(largest, difference)
    return largest
