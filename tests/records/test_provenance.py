"""Provenance of a run: git, versions, hashes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy

from optexp.records import provenance
from optexp.records.provenance import config_hash, environment


def git_state(folder: Path) -> dict[str, Any] | None:
    """Ask as another process does."""
    provenance._git_state.cache_clear()
    return provenance.git_state(folder)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    run = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def test_git_state_follows_the_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, "init")
    assert git_state(tmp_path) is None  # nothing committed
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "b").write_text("untracked")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a").write_text("2")
    found = git_state(tmp_path)
    assert found == {"commit": commit, "dirty": True}
    (tmp_path / "a").write_text("1")
    found.clear()
    again = provenance.git_state(tmp_path)
    assert again == {"commit": commit, "dirty": True}, "as it was when this process asked first"


def test_no_git_is_no_error(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


def test_environment_has_the_installed_versions() -> None:
    found = environment(threads=3)
    assert found["numpy"] == numpy.__version__
    assert found["threads"] == 3
    assert found["cpus"] >= 1
    assert "threads" not in environment()


def test_config_hash_depends_on_values_and_not_on_order() -> None:
    first = config_hash({"a": 1, "b": {"c": 2, "d": [1, 2]}})
    assert first == config_hash({"b": {"d": [1, 2], "c": 2}, "a": 1})
    assert first != config_hash({"a": 1, "b": {"c": 2, "d": [2, 1]}})
    assert len(first) == 12
