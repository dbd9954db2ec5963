"""The folder `.hydra/` of a sweep's member that Hydra's own launchers have not run: what they would have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from optexp.config.compose import Composed
from optexp.errors import StorageError
from optexp.override_words import is_hydras, without_hydras

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times faster where libyaml is there


class HydraFiles:
    """Writes `.hydra/` for the members of one sweep, who have Hydra's settings in common."""

    def __init__(self, hydra: DictConfig, folder: Path) -> None:
        """`hydra` is Hydra's node as composed for the sweep, whose directory is `folder`."""
        node = OmegaConf.to_container(hydra, resolve=False, enum_to_str=True)
        assert isinstance(node, dict)
        self._node: dict[str, Any] = {str(key): value for key, value in node.items()}
        self._folder = folder

    def write(self, directory: str, number: int, composed: Composed) -> Path:
        """Create a member's directory and its `.hydra/`; returns the directory.

        Raises StorageError when that cannot be written, or when the sweep's own directory is gone: a new one in its
        place would hold half a sweep.
        """
        path = self._folder / directory
        try:
            self._write(path, directory, number, composed)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        return path

    def _write(self, path: Path, directory: str, number: int, composed: Composed) -> None:
        path.mkdir(exist_ok=True)
        (path / ".hydra").mkdir(exist_ok=True)
        own = [word for word in composed.overrides if is_hydras(word)]
        task = without_hydras(composed.overrides)
        node = {
            **self._node,
            "overrides": {"hydra": [*own, f"hydra.sweep.dir={self._folder}", "hydra.mode=MULTIRUN"], "task": task},
            "job": {**self._node["job"], "num": number, "id": str(number), "override_dirname": ",".join(task)},
            "runtime": {**self._node["runtime"], "choices": composed.choices, "output_dir": str(path)},
            "sweep": {"dir": str(self._folder), "subdir": directory},
        }
        for name, content in (("config", composed.config), ("overrides", task), ("hydra", {"hydra": node})):
            text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
            (path / ".hydra" / f"{name}.yaml").write_text(text, encoding="utf-8")
