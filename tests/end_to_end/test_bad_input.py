"""A user's mistake costs one line on stderr and exit status 2; it makes no folder and, if it can, imports no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input import WITH_TORCH, WITHOUT_TORCH, write_files
from command_line import Ended, environ, everything_in, here

# One process runs all lines of the table: starting one for each would take minutes.
RUN_ALL = """
import contextlib, io, json, os, shlex, sys
from pathlib import Path
from optexp.cli import main

outcomes = {}
before = sorted(map(str, Path().rglob("*")))
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(shlex.split(line))
    made = sorted(set(map(str, Path().rglob("*"))) - set(before))
    outcomes[line] = [int(status), out.getvalue(), err.getvalue(), made, "torch" in sys.modules]
    if made or "torch" in sys.modules:
        break  # what follows would be blamed for it
json.dump(outcomes, sys.stdout)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("bad-input")
    write_files(folder)
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(list(WITHOUT_TORCH)),
        cwd=folder,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, list[Any]] = json.loads(done.stdout)
    return result


def assert_one_line(ended: Ended, message: str) -> None:
    assert ended.status == 2, ended.err or ended.out
    assert message in ended.err
    assert ended.err.startswith("optexp: ")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("\n")
    assert ended.out == ""


@pytest.mark.parametrize("line", WITHOUT_TORCH)
def test_it_is_refused_before_torch_is_imported(outcomes: dict[str, list[Any]], line: str) -> None:
    assert line in outcomes, "the table was not finished: an earlier line imported torch or made a file"
    status, out, err, made, torch_was_imported = outcomes[line]
    assert_one_line(Ended(status, out, err), WITHOUT_TORCH[line])
    assert made == []
    assert not torch_was_imported


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad-input-with-torch")
    write_files(folder)
    return folder


@pytest.mark.parametrize("line", WITH_TORCH)
def test_it_is_refused_before_anything_is_made(folder: Path, line: str) -> None:
    before = everything_in(folder)
    assert_one_line(here(folder, *line.split()), WITH_TORCH[line])
    assert everything_in(folder) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(folder: Path) -> None:
    before = everything_in(folder)
    assert_one_line(here(folder, "engine.device=cuda"), "engine.device=cuda: no CUDA device is available here")
    assert everything_in(folder) == before
