"""`optexp study=NAME …` and `optexp resume DIR` for a study's directory: from a request to answers on the screen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from optexp.config.compose import Composer
from optexp.ending import ended_by_signals, status_of
from optexp.errors import BadInput, Exit, StorageError
from optexp.records.console import relative, say
from optexp.records.files import write_atomically
from optexp.records.numbers import measured
from optexp.records.process import is_alive
from optexp.records.run_directory import STUDIES_FILE, STUDY_FILE, claim
from optexp.report.tables import Column, print_table
from optexp.studies.page import write_page
from optexp.studies.runner import Conducted, StudyFailedError, check_study, check_words
from optexp.studies.study import Study, read_studies, read_study_text

PAGE_FILE = "studies.md"


def run_studies(composer: Composer, words: Sequence[str], command: Sequence[str], dry_run: bool) -> int:
    """Conduct the studies that `study=…` among the words names; the other words go to every arm of each.

    Everything is checked before anything is created. Returns the exit status: 0 also when claims are refuted.
    """
    names = [name for word in words if word.startswith("study=") for name in word.removeprefix("study=").split(",")]
    others = [word for word in words if not word.startswith("study=")]
    if composer.fixed(others) != others:
        raise BadInput(f"study={','.join(names)}: what is compared stands in the file; give every key one value")
    studies = []
    for study in read_studies(names, composer.config_dir):
        try:
            check_words(study, others, composer)
            runs = check_study(study, others, composer)
        except BadInput as error:
            if "all" not in names or not others:
                raise
            say(f"left out: {study.name}: {str(error).removeprefix(f'study={study.name}: ')}")
            continue
        studies.append(study)
        if dry_run:
            print(f"ok: study={study.name}, {runs} runs{' to begin with' if study.tune else ''}")
    if not studies:
        raise BadInput(f"study=all {' '.join(others)}: fits no study")
    if dry_run:
        return Exit.DONE
    now, output_dir = datetime.now(), _output_dir(composer, others)
    name = studies[0].name if len(studies) == 1 else "all" if "all" in names else "studies"
    path = claim(Path(output_dir) / "studies" / f"{now:%Y-%m-%d}", f"{now:%H%M%S}-{name}").absolute()
    if len(studies) == 1:
        say(f"study in {relative(path)}")
        return _conduct([Conducted(studies[0], path, others, list(command), composer, {})], path)
    asked = {"command": list(command), "words": others, "studies": [study.name for study in studies]}
    _write(path / STUDIES_FILE, asked)
    say(f"{len(studies)} studies in {relative(path)}")
    for study in studies:
        (path / study.name).mkdir()
        conducted = Conducted(study, path / study.name, others, list(command), composer, {})
        conducted.write({}, "not started", 0.0)
    return go_on(path, [word for word in others if word.startswith("trust=")])


def _output_dir(composer: Composer, words: Sequence[str]) -> str:
    """Return where results go; the other words may fit the arms and not the defaults."""
    return str(composer.compose([word for word in words if word.startswith("output_dir=")]).config["output_dir"])


def go_on(path: Path, trust: Sequence[str] = ()) -> int:
    """Do what is left of a study, or of several that were asked for together; raises BadInput where there is none.

    `trust` are the words that name packages of the user's own: a file may not.
    """
    if (path / STUDIES_FILE).exists():
        names = json.loads((path / STUDIES_FILE).read_text(encoding="utf-8"))["studies"]
        return _conduct([_read(path / name, trust) for name in names], path)
    return _conduct([_read(path, trust)], path)


def _read(path: Path, trust: Sequence[str]) -> Conducted:
    """Return a study as far as it has come. Its rule is the one it began with, whatever has become of the file."""
    try:
        content = json.loads((path / STUDY_FILE).read_text(encoding="utf-8"))
        study = read_study_text(content["study"], content["definition"])
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{relative(path)}: its {STUDY_FILE} cannot be read ({error})") from None
    if content["status"] == "running" and is_alive(content["process"]):
        raise BadInput(f"{relative(path)}: is still running (process {content['process']['pid']})")
    return Conducted(
        study,
        path.absolute(),
        [*(word for word in content["words"] if not word.startswith("trust=")), *trust],
        content["command"],
        Composer(content["config_dir"], multirun=True),
        content["chosen"],
        content["seconds"],
        content["status"] == "completed",
    )


def _conduct(studies: Sequence[Conducted], asked: Path) -> int:
    """Conduct one after another and print the answers; an interruption ends all of it, a failure its study only.

    `asked` is the directory of the whole request.
    """
    worst, rows, effects, finished = int(Exit.DONE), [], [], 0
    for conducted in studies:
        try:
            with ended_by_signals():
                status = int(Exit.DONE) if conducted.done else conducted.conduct()
        except (SystemExit, KeyboardInterrupt) as stop:
            status = status_of(stop)
        except (BadInput, StudyFailedError) as error:
            if len(studies) == 1 and isinstance(error, BadInput):
                raise
            say(f"{conducted.study.name}: {error}; optexp resume {relative(asked)} tries again")
            status = int(Exit.MEMBERS_FAILED)
        worst = max(worst, status)
        if status > 128:
            say(f"{conducted.study.name}: interrupted; go on with: optexp resume {relative(asked)}")
            return status
        content = json.loads((conducted.path / STUDY_FILE).read_text(encoding="utf-8"))
        rows += _rows(conducted.study, content)
        effects += _effects(conducted.study, content)
        finished += content["status"] == "completed"
    print()
    print_table(rows, COLUMNS)
    if len(studies) > 1 and finished:
        write_page(asked, asked / PAGE_FILE)
        print(f"\nall of it: {relative(asked / PAGE_FILE)}")
    if effects:
        print("\nmain effects and interactions, largest first")
        print_table(effects, EFFECT_COLUMNS, group_by="study")
    return worst


COLUMNS = [
    Column("study"),
    Column("claim"),
    Column("answer", style=lambda verdict: {"supported": "green", "refuted": "red"}.get(verdict, "yellow")),
    Column("effect", text=measured, numeric=True),
    Column("interval"),
    Column("matters if"),
    Column("statement", optional=1),
]


EFFECT_COLUMNS = [
    Column("on"),
    Column("of"),
    Column("effect", text=measured, numeric=True),
    Column("interval"),
]


def _effects(study: Study, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each main effect and interaction of a study with factors."""
    rows = []
    for measure, effects in content.get("effects", {}).items():
        for effect in effects:
            row = {"study": study.name, "on": measure, "of": " x ".join(effect["factors"])}
            rows.append(row | _numbers(effect["interval"]))
    return rows


def _numbers(interval: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the cells of an estimate and its interval; none where nothing could be measured."""
    if interval is None:
        return {}
    low, mean, high = (round(interval[end], 12) for end in ("low", "estimate", "high"))  # 0 where 1e-17 was computed
    return {"effect": mean, "interval": f"{measured(low)} to {measured(high)}"}


def _rows(study: Study, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each answer of a study that has come to its end."""
    rows = []
    for answer in content.get("answers", {}).values():
        row = {"study": study.name, "claim": " ".join(study.claim), "answer": answer["verdict"]}
        row |= _numbers(answer["interval"])
        row["matters if"] = f"{answer['supported_if']} {measured(answer['smallest'])} {answer['unit']}"
        rows.append(row | {"statement": answer["statement"]})
    return rows


def _write(path: Path, content: Any) -> None:
    try:
        write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
