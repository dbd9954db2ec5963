"""scripts/run and scripts/test on a copy of the repository, with an environment that costs nothing to install.

The copy's environment sees the packages of the one the tests run in, so pip has only optexp itself to install and
needs no network. What the scripts say and do when something is missing is tested with programs and hosts that fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from environments import clean_environ, lend_packages

REPO = Path(__file__).parents[1]
PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.10", "python3", "python")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_of_repository(tmp_path / "my projects" / "optexp")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which `scripts/run` was started, twice at once."""
    copy = copy_of_repository(tmp_path_factory.mktemp("my projects") / "optexp")
    lend_packages(copy / ".venv", "--without-pip")
    command, environ = [copy / "scripts" / "run", "--help"], without_index()
    starts = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted(start.communicate(timeout=120)[1] for start in starts)
    assert [start.returncode for start in starts] == [0, 0], said
    assert said[0] == f"optexp: installing into {copy}/.venv (about 5 GB, a few minutes) ... done\n"
    assert said[1] in ("", f"optexp: waiting for another installation into {copy}/.venv ...\n")
    return copy


def copy_of_repository(copy: Path) -> Path:
    """Copy what the scripts need; the folder has a space in its name."""
    copy.mkdir(parents=True)
    for name in ("scripts", "optexp", "conf"):
        shutil.copytree(REPO / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(REPO / name, copy)
    (copy / "tests").mkdir()
    (copy / "tests" / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    return copy


def without_index(**variables: str) -> dict[str, str]:
    """Return an environment in which pip has no index to ask; the copy's environment needs none."""
    ours = {name: value for name, value in clean_environ().items() if not name.startswith("PIP_")}
    return ours | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"} | variables


def call(script: Path, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *arguments], cwd=cwd, env=without_index(**variables), capture_output=True, text=True, timeout=120
    )


def fake_pythons(folder: Path, program: str) -> str:
    """Return a PATH on which every name of Python runs the shell program."""
    folder.mkdir()
    for name in PYTHONS:
        (folder / name).write_text(f"#!/bin/sh\n{program}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("script", ["run", "test"])
@pytest.mark.parametrize(
    ("program", "found"),
    [("echo 3.9.2", "python3.13 3.9.2"), ("echo 3.14.0", "python3.13 3.14.0"), ("exit 127", "none")],
    ids=["too old", "too new", "pyenv shims without a version"],
)
def test_without_a_fitting_python(checkout: Path, tmp_path: Path, script: str, program: str, found: str) -> None:
    done = call(checkout / "scripts" / script, PATH=fake_pythons(tmp_path / "bin", program))
    assert done.returncode == 1
    assert done.stderr == f"optexp: needs Python 3.10, 3.11, 3.12 or 3.13 on PATH; found {found}\n"
    assert done.stdout == ""
    assert not (checkout / ".venv").exists()


def test_without_a_network(checkout: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").touch()
    (environment / "bin" / "python").symlink_to("/nowhere/python3")  # left over from a Python that was removed
    variables = {
        "OPTEXP_VENV": str(environment),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
        "PIP_NO_INDEX": "0",
        "PIP_NO_BUILD_ISOLATION": "1",
    }
    done = call(checkout / "scripts" / "run", **variables)
    assert done.returncode == 1
    progress, error = done.stderr.splitlines()
    assert progress == f"optexp: installing into {environment} (about 5 GB, a few minutes) ... failed"
    assert error == (
        "optexp: no connection to the package index (network, proxy or pip configuration); "
        f"the full log is {environment}/install.log"
    )
    assert "127.0.0.1" in (environment / "install.log").read_text()
    assert not (environment / "optexp-installed").exists(), "the next start must try again"


def test_what_pip_says_is_passed_on(checkout: Path) -> None:
    lend_packages(checkout / ".venv", "--without-pip")
    (checkout / "constraints.txt").write_text("hydra-core==0.0.1\n")
    done = call(checkout / "scripts" / "run")
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("optexp: ERROR: Cannot install optexp")
    assert "hydra-core" in (checkout / ".venv" / "install.log").read_text()


def test_an_environment_that_cannot_be_made(checkout: Path) -> None:
    done = call(checkout / "scripts" / "run", OPTEXP_VENV="/dev/null/environment")
    assert done.returncode == 1
    assert done.stderr == "optexp: cannot create the folder /dev/null/environment\n"


def test_a_folder_of_other_things_is_not_emptied(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    done = call(checkout / "scripts" / "run", OPTEXP_VENV=str(tmp_path / "thesis"))
    assert done.returncode == 1
    assert done.stderr == f"optexp: {tmp_path}/thesis has files and is not a virtual environment\n"
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_the_next_start_is_fast_and_from_anywhere(installed: Path, tmp_path: Path) -> None:
    link = tmp_path / "optexp"
    link.symlink_to(installed / "scripts" / "run")
    start = time.perf_counter()
    done = call(link, "--help", cwd=tmp_path)
    assert time.perf_counter() - start < 2
    assert done.returncode == 0
    assert done.stderr == ""
    assert "optimizer" in done.stdout
    assert list(tmp_path.iterdir()) == [link]

    done = call(link, "optimizer.learningrate=3", cwd=tmp_path)
    assert done.returncode == 2, "the status is that of optexp"
    assert "optimizer.learningrate=3" in done.stderr, "arguments arrive as they were given"


def test_the_tests_need_more_and_run_in_the_repository(installed: Path, tmp_path: Path) -> None:
    done = call(installed / "scripts" / "test", "-k", "nothing", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"optexp: updating {installed}/.venv ... done\n"
    assert "1 passed" in done.stdout
    assert call(installed / "scripts" / "run", "--help").stderr == "", "that is more than scripts/run needs"


def test_a_changed_project_is_installed_again(installed: Path) -> None:
    with (installed / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    assert call(installed / "scripts" / "run", "--help").stderr == f"optexp: updating {installed}/.venv ... done\n"
    assert call(installed / "scripts" / "run", "--help").stderr == ""
