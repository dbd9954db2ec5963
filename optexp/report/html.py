"""`report.html`: a run, a sweep or a study as one page that needs no network, no server and no other file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from optexp.errors import BadInput, StorageError
from optexp.records.files import write_atomically
from optexp.records.reading import check_folder, read_run
from optexp.records.run_directory import RUN_FILE
from optexp.report.figures.style import themed
from optexp.report.run_page import run_content
from optexp.report.study_page import STUDY_FILE, read_study, study_content
from optexp.report.sweep_directory import SWEEP_FILE, read_sweep
from optexp.report.sweep_page import sweep_content
from optexp.report.task_page import task_content

REPORT_FILE = "report.html"


def write(path: Path) -> Path:
    """Write the page of whatever a directory holds. Raises BadInput when that is no run, sweep or study."""
    check_folder(path)
    for name, write_page in ((STUDY_FILE, write_study), (SWEEP_FILE, write_sweep), (RUN_FILE, write_run)):
        if (path / name).exists():
            return write_page(path)
    raise BadInput(f"{path}: holds neither a run ({RUN_FILE}) nor a sweep ({SWEEP_FILE}) nor a study ({STUDY_FILE})")


def write_run(path: Path) -> Path:
    """Write the page of a run, or of another task, into its directory and return it. Raises BadInput, StorageError."""
    run = read_run(path)
    if run.info.get("task", "train") != "train":
        return _write(path, "task.html.jinja", task_content(run))
    return _write(path, "run.html.jinja", run_content(run))


def write_sweep(path: Path) -> Path:
    """Write the page of a sweep into its directory and return it. Raises BadInput and StorageError."""
    return _write(path, "sweep.html.jinja", sweep_content(read_sweep(path)))


def write_study(path: Path) -> Path:
    """Write the page of a study into its directory and return it. Raises BadInput and StorageError."""
    return _write(path, "study.html.jinja", study_content(path, read_study(path)))


def _write(path: Path, template: str, content: dict[str, Any]) -> Path:
    file = path / REPORT_FILE
    try:
        write_atomically(file, _render(template, content).encode("utf-8", errors="replace"))
    except OSError as error:
        raise StorageError(f"{file}: cannot be written ({error.strerror or error})") from error
    return file


def _render(template: str, content: dict[str, Any]) -> str:
    """Fill a template. Everything is escaped but the figures, the style and the script, which are ours."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template("sort.js.jinja").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template)
    return page.render(**content, script=script, script_hash=digest, colours=_colours())


def _colours() -> tuple[str, str]:
    """Return the CSS variables of the figures' colours, for light and for dark paper."""
    light = "".join(f"--{name}:{colour};" for colour, (name, _) in themed().items())
    dark = "".join(f"--{name}:{colour};" for _, (name, colour) in themed().items())
    return light.replace("--paper:#fefefe", "--paper:#ffffff"), dark
