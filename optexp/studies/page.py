"""From the directories of studies to one page with every claim and its answer.

`python -m optexp.studies.page DIR PAGE`; scripts/studies makes docs/studies.md with it, from a real run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optexp.errors import BadInput
from optexp.records.numbers import duration, measured
from optexp.records.run_directory import STUDIES_FILE, STUDY_FILE
from optexp.report.figures.effects import effects_figure
from optexp.report.figures.style import save_png

OPEN = {
    "C26": "waits for distributed training",
}
"""Claims without a study, and why."""


def write_page(directory: Path, page: Path) -> None:
    """Write the page of the studies in `directory` (of one `study=…` request), with a picture of each beside it."""
    studies = _read(directory)
    figures = page.parent / "figures" / "studies"
    figures.mkdir(parents=True, exist_ok=True)
    parts = [_head(studies), _table(studies)]
    for study in studies:
        picture = figures / f"{study['study']}.png"
        save_png(effects_figure(list(study["answers"].values())), picture)
        parts.append(_section(study, picture.relative_to(page.parent)))
    parts.append(_open(studies, _unfinished(directory)))
    page.write_text("\n".join(parts), encoding="utf-8")


def _read(directory: Path) -> list[dict[str, Any]]:
    """Return the studies that came to their end, in the order of their claims. Raises BadInput when there is none."""
    studies = [study for study in _all(directory) if study["status"] == "completed"]
    if not studies:
        raise BadInput(f"{directory}: no study has come to its end yet; optexp resume goes on")
    return sorted(studies, key=lambda study: (int(study["claim"][0].removeprefix("C")), study["study"]))


def _unfinished(directory: Path) -> list[str]:
    return [f"{study['study']}: {study['status']}" for study in _all(directory) if study["status"] != "completed"]


def _all(directory: Path) -> list[dict[str, Any]]:
    if not (directory / STUDIES_FILE).exists():
        raise BadInput(f"{directory}: is not the directory of several studies (it holds no {STUDIES_FILE})")
    names = json.loads((directory / STUDIES_FILE).read_text(encoding="utf-8"))["studies"]
    return [json.loads((directory / name / STUDY_FILE).read_text(encoding="utf-8")) for name in names]


def _head(studies: Sequence[Mapping[str, Any]]) -> str:
    first, versions = studies[0], studies[0]["versions"]
    seconds = sum(study["seconds"] for study in studies)
    commit = (first["git"] or {}).get("commit", "unknown")[:12]
    command = " ".join(word for word in first["command"] if not word.startswith("output_dir="))
    dirty = " with changes" if (first["git"] or {}).get("dirty") else ""
    return f"""# Studies

Every claim of the source documents, as a question with a rule that was fixed before anything was trained, and the
answer that came out. *Supported*: the whole interval of the effect lies beyond the smallest effect that matters.
*Refuted*: it lies wholly on the other side. *Inconclusive*: it lies across. Intervals are paired by seed; all answers
of a study share an error rate of 5 %. The files are in `conf/study`, and say where one was changed after a first run.

Made by `scripts/studies` from `{command}`, {first["date"][:10]}, {duration(seconds)} in all; commit
{commit}{dirty}, torch {versions.get("torch")}, Python {versions.get("python")}, {versions.get("cpus")} CPU cores.

The evidence is small: handwritten digits, the text of Python's documentation, networks that train in a second. Words on
the command line go to every arm (`dataset=cifar10`, `model.width=64`), as far as they leave alone what is compared, so
that most of the questions can be asked of larger ones.
"""


def _table(studies: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| claim | study | answer | statement | effect | interval |", "|---|---|---|---|---|---|"]
    for study in studies:
        for answer in study["answers"].values():
            name = f"[{study['study']}](#{study['study']})"
            effect, bounds = _effect(answer)
            cells = [" ".join(study["claim"]), name, f"**{answer['verdict']}**", answer["statement"], effect, bounds]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _effect(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Return the estimate and the interval of an answer in words."""
    interval = answer["interval"]
    if interval is None:
        return "", ""
    estimate = f"{measured(interval['estimate'])} {answer['unit']}"
    if interval["method"] == "exact":
        return estimate, "exact"
    return estimate, f"{measured(interval['low'])} to {measured(interval['high'])}"


def _section(study: Mapping[str, Any], picture: Path) -> str:
    source = f"({', '.join(study['claim'])}, source {study['source']})"
    lines = [f"## {study['study']}", "", f"**{study['question']}** {source}", ""]
    for answer in study["answers"].values():
        effect, bounds = _effect(answer)
        rule = f"supported if {answer['supported_if']} {measured(answer['smallest'])}"
        numbers = f" Effect {effect} ({bounds}); {rule}." if effect else f" {rule[0].upper()}{rule[1:]}."
        lines.append(f"- *{answer['statement']}*: **{answer['verdict']}**. {answer['text']}{numbers}")
    lines += ["", *_ranked(study.get("effects") or {})]
    lines += [f"![Effects of {study['study']} with their intervals]({picture.as_posix()})", ""]
    chosen = "; ".join(f"{arm}: {' '.join(words)}" for arm, words in study["chosen"].items() if words)
    if chosen:
        lines += [f"Tuned, each arm alike: {chosen}.", ""]
    if study.get("edges"):
        lines += [f"On the edge of the grid, so that a better value may lie beyond: {'; '.join(study['edges'])}.", ""]
    runs = [
        f"{sum(counts.values())} runs ({stage}: {', '.join(f'{number} {status}' for status, number in counts.items())})"
        for stage, counts in study["runs"].items()
    ]
    done = f"{', '.join(runs)}, {duration(study['seconds'])}" if runs else "no sweep: measured by a function"
    lines += [f"Limits: {study['limits']}", "", f"`optexp study={study['study']}`: {done}.", ""]
    return "\n".join(lines)


def _ranked(effects: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a table for each measure that main effects and interactions were asked on."""
    lines = []
    for measure, rows in effects.items():
        lines += [f"| main effects and interactions on {measure}, largest first | effect | interval |", "|---|---|---|"]
        for row in rows:
            numbers = "none |"  # where a seed has no number
            if (interval := row["interval"]) is not None:
                low, mean, high = (measured(round(interval[end], 12)) for end in ("low", "estimate", "high"))
                numbers = f"{mean} | {low} to {high}"
            lines.append(f"| {' × '.join(row['factors'])} | {numbers} |")
        lines.append("")
    return lines


def _open(studies: Sequence[Mapping[str, Any]], unfinished: Sequence[str]) -> str:
    answered = {claim for study in studies for claim in study["claim"]}
    missing = {f"C{number}" for number in range(1, 30)} - answered
    lines = ["## Still open", "", *(f"- {text}." for text in unfinished)]
    for claim in sorted(missing, key=lambda name: int(name[1:])):
        lines.append(f"- {claim}: {OPEN.get(claim, 'has no study yet')}.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_page(Path(sys.argv[1]), Path(sys.argv[2]))
