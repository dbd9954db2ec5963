"""A sweep as most people run it today: a Hydra app around a bare loop, with TensorBoard and torch.save at the end.

python -m benchmarks.programs.hydra_sweep -m model=mlp batch_size=32 steps=440 lr=1e-3,3e-3 seed=0,1
"""

from __future__ import annotations

from pathlib import Path

import hydra
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch.utils.tensorboard import SummaryWriter

from benchmarks.bare import Loop
from benchmarks.programs.problems import problem

LOG_EVERY = 10

ConfigStore.instance().store(
    "config", {"model": "mlp", "lr": 1e-3, "weight_decay": 0.0, "seed": 0, "batch_size": 32, "steps": 440}
)


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(cfg: DictConfig) -> float:
    torch.set_num_threads(1)  # for steps this small; more of them make each step slower beside other work
    folder = Path(HydraConfig.get().runtime.output_dir)
    loop = Loop(problem(cfg.model, cfg.lr, cfg.weight_decay, cfg.seed, cfg.batch_size, cfg.steps))
    batches = loop.batches()
    with SummaryWriter(str(folder)) as writer:
        for start in range(0, cfg.steps, LOG_EVERY):
            stop = min(start + LOG_EVERY, cfg.steps)
            losses = loop.train(batches, start, stop)
            writer.add_scalar("train/loss", losses[-1].item(), stop)
        val_loss, accuracy = loop.evaluate()
        writer.add_scalar("val/loss", val_loss, cfg.steps)
        writer.add_scalar("val/accuracy", accuracy, cfg.steps)
    torch.save({"model": loop.model.state_dict(), "optimizer": loop.optimizer.state_dict()}, folder / "last.pt")
    return val_loss


if __name__ == "__main__":
    main()
