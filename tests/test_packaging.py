"""The wheel: what is in it, and that it works from an empty folder without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from environments import clean_environ, lend_packages

REPO = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Return what a command prints; its failure is the test's."""
    environ = clean_environ(**variables)
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def build_wheel(folder: Path, *options: str) -> Path:
    """Build from a copy, so that nothing is left in the checkout and nothing old in it gets into the wheel."""
    source = folder / "source"
    for name in ("optexp", "conf"):
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    run(sys.executable, "-m", "build", "--wheel", *options, "--outdir", folder, source, cwd=folder)
    (wheel,) = folder.glob("optexp-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"), "--no-isolation")


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content as pip installs it, to be put before the environment's own packages."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-index"]
    run(*pip, "--target", folder, wheel, cwd=folder)
    return folder


def test_the_wheel_holds_the_code_and_the_config_groups(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {path.relative_to(REPO).as_posix() for path in (REPO / "optexp").rglob("*.py")}
    configs = {f"optexp/{path.relative_to(REPO).as_posix()}" for path in (REPO / "conf").rglob("*.yaml")}
    assert {"optexp/conf/config.yaml", "optexp/conf/optimizer/sgd.yaml", "optexp/conf/study/which_fix.yaml"} <= configs
    templates = {path.relative_to(REPO).as_posix() for path in (REPO / "optexp").rglob("*.jinja")}
    assert "optexp/report/templates/run.html.jinja" in templates
    others = configs | templates | {"optexp/conf/__init__.py", "optexp/diagnosis/calibration.json"}
    assert {name for name in names if ".dist-info/" not in name} == code | others
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_wheel_works_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    where = run(sys.executable, "-c", "import optexp; print(optexp.__file__)", cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()) == site / "optexp" / "__init__.py", "not the checkout"

    page = run(sys.executable, "-m", "optexp", "--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert "adamw" in page
    config = run(site / "bin" / "optexp", "--cfg", "job", "optimizer=sgd", cwd=tmp_path, PYTHONPATH=str(site))
    assert "dampening: 0" in config
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # pip fetches the build tools: needs a network
def test_a_new_environment_trains_with_the_wheel(tmp_path: Path) -> None:
    python = lend_packages(tmp_path / "environment")
    wheel = build_wheel(tmp_path)
    run(python, "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    run(python.with_name("optexp"), "engine.max_steps=2", "engine.device=cpu", cwd=empty, OMP_NUM_THREADS="1")
    (record,) = empty.glob("outputs/runs/*/*/run.json")
    assert '"completed"' in record.read_text()
