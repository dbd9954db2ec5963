"""Where a result comes from: code, versions, machine. Nothing here identifies the machine or its user."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("optexp", "torch", "torchvision", "hydra-core", "omegaconf", "numpy", "tensorboard", "pytorch-optimizer")


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Return `{"commit": <hash>, "dirty": <bool>}` of the repository around `folder` (default: the current one).

    None when there is no repository, no commit or no git. Files that git does not track do not make it dirty. A
    process asks git once: the code it runs is the code it has loaded, whatever is committed while it runs.
    """
    found = _git_state(Path(folder or os.curdir).resolve())
    return dict(found) if found else None


@cache
def _git_state(folder: Path) -> Mapping[str, Any] | None:
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # looking must not take the lock of the user's index
    try:
        answer = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def environment(**more: Any) -> dict[str, Any]:
    """Return Python, platform, processor, the number of usable CPUs and package versions (read without importing).

    `more` adds what only the caller knows, such as `threads=torch.get_num_threads()`.
    """
    return {
        "python": platform.python_version(),
        **_versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **more,
    }


@cache
def _versions() -> Mapping[str, str | None]:
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


@cache
def _processor() -> str:
    """Return the processor's model name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits of SHA-256 over the config, independent of the order of its keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
