"""Parts that all pages have: pictures, what differs between configs, how to repeat it, versions and commit."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import duration, measured, setting
from optexp.records.reading import ABSENT, Run, differences
from optexp.report.figures.style import css_colour, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = ("optexp", "torch", "torchvision", "hydra-core", "numpy", "pytorch-optimizer")


@dataclass(frozen=True)
class Picture:
    """A figure as SVG text, with a caption of plain text below."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Entry:
    """One line of a legend: its text, a remark, and the look of its line as CSS colour and SVG dash array."""

    text: str
    remark: str
    colour: str
    dash: str


class Gallery:
    """Turns figures into pictures, each with names of its own."""

    def __init__(self) -> None:
        self._count = 0

    def picture(self, figure: Figure, title: str, caption: str = "") -> Picture:
        """Return a figure as a picture; `title` describes it to those who cannot see it."""
        self._count += 1
        return Picture(svg(figure, f"f{self._count}", title), caption)


def entry(text: str, remark: str, look: Mapping[str, Any]) -> Entry:
    """Return the legend line for a matplotlib look (`color`, `linestyle`)."""
    style = look.get("linestyle", "-")
    dash = " ".join(f"{2 * length:g}" for length in style[1]) if isinstance(style, tuple) else ""
    return Entry(text, remark, css_colour(look["color"]), dash)


def number(value: float | None) -> str:
    """Return a measurement, whole numbers without a fraction: `0.7900`, `20`."""
    is_whole = value is not None and float(value).is_integer() and abs(value) < 1e6
    return f"{value:,.0f}" if is_whole else measured(value)


def alike(estimate: float, low: float, high: float) -> tuple[str, str, str]:
    """Return an estimate and the ends of its interval with as many digits as the interval is worth: three of its width.

    `alike(0.78954, 0.7011, 0.8779)` is `("0.790", "0.701", "0.878")`.
    """
    width, numbers = high - low, (estimate, low, high)
    if not 0 < width < math.inf or max(map(abs, numbers)) >= 1e6 or width < 1e-6:
        return number(estimate), number(low), number(high)
    digits = max(0, 2 - math.floor(math.log10(width)))
    first, second, third = (f"{value:,.{digits}f}" for value in numbers)
    return first, second, third


def short(key: str) -> str:
    """Return the name of a setting without the group that goes without saying: `lr` for `optimizer.lr`."""
    return key.removeprefix("optimizer.")


def words(values: Mapping[str, Any]) -> str:
    """Return settings as one would type them: `lr=0.1 momentum=0.9`."""
    return " ".join(f"{short(key)}={setting(value)}" for key, value in values.items())


def config_differences(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (key, its values and how many runs have each) for every setting in which runs differ."""
    table = []
    for key, texts in side_by_side(runs):
        counts = {text or "not there": texts.count(text) for text in texts}
        table.append((key, ", ".join(f"{text} ({count} runs)" for text, count in counts.items())))
    return [(key, text.replace("(1 runs)", "(1 run)")) for key, text in table]


def side_by_side(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (key, its value in each run) for every setting in which runs differ, nothing where it is absent."""
    table = []
    for key, values in differences(runs).items():
        if key.endswith("._target_"):  # the class alone says it
            key, values = key.removesuffix("._target_"), [str(value).rpartition(".")[2] for value in values]
        table.append((key, ["" if value == ABSENT else setting(value) for value in values]))
    return table


def in_common(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (key, value) of the settings that all runs share."""
    differing = differences(runs)
    return [(key, setting(value)) for key, value in runs[0].settings.items() if key not in differing] if runs else []


def provenance(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (what, its value) for code, versions, machine and data; several values where the runs differ."""
    infos = [run.info for run in runs]
    environments = [info.get("environment") or {} for info in infos]
    table = [
        ("commit", _distinct(commit(info.get("git")) for info in infos)),
        ("started", _span([str(info.get("started") or "") for info in infos])),
        ("training time", duration(sum(run.wall_time for run in runs)) if runs else ""),
        ("device", _distinct(str(info.get("device") or "") for info in infos)),
        ("processor", _distinct(str(env.get("processor") or "") for env in environments)),
        ("platform", _distinct(str(env.get("platform") or "") for env in environments)),
        ("python", _distinct(str(env.get("python") or "") for env in environments)),
        *((name, _distinct(str(env.get(name) or "") for env in environments)) for name in PACKAGES),
        ("data", _distinct(_data(info.get("data")) for info in infos)),
        ("config", _distinct(str(info.get("config_hash") or "") for info in infos) if len(infos) == 1 else ""),
    ]
    return [(name, text) for name, text in table if text]


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _span(times: Sequence[str]) -> str:
    shown = sorted(time.replace("T", " ")[:19] for time in times if time)
    return "" if not shown else shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"


def commit(git: Mapping[str, Any] | None) -> str:
    """Return how a page names the code that ran."""
    if not git or not git.get("commit"):
        return "none: it ran outside of a git checkout"
    return str(git["commit"])[:12] + (" with changes that were not committed" if git.get("dirty") else "")


def _data(data: Mapping[str, Any] | None) -> str:
    if not data:
        return ""
    sizes, prints = data.get("sizes") or {}, data.get("fingerprints") or {}
    parts = [
        f"{split} {count:,} ({prints[split]})" if split in prints else f"{split} {count:,}"
        for split, count in sizes.items()
    ]
    return f"{data.get('source') or ''}: {', '.join(parts)}".strip(": ")


def command_line(command: str | Sequence[str]) -> str:
    """Return a recorded command, an argv or a line, as one line for a shell."""
    return command if isinstance(command, str) else shlex.join(str(word) for word in command)
