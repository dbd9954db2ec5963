"""A Hydra app that does nothing: what Hydra's own start and its own sweep cost."""

from __future__ import annotations

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

ConfigStore.instance().store("config", {"x": 0})


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def main(cfg: DictConfig) -> None:
    """Do nothing."""


if __name__ == "__main__":
    main()
