"""What the page of a study says, from its study.json and, for the curves, its final stage."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optexp.errors import BadInput
from optexp.records.numbers import duration, setting
from optexp.report.figures.effects import VERDICTS, effect_figure, measure_figure, ranked_figure
from optexp.report.grouping import mean_of
from optexp.report.parts import Gallery, Picture, alike, command_line, commit, number, provenance, words
from optexp.report.sweep_directory import ENDED_WELL, SWEEP_FILE, Sweep, read_sweep
from optexp.report.sweep_page import status_counts, with_interval
from optexp.report.sweep_pictures import curve_pictures, is_narrow, settings_table

STUDY_FILE = "study.json"
NEEDED = ("study", "question")
MEANS = "strokes: one per seed; diamond: mean; bar: its"


def read_study(path: Path) -> dict[str, Any]:
    """Return the content of a study's study.json. Raises BadInput when there is none or it cannot be read."""
    try:
        study = json.loads((path / STUDY_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: is not a study directory (it holds no {STUDY_FILE})") from error
    except (OSError, ValueError) as error:
        text = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise BadInput(f"{path / STUDY_FILE}: cannot be read ({text})") from error
    if not isinstance(study, dict) or any(key not in study for key in NEEDED):
        raise BadInput(f"{path / STUDY_FILE}: is not the record of a study")
    return study


def study_content(path: Path, study: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template of a study shows."""
    gallery, sweep = Gallery(), _final(path, study)
    measures = study.get("measured") or {}
    curves, legend, reading = curve_pictures(sweep, gallery) if sweep else ([], [], "")
    answers = [_answer(name, answer, gallery) for name, answer in (study.get("answers") or {}).items()]
    return {
        "name": str(study["study"]),
        "question": str(study["question"]),
        "claim": _listed(study.get("claim")),
        "source": str(study.get("source") or ""),
        "limits": str(study.get("limits") or ""),
        "status": str(study.get("status") or ""),
        "seconds": duration(float(study["seconds"])) if study.get("seconds") is not None else "",
        "answers": answers,
        "overall": _overall([answer["verdict"] for answer in answers]),
        "ranked": _ranked(study.get("effects") or {}, gallery),
        "runs": _runs(study, sweep),
        "lost": _lost(sweep) if sweep else [],
        "measures": _measure_pictures(measures, gallery),
        "curves": curves,
        "legend": legend,
        "reading": reading,
        "chosen": [(str(arm), _listed(point, " ")) for arm, point in (study.get("chosen") or {}).items() if point],
        "side_by_side": _arms(sweep) if sweep else None,
        "table": _table(measures),
        "definition": str(study.get("definition") or ""),
        "command": command_line(study.get("command") or ""),
        "provenance": _provenance(study, sweep),
    }


def _final(path: Path, study: Mapping[str, Any]) -> Sweep | None:
    """Return the final stage; None for a study of closed forms, or when its directory is gone."""
    stage = (study.get("stages") or {}).get("final") or {}
    folder = path / str(stage.get("directory") or "final")
    return read_sweep(folder) if (folder / SWEEP_FILE).is_file() else None


def _runs(study: Mapping[str, Any], sweep: Sweep | None) -> list[str]:
    """Return for each stage how many runs ended in which way: `final 11 completed, 1 diverged`."""
    counts = {stage: list(ends.items()) for stage, ends in (study.get("runs") or {}).items()}
    if not counts and sweep:
        counts = {"final": status_counts(sweep.members)}
    return [
        f"{stage} " + ", ".join(f"{count} {str(status).replace('_', ' ')}" for status, count in ends)
        for stage, ends in counts.items()
    ]


def _arms(sweep: Sweep) -> tuple[list[str], list[list[str]]] | None:
    """Return the settings in which the arms differ: a column for each arm, or a line where these do not fit."""
    table = settings_table(sweep)
    if table is None or is_narrow(table):
        return table
    headings, *rows = (list(line) for line in zip(table[0], *table[1], strict=True))
    return headings, rows


def _lost(sweep: Sweep) -> list[tuple[str, str]]:
    """Return the members of the final stage that have no good end, each with what became of it."""
    table = []
    for member in sweep.members:
        if member.status not in ENDED_WELL:
            name = words({key: value for key, value in member.swept.items() if value != ""})
            table.append((name, member.status + (f": {member.reason}" if member.reason else "")))
    return table


def _listed(value: Any, separator: str = ", ") -> str:
    if value is None:
        return ""
    return separator.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _answer(name: str, answer: Mapping[str, Any], gallery: Gallery) -> dict[str, Any]:
    """Return one answer in words, with its picture where it has an interval."""
    interval, picture = answer.get("interval"), None
    if _is_drawn(answer):
        title = f"{answer.get('statement') or name}: the effect and its interval"
        caption = "diamond: estimate; bar: interval; dashed: smallest effect that matters; shaded: supported"
        if answer.get("per_seed"):
            caption += "; strokes: one per seed"
        picture = gallery.picture(effect_figure(answer), title, caption)
    return {
        "name": name,
        "statement": str(answer.get("statement") or name),
        "verdict": str(answer.get("verdict") or "inconclusive"),
        "text": str(answer.get("text") or ""),
        "effect": _effect_words(str(answer.get("effect") or answer.get("probe") or "")),
        "measured": _effect_text(interval, str(answer.get("unit") or "")) if interval else "",
        "rule": _rule(answer),
        "picture": picture,
    }


def _overall(verdicts: Sequence[str]) -> str:
    """Return what became of the answers in one sentence: `3 of 5 answers supported, 1 refuted, 1 inconclusive.`"""
    counts = [(verdicts.count(verdict), verdict) for verdict in VERDICTS if verdict in verdicts]
    if len(counts) > 1:
        (first, verdict), *others = counts
        return (
            ", ".join([f"{first} of {len(verdicts)} answers {verdict}", *(f"{n} {word}" for n, word in others)]) + "."
        )
    return "".join(f"All {n} answers {word}." if n > 1 else f"{word.capitalize()}." for n, word in counts)


def _effect_words(effect: str) -> str:
    """Return an effect as it is, and the call of a probe in words: `steps in a ravine: momentum 0.9, steps 100`."""
    call = re.fullmatch(r"(\w+)(\{.*\})?", effect)
    if call is None:
        return effect
    name = call[1].replace("_", " ")
    try:
        arguments = ast.literal_eval(call[2] or "{}")
    except (ValueError, SyntaxError):
        return f"{name} {call[2]}"
    texts = [f"{key} {_value_words(value)}".replace("_", " ") for key, value in arguments.items()]
    return f"{name}: {', '.join(texts)}" if texts else name


def _value_words(value: Any) -> str:
    """Return an argument of a probe: `SGD momentum 0.9` for `{"name": "SGD", "momentum": 0.9}`."""
    if not isinstance(value, dict):
        return setting(value)
    return " ".join(f"{key} {setting(item)}".removeprefix("name ") for key, item in value.items())


def _is_drawn(answer: Mapping[str, Any]) -> bool:
    numbers = [(answer.get("interval") or {}).get(key) for key in ("low", "estimate", "high")] + [
        answer.get("smallest")
    ]
    return all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)


def _effect_text(interval: Mapping[str, Any], unit: str) -> str:
    """Return `0.742 accuracy, 95 % interval 0.701 to 0.783 (t, 8 seeds)`, or that the number is exact."""
    bounds = [interval.get(name) for name in ("estimate", "low", "high")]
    estimate, low, high = alike(*(math.nan if bound is None else float(bound) for bound in bounds))
    effect = f"{estimate} {unit}".strip()
    if interval.get("method") == "exact":
        return f"{effect}, exact: no seeds are needed"
    level = f"{100 * float(interval['level']):.4g} % " if interval.get("level") else ""
    return f"{effect}, {level}interval {low} to {high} ({interval.get('method')}, {interval.get('n')} seeds)"


def _rule(answer: Mapping[str, Any]) -> str:
    if answer.get("smallest") is None:
        return ""
    side = "above" if answer.get("supported_if") == "above" else "below"
    return f"supported if the whole interval lies {side} {number(answer['smallest'])}"


def _ranked(effects: Mapping[str, Sequence[Mapping[str, Any]]], gallery: Gallery) -> list[dict[str, Any]]:
    """Return for each measure its main effects and interactions, largest first, as a table and a picture."""
    ranked = []
    for measure, rows in effects.items():
        cells = [[" × ".join(row["factors"]), *_effect_cells(row["interval"])] for row in rows]
        caption = f"{MEANS} interval; all intervals together hold at 95 %"
        picture = gallery.picture(ranked_figure(rows, measure), f"effects on {measure}, largest first", caption)
        ranked.append({"measure": measure, "table": (["effect of", measure, "interval"], cells), "picture": picture})
    return ranked


def _effect_cells(interval: Mapping[str, Any] | None) -> list[str]:
    """Return an estimate and its interval as two cells of a table."""
    if not interval:
        return ["none", ""]
    estimate, low, high = alike(*(float(interval[name]) for name in ("estimate", "low", "high")))
    return [estimate, f"{low} to {high} ({100 * float(interval['level']):.4g} %, {interval['n']} seeds)"]


def _measure_names(measures: Mapping[str, Mapping[str, Sequence[float | None]]]) -> list[str]:
    return list(dict.fromkeys(name for arm in measures.values() for name in arm))


def _measure_pictures(measures: Mapping[str, Mapping[str, Sequence[float | None]]], gallery: Gallery) -> list[Picture]:
    return [
        gallery.picture(measure_figure(measures, name), f"{name} of each arm", f"{MEANS} 95 % interval")
        for name in _measure_names(measures)
        if any(arm.get(name) for arm in measures.values())
    ]


def _table(measures: Mapping[str, Mapping[str, Sequence[float | None]]]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: one row per arm, the mean of each measure with its interval and what has no value."""
    names = _measure_names(measures)
    rows = []
    for arm, values in measures.items():
        cells = []
        for name in names:
            finite = [v for v in values.get(name) or [] if v is not None and math.isfinite(v)]
            lost = len(values.get(name) or []) - len(finite)
            cells.append(
                (with_interval(mean_of(finite)) if finite else "none") + (f", {lost} without a value" if lost else "")
            )
        rows.append([str(arm), *cells])
    return ["arm", *names], rows


def _provenance(study: Mapping[str, Any], sweep: Sweep | None) -> list[tuple[str, str]]:
    table = {"commit": commit(study.get("git"))} if study.get("git") else {}
    table |= {"started": str(study["date"]).replace("T", " ")[:19]} if study.get("date") else {}
    table |= dict(provenance(sweep.runs)) if sweep else {}
    for name, value in (study.get("versions") or {}).items():
        table.setdefault(str(name), _listed(value))
    return [(name, text) for name, text in table.items() if text]
