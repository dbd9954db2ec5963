"""The same training as a user of Lightning writes it: automatic optimization, its logger, its clipping, a DataLoader.

Progress bar, model summary, checkpoints and validation are off. Lightning is optional: `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.bare import Problem, cosine, cross_entropy, data_loader, fresh, parameter_groups

NAME = "Lightning"
MISSING = "Lightning is left out: it is not installed (pip install -e '.[bench]')"
LOG_EVERY = 10  # as optexp


def is_installed() -> bool:
    """Return whether the contestant can take part."""
    return find_spec("lightning") is not None


def fit(problem: Problem, steps: int, folder: Path, rows: Iterable[Tensor] | None = None) -> tuple[list[float], Any]:
    """Take `steps` steps, on batches of the given rows or in random order.

    Returns the times at which steps ended (seconds, time.perf_counter) and the steps' losses (tensors).
    """
    import lightning
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import TensorBoardLogger

    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = fresh(problem.model)

        def training_step(self, batch: Any, index: int) -> Tensor:
            inputs, targets = batch
            loss = cross_entropy(self.model(inputs), targets)
            self.log("train/loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = problem.optimizer(parameter_groups(self.model), **problem.arguments)
            schedule = LambdaLR(optimizer, lambda step: cosine(step, problem.total_steps))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Watch(Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.losses: list[Tensor] = []

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.seconds.append(time.perf_counter())
            self.losses.append(outputs["loss"])

    watch = Watch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about workers and logging intervals
        trainer = lightning.Trainer(
            accelerator="gpu" if problem.inputs.is_cuda else "cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            gradient_clip_val=problem.clip_norm,
            logger=TensorBoardLogger(str(folder)),
            log_every_n_steps=LOG_EVERY,
            callbacks=[watch],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(Module(), data_loader(problem, rows))
    return watch.seconds, watch.losses
