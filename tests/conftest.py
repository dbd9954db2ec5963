"""Shared fixtures. Nothing here imports torch."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import end_started

from optexp.records.metrics_file import MetricsFile
from optexp.records.run_directory import RunRecord

# Before anything imports torch: threads that wait for each other make tests crawl on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts background jobs with Ctrl-C ignored, nohup its command with SIGHUP, and so would every process start
# that a test interrupts.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep decoded data sets, and what other libraries cache, out of the user's home."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Kill what a failed test has started and not ended."""
    yield
    end_started()


RunMaker = Callable[..., Path]


def recorded_config(
    lr: float = 0.1, target: str = "torch.optim.SGD", seed: int = 0, **arguments: Any
) -> dict[str, Any]:
    """Return a resolved config as a run records it."""
    return {
        "seed": seed,
        "name": None,
        "output_dir": "outputs",
        "model": {"_target_": "optexp.models.resnet.ResNet", "depth": 8},
        "dataset": {"_target_": "optexp.datasets.digits.digits", "batch_size": 64},
        "optimizer": {"_target_": target, "lr": lr, **arguments},
    }


@pytest.fixture
def make_run() -> RunMaker:
    """Return a maker of run directories without training: 10 training rows and 2 evaluations of known values.

    Row i (step 10 i) has train/loss 1/i and train/accuracy 1 - 1/i; val/loss is 1.5/i at i = 5 and 10. A run with
    status diverged has nan at its last step; one with status None is left unfinished.
    """

    def make(path: Path, status: str | None = "completed", **config: Any) -> Path:
        path.mkdir(parents=True)
        info = {"total_steps": 100, "choices": {"model": "resnet", "dataset": "digits"}, "device": "cpu"}
        record = RunRecord.create(path, recorded_config(**config), ["optexp", "optimizer=sgd"], info)
        file = MetricsFile(path / "metrics.jsonl")
        metrics: dict[str, float] = {}
        for i in range(1, 11):
            loss = math.nan if status == "diverged" and i == 10 else 1 / i
            row = {"step": 10 * i, "epoch": i / 5, "time": float(i), "train/loss": loss, "train/accuracy": 1 - 1 / i}
            file.log(row)
            metrics |= row
            if i in (5, 10) and math.isfinite(loss):
                evaluation = {"step": 10 * i, "epoch": i / 5, "time": i + 0.5, "val/loss": 1.5 / i}
                file.log(evaluation)
                metrics |= evaluation
        file.close({})
        if status is not None:
            tags = {tag: value for tag, value in metrics.items() if "/" in tag}
            best = {"metric": "val/loss", "value": 0.15, "step": 100}
            reason = "the loss of step 100 is not finite" if status == "diverged" else None
            record.finish(status, reason, last_step=100, wall_time=10.0, metrics=tags, best=best)
        return path

    return make
