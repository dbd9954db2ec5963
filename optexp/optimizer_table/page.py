"""From the run directories of a gallery to one page: the measured table, every audit, and the surfaces.

`python -m optexp.optimizer_table.page DIR PAGE`; scripts/gallery makes docs/optimizers.md with it, from real runs. Of
DIR it reads the run directories of the tasks optimizer_table, audit and surface, and, for audits that could not run,
what they said in DIR/audit/NAME.txt.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optexp.errors import BadInput
from optexp.optimizer_table.table import pipe_row, to_markdown
from optexp.records.numbers import duration, measured, setting
from optexp.records.reading import Run, find_runs
from optexp.records.run_directory import RESULT_FILE

PICTURES = Path("figures/optimizers")
"""Below the folder of the page."""


@dataclass(frozen=True)
class Source:
    """A run of the gallery and what it has found."""

    run: Run
    result: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The optimizer of an audit."""
        return str(self.run.choice("optimizer") or self.run.name)


def write_page(directory: Path, page: Path) -> None:
    """Write the page of the runs below `directory`, with their pictures beside it. Raises BadInput without a table."""
    tables, audits, surfaces = (_sources(directory, task) for task in ("optimizer_table", "audit", "surface"))
    if not tables:
        raise BadInput(f"{directory}: holds no finished run of task=optimizer_table")
    table = tables[-1]
    pictures = page.parent / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    parts = [_head(table, [table, *audits, *surfaces[-1:]]), _table(table, pictures)]
    if audits:
        parts.append(_audits(audits, _refused(directory)))
    if surfaces:
        parts.append(_surfaces(surfaces[-1], pictures))
    page.write_text("\n".join(parts), encoding="utf-8")


def _sources(directory: Path, task: str) -> list[Source]:
    """Return the finished runs of a task, in the order of their names."""
    runs = [run for run in find_runs(directory) if run.info.get("task") == task and run.status == "completed"]
    read = [Source(run, json.loads((run.path / RESULT_FILE).read_text(encoding="utf-8"))) for run in runs]
    return sorted(read, key=lambda source: source.run.name)


def _refused(directory: Path) -> dict[str, str]:
    """Return what audits said that could not run, by the name of the optimizer."""
    files = sorted((directory / "audit").glob("*.txt"))
    said = {file.stem: file.read_text(encoding="utf-8").strip().removeprefix("optexp: ") for file in files}
    return {name: text.splitlines()[-1] for name, text in said.items() if text}


def _head(table: Source, sources: Sequence[Source]) -> str:
    info, versions = table.run.info, table.run.info.get("environment") or {}
    git = info.get("optexp_git") or info.get("git") or {}
    commit = str(git.get("commit") or "unknown")[:12] + (" with changes" if git.get("dirty") else "")
    seconds = sum(float(source.run.info.get("wall_time") or 0.0) for source in sources)
    told = ", ".join(
        f"{name} {versions[key]}" for name, key in (("torch", "torch"), ("Python", "python")) if key in versions
    )
    return f"""# Optimizers

What guides print about optimizers from memory, measured; whether each entry of `conf/optimizer` does what its name
says; and how they move on surfaces that can be seen.

Made by `scripts/gallery` on {info["started"][:10]}, {duration(seconds)} in all; commit {commit}, {told},
{table.result["setting"]["device"]}.
"""


def _command(source: Source) -> str:
    """Return how to run it again, with quotes that people would write."""
    words = [
        word
        for word in shlex.split(source.run.info["command"])
        if not word.startswith(("hydra.run.dir=", "output_dir="))
    ]
    return " ".join(f'"{word}"' if "'" in word else shlex.quote(word) for word in words)


def _table(source: Source, pictures: Path) -> str:
    lines = ["## The table", "", f"`{_command(source)}`", "", to_markdown(source.result), ""]
    titles = {"optimizer_table": "The table as dots", "learning_rates": "Final metric over learning rates"}
    for name, title in titles.items():
        if (picture := source.run.path / "figures" / f"{name}.png").exists():
            shutil.copyfile(picture, pictures / picture.name)
            lines += [f"![{title}]({(PICTURES / picture.name).as_posix()})", ""]
    return "\n".join(lines)


def _audits(audits: Sequence[Source], refused: Mapping[str, str]) -> str:
    """Return a line for each audited entry, and below it what failed and what could not run."""
    lines = [
        "## Audits",
        "",
        "`optexp task=audit optimizer=NAME` compares an optimizer with its published rule in float64, and asks whether",
        "every argument acts, in its direction. Checks that do not apply to an optimizer are not counted.",
        "",
        pipe_row(["entry", "class", "passed", "failed", "compared with"]),
        pipe_row(["---", "---", "---:", "---:", "---"]),
    ]
    failures = []
    for source in sorted(audits, key=lambda source: source.name):
        result, counts = source.result, source.result["counts"]
        rule = (result.get("rule") or {}).get("source", "no published rule is known here")
        failed = f"**{counts['failed']}**" if counts["failed"] else "0"
        cells = [source.name, f"`{result['optimizer']}`", str(counts["passed"]), failed, rule]
        lines.append(pipe_row(cells))
        failures += [_failure(source.name, check) for check in result["checks"] if check["verdict"] == "fail"]
    lines.append("")
    if failures:
        lines += ["What failed:", "", *failures, ""]
    if refused:
        lines += ["What could not be audited here:", "", *(f"- {name}: {text}" for name, text in refused.items()), ""]
    return "\n".join(lines)


def _failure(name: str, check: Mapping[str, Any]) -> str:
    step = "" if check.get("step") is None else f" (first at step {check['step']})"
    known = f" Known upstream: {check['known']}." if check.get("known") else ""
    return f"- {name}, *{check['name']}*{step}: {check['explanation'].rstrip('.')}.{known}"


def _surfaces(source: Source, pictures: Path) -> str:
    """Return for each surface what it is, its main numbers and its pictures; pictures of all come first."""
    surfaces: Mapping[str, Any] = source.result["surfaces"]
    files = [file for kind in ("png", "gif") for file in sorted((source.run.path / "figures").glob(f"*.{kind}"))]
    for file in files:
        shutil.copyfile(file, pictures / file.name)
    own = {name: [file for file in files if file.stem.startswith(name)] for name in surfaces}
    of_all = [file for file in files if not any(file in some for some in own.values())]
    lines = ["## Surfaces", "", f"`{_command(source)}`", "", *_shown(of_all)]
    for name, surface in surfaces.items():
        lines += [f"### {name}", "", f"{surface['formula']}.", ""]
        lines += [pipe_row(["optimizer", "lr", "final loss", "steps to threshold"]), pipe_row(["---", *["---:"] * 3])]
        lines += [pipe_row(_walked(row)) for row in surface["optimizers"]]
        lines += ["", *_shown(own[name])]
    return "\n".join(lines)


def _walked(row: Mapping[str, Any]) -> list[str]:
    steps = row["steps_to_threshold"]
    arrived = "never" if steps is None else f"{steps:.0f} ({row['arrived']}/{len(row['arrivals'])} paths)"
    loss = "diverged" if row["final_loss"] is None else measured(row["final_loss"])
    return [row["optimizer"], setting(row["lr"]), loss, arrived]


def _shown(files: Sequence[Path]) -> list[str]:
    return [
        line
        for file in files
        for line in (f"![{file.stem.replace('_', ' ')}]({(PICTURES / file.name).as_posix()})", "")
    ]


if __name__ == "__main__":
    write_page(Path(sys.argv[1]), Path(sys.argv[2]))
