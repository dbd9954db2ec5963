"""A study as data: a question, arms to be compared, what is measured, and rules fixed before anything is trained.

The files are plain YAML (conf/study/*.yaml, and study/*.yaml in a user's own --config-dir). They are no Hydra configs:
a study has arms with keys of their own, and words that it hands to Hydra's grammar.
"""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from optexp.config.settings import settings
from optexp.config.values import AtLeast
from optexp.errors import BadInput, listed, nearest
from optexp.help import shipped_folder
from optexp.studies.expressions import Expression
from optexp.studies.measures import Measure

FIRST_TUNING_SEED = 1000
"""Tuning has seeds of its own: what is chosen on a seed must not be judged on it."""


@dataclass(frozen=True)
class Tuning:
    """The search that every arm gets, of equal size: the smallest mean best `metric` over the tuning seeds wins.

    `keys` are swept for all arms alike; `arms` has the keys of arms that need other values.
    """

    keys: dict[str, list[Any]] = field(default_factory=dict)
    arms: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    metric: Literal["val/loss"] = "val/loss"
    seeds: Annotated[int, AtLeast(1)] = 2

    def grid(self, arm: str) -> list[list[str]]:
        """Return the override words of every combination for an arm."""
        keys = self.arms.get(arm, self.keys)
        return [
            [f"{key}={value}" for key, value in zip(keys, point, strict=True)]
            for point in itertools.product(*keys.values())
        ]


@dataclass(frozen=True)
class Answer:
    """One half of a claim, or all of it: a number per seed, and the side of `smallest` on which its interval must lie.

    `probe` names a function of optexp.studies.probes in place of an effect of trained runs.
    """

    statement: str
    supported_if: Literal["above", "below"]
    smallest: float
    unit: str
    if_supported: str
    if_refuted: str
    if_inconclusive: str
    effect: str | None = None
    probe: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    interval: Literal["t", "bootstrap", "exact"] = "t"


@dataclass(frozen=True)
class Study:
    """Everything that decides about a study. `arms` holds the override words of each; `text` is the file itself.

    With `factors`, all combinations of their levels are arms; `effects_on` are the measures, or log10 of one, on which
    every main effect and interaction is told, largest first.
    """

    name: str
    text: str
    question: str
    claim: list[str]
    source: str
    limits: str
    answers: dict[str, Answer]
    common: list[str] = field(default_factory=list)
    seeds: Annotated[int, AtLeast(0)] = 8
    arms: dict[str, list[str]] = field(default_factory=dict)
    factors: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    effects_on: list[str] = field(default_factory=list)
    tune: Tuning | None = None
    measures: dict[str, Measure] = field(default_factory=dict)

    @property
    def compared(self) -> dict[str, list[str]]:
        """The override words of every arm: those of `arms`, or one for each combination of the factors' levels."""
        if not self.factors:
            return self.arms
        combinations = itertools.product(("from", "to"), repeat=len(self.factors))
        return {
            combination_name(dict(zip(self.factors, levels, strict=True))): [
                word for factor, level in zip(self.factors, levels, strict=True) for word in self.factors[factor][level]
            ]
            for levels in combinations
        }

    def expression(self, effect: str) -> Expression:
        """Return an effect on the measures of this study's arms. Raises BadInput."""
        return Expression(effect, list(self.compared), list(self.measures), list(self.factors))


def combination_name(levels: Mapping[str, str]) -> str:
    """Name the arm of a combination by the factors at their second level: `lr_dampening`, `none`."""
    return "_".join(factor for factor, level in levels.items() if level == "to") or "none"


def factor_effects(study: Study) -> dict[str, dict[tuple[str, ...], Expression]]:
    """Return every main effect and interaction of the factors, by what it is an effect on and the factors involved."""
    orders = range(1, len(study.factors) + 1)
    involved = [some for order in orders for some in itertools.combinations(study.factors, order)]
    return {
        measure: {
            some: study.expression(f"{'main' if len(some) == 1 else 'interaction'}({', '.join(some)}, {measure})")
            for some in involved
        }
        for measure in study.effects_on
    }


def study_files(config_dir: str | None = None) -> dict[str, Path]:
    """Return the files of all studies by name; a user's own go before those that are shipped."""
    folders = [shipped_folder(), *([Path(config_dir)] if config_dir else [])]
    files = [file for folder in folders for file in sorted((folder / "study").glob("*.yaml"))]
    return {file.stem: file for file in files}


def read_studies(names: Sequence[str], config_dir: str | None = None) -> list[Study]:
    """Read studies by name; `all` are all. Raises BadInput in one line for whatever is wrong with a name or a file."""
    files = study_files(config_dir)
    wanted = list(files) if "all" in names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in files:
            raise BadInput(f"study={name}: no such study{nearest(name, files)}; `optexp studies` lists them")
    return [read_study(files[name]) for name in wanted]


def read_study(file: Path) -> Study:
    """Read and check one study. Raises BadInput naming the file, the key, its value and what is allowed."""
    try:
        return read_study_text(file.stem, file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"study/{file.name}: cannot be read ({error})") from None


def read_study_text(name: str, text: str) -> Study:
    """Read and check the text of a study's file."""
    where = f"study/{name}.yaml"
    try:
        node = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"{where}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(node, dict):
        raise BadInput(f"{where}: allowed is a mapping with the keys of a study")
    node = {"name": name, "text": text, **node}
    for key, kind in (("answers", Answer), ("measures", Measure)):
        entries = node.get(key, {})
        if not isinstance(entries, dict):
            raise BadInput(f"{where}: {key}={entries}: allowed is a mapping from names")
        node[key] = {name: settings(kind, entry, f"{where}: {key}.{name}: ") for name, entry in entries.items()}
    if node.get("tune") is not None:
        node["tune"] = settings(Tuning, node["tune"], f"{where}: tune: ")
    study = settings(Study, node, f"{where}: ")
    _check(study, where)
    return study


def _check(study: Study, where: str) -> None:
    """Check what only the study as a whole can show."""
    if not study.question.endswith("?"):
        raise BadInput(f"{where}: question={study.question}: allowed is a sentence that ends in a question mark")
    if study.arms and study.factors:
        raise BadInput(f"{where}: factors: excludes arms")
    for name, levels in study.factors.items():
        if not isinstance(levels, dict) or set(levels) != {"from", "to"}:
            raise BadInput(f"{where}: factors.{name}={levels}: allowed are the override words of from and of to")
    for name in [*study.compared, *study.measures, *study.factors]:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise BadInput(f"{where}: {name}: names of arms, factors and measures are letters, digits and underscores")
    words = [*study.common, *itertools.chain.from_iterable(study.compared.values())]
    for word in words:
        if not isinstance(word, str) or ("=" not in word and not word.startswith("~")):
            raise BadInput(f"{where}: {word}: allowed is an override word key=value")
        if word.startswith("seed="):
            raise BadInput(f"{where}: {word}: a study sets the seeds itself; allowed is seeds: NUMBER")
    if bool(study.seeds) != bool(study.compared):
        raise BadInput(f"{where}: seeds={study.seeds}: arms need seeds, and a study of probes has neither")
    if not study.answers:
        raise BadInput(f"{where}: answers: there is none")
    _check_tuning(study, where)
    if study.effects_on and not study.factors:
        raise BadInput(f"{where}: effects_on={study.effects_on}: needs factors")
    try:
        factor_effects(study)
    except BadInput as error:
        raise BadInput(f"{where}: effects_on: {error}") from None
    for name, answer in study.answers.items():
        _check_answer(study, answer, f"{where}: answers.{name}")


def _check_tuning(study: Study, where: str) -> None:
    if study.tune is None:
        return
    for arm in study.tune.arms:
        if arm not in study.compared:
            raise BadInput(f"{where}: tune.arms.{arm}: no such arm; there are {listed(study.compared)}")
    sizes = {arm: len(study.tune.grid(arm)) for arm in study.compared}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{arm} {size}" for arm, size in sizes.items())
        raise BadInput(f"{where}: tune: arms must get the same number of combinations; here {told}")


def _check_answer(study: Study, answer: Answer, where: str) -> None:
    if (answer.effect is None) == (answer.probe is None):
        raise BadInput(f"{where}: allowed is either effect or probe")
    if answer.arguments and answer.probe is None:
        raise BadInput(f"{where}: arguments: are those of a probe")
    if answer.interval == "exact" and answer.probe is None:
        raise BadInput(f"{where}: interval=exact: runs vary with their seeds; allowed are t and bootstrap")
    if answer.interval == "bootstrap" and study.seeds < 8:
        raise BadInput(f"{where}: interval=bootstrap: needs at least 8 seeds; here are {study.seeds}")
    if answer.interval == "t" and answer.probe is None and study.seeds < 2:
        raise BadInput(f"{where}: interval=t: needs at least 2 seeds; here are {study.seeds}")
    if answer.effect is not None:
        try:
            study.expression(answer.effect)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
