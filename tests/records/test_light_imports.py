"""What reads runs answers at once: it imports none of the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "tensorflow", "rich", "matplotlib", "tensorboard", "numpy")


def imported(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "modules",
    [
        "optexp.records.run_directory, optexp.records.reading, optexp.records.provenance, optexp.records.console, "
        "optexp.records.metrics_file, optexp.records.sinks",
        "optexp.commands.runs, optexp.commands.compare, optexp.commands.export, optexp.report.figures",
    ],
)
def test_records_and_verbs_import_nothing_heavy(modules: str) -> None:
    assert imported(f"import {modules}") == set()


def test_event_files_are_written_without_torch_and_tensorflow() -> None:
    writes = "from optexp.records.tensorboard import TensorBoard\nimport pathlib, tempfile\n"
    writes += "sink = TensorBoard(pathlib.Path(tempfile.mkdtemp()), {'a': [1]}, '', '')\nsink.log({'step': 1, 'a': 1})"
    assert not imported(writes) & {"torch", "tensorflow", "rich", "matplotlib"}
