"""The progress of a run for people: a live panel on a terminal, plain lines elsewhere, and the result at the end."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optexp.records.numbers import clock, duration, measured, rate, setting
from optexp.records.sinks import Row

if TYPE_CHECKING:
    from rich.console import Console as Terminal
    from rich.console import RenderableType
    from rich.text import Text

REFRESH_SECONDS = 0.125
PROGRESS_LINES = 10

OUTCOME_STYLES = {"trained": "green", "slow": "yellow", "overfit": "yellow"}
"""Of a diagnosis; every other outcome is red."""

STATUS_STYLES = {
    "running": "cyan",
    "completed": "green",
    "early_stopped": "green",
    "diverged": "red",
    "interrupted": "yellow",
    "failed": "red",
}


def is_live() -> bool:
    """Return whether standard output is a terminal that may be drawn on."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def open_terminal() -> Terminal:
    """Return a rich console on standard output: plain and without a line length unless it may be drawn on."""
    from rich.console import Console as Terminal

    return Terminal(highlight=False, force_terminal=is_live(), width=None if is_live() else 1000)


def say(text: str) -> None:
    """Print a line at once, if anybody listens."""
    try:
        print(text, flush=True)
    except OSError:
        fall_silent()


def fall_silent() -> None:
    """Nobody listens any more (a closed terminal, `| head`): let this process write into nothing from here on."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Console:
    """Shows rows as they are logged. Drawing happens inside `log`, at most eight times a second, on no other thread.

    What is drawn for a moment is drawn only on a terminal; what stays is one line per evaluation (on a terminal about
    ten in a run, when piped every one) and, when piped, about ten lines of progress. A terminal or pipe that goes
    away silences the console and does not stop the run.
    """

    def __init__(self, total_steps: int, name: str, title: Sequence[str] = (), brief: bool = False) -> None:
        """Print the name of the run with the `title` lines below it, and begin.

        `brief` is for the members of a sweep: only the live panel while it lasts, and one line when the run ends.
        """
        self._total_steps = total_steps
        self._brief = name if brief else None
        self._latest: dict[str, float | int] = {}
        self._origin: tuple[int, float] | None = None  # step and time of the first row seen
        self._tenth = -1
        self._drawn = -math.inf
        self._live = None
        lines = [] if brief else [name, *(f"  {line}" for line in title)]
        if not is_live():
            if lines:
                say("\n".join(lines))
            return
        from rich.live import Live

        terminal = open_terminal()
        for number, line in enumerate(lines):
            terminal.print(line, style="dim" if number else "bold", markup=False)
        self._live = Live(console=terminal, auto_refresh=False, transient=True)
        self._live.start()
        terminal.show_cursor(True)  # a killed run must not leave a terminal without its cursor

    def log(self, row: Row) -> None:
        """Take in a row: draw it, or print it when it is due."""
        self._latest.update(row)
        step, seconds = int(row["step"]), row["time"]
        if self._origin is None:
            self._origin = (step, seconds)
        tenth = PROGRESS_LINES * step // max(self._total_steps, 1)
        evaluated = any(tag.startswith("val/") for tag in row)
        if self._live is None:
            if self._brief is None and (evaluated or tenth > self._tenth):
                self._tenth = tenth
                say("  ".join(self._line(evaluated)))
            return
        try:
            if self._brief is None and evaluated and tenth > self._tenth:
                self._tenth = tenth
                self._live.console.print("  ".join(self._line(evaluated)), markup=False)
            if evaluated or time.monotonic() - self._drawn > REFRESH_SECONDS:
                self._live.update(self._panel(), refresh=True)
                self._drawn = time.monotonic()
        except OSError:
            fall_silent()

    def flush(self) -> None:
        """What is to be seen has been shown."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Remove the live panel; what happened stays to be said by `result_table`."""
        if self._live is not None:
            try:
                self._live.stop()
            except OSError:
                fall_silent()
        if self._brief is not None:
            numbers = [f"{name} {text}" for name, text in self._measurements() if name != "lr"]
            reason = [summary["reason"]] if summary.get("reason") else []
            say("  ".join([self._brief, str(summary["status"]).replace("_", " "), *numbers, *reason]))

    def _position(self) -> tuple[str, str]:
        """Return `step 640/1000` and `epoch 3.2/5`, both as wide at the start as at the end."""
        step, total = int(self._latest["step"]), self._total_steps
        epochs = self._latest["epoch"] / step * total if step else 0.0
        return f"step {step:{len(str(total))}}/{total}", f"epoch {self._latest['epoch']:.1f}/{round(epochs, 1):g}"

    def _seconds_left(self) -> float | None:
        """Return the time the remaining steps will take at the mean pace since the first row, evaluations included."""
        assert self._origin is not None
        steps, seconds = self._latest["step"] - self._origin[0], self._latest["time"] - self._origin[1]
        return (self._total_steps - self._latest["step"]) * seconds / steps if steps else None

    def _measurements(self) -> list[tuple[str, str]]:
        """Return the newest values as (name, text), the most important first."""
        names = {
            "train/loss": ("loss", measured),
            "val/loss": ("val loss", measured),
            "val/accuracy": ("val accuracy", measured),
            "optim/lr": ("lr", lambda value: setting(float(f"{value:.3g}"))),
        }
        return [(name, text(self._latest[tag])) for tag, (name, text) in names.items() if tag in self._latest]

    def _line(self, evaluated: bool) -> list[str]:
        """Return the parts of a line that stays: the numbers of an evaluation, or learning rate and speed."""
        step, epoch = self._position()
        wanted = ("loss", "val loss", "val accuracy") if evaluated else ("loss", "lr")
        parts = [f"{name} {text}" for name, text in self._measurements() if name in wanted]
        if not evaluated:
            if "time/samples_per_second" in self._latest:
                parts.append(f"{rate(self._latest['time/samples_per_second'])} samples/s")
            left = self._seconds_left()
            if left and left > 0.5:
                parts.append(f"{clock(left)} left")
        return [step, epoch, *parts]

    def _panel(self) -> RenderableType:
        """Return the live lines: how far the run is, and its newest measurements, under the name of a member."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        step, epoch = self._position()
        left = self._seconds_left()
        progress = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, 1, None, None):
            progress.add_column(ratio=ratio, no_wrap=True)
        bar = ProgressBar(self._total_steps, self._latest["step"], complete_style="cyan", finished_style="cyan")
        progress.add_row(epoch, bar, step, f"{clock(left)} left" if left is not None else "")
        name = [] if self._brief is None else [Text(self._brief, "bold", no_wrap=True, overflow="ellipsis")]
        return Group(*name, progress, self._measurement_line())

    def _measurement_line(self) -> Text:
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ellipsis")
        for name, text in self._measurements():
            line.append(f"{name} ", "dim").append(text, "bold red" if text in ("nan", "inf", "-inf") else "bold")
            line.append("  ")
        if "time/samples_per_second" in self._latest:
            line.append(rate(self._latest["time/samples_per_second"]), "bold").append(" samples/s", "dim")
        return line


def result_table(
    path: Path, info: Mapping[str, Any], baselines: Mapping[str, float] | None = None, why: Sequence[str] = ()
) -> None:
    """Print how a run ended: status, metrics of each split, where the results are and which commands go on.

    `info` is the content of run.json; `baselines` are reference values in the units of the loss; `why` has the lines
    of a diagnosis, for a run that did not train: its outcome and then, where one is known, the cause.
    """
    from rich.text import Text

    terminal = open_terminal()

    def print_line(*parts: str | tuple[str, str]) -> None:
        terminal.print(Text.assemble(*parts), soft_wrap=True)

    print_line()
    status = info["status"]
    steps = f"{info['last_step']:,} of {info['total_steps']:,} steps in {duration(info['wall_time'])}"
    print_line((status.replace("_", " "), f"bold {STATUS_STYLES[status]}"), f"  {steps}")
    if info["reason"]:
        print_line(f"  {info['reason']}")
    metrics = info["metrics"]
    if any(tag.startswith(("train/", "val/", "test/")) for tag in metrics):
        heading, *lines = _metrics_table(metrics, baselines or {})
        print_line((heading, "dim"))
        for line in lines:
            print_line(line)
    print_line()
    for number, line in enumerate(why):
        print_line((f"  {line}", "bold yellow" if number == 0 else ""))
    if len(why) > 1:
        print_line(("  more         ", "dim"), f"{program('optexp')} diagnose {shlex.quote(relative(path))}")
    if why:
        print_line()
    if info["best"]:
        best = info["best"]
        print_line(("  best         ", "dim"), f"{best['metric']} {measured(best['value'])} at step {best['step']:,}")
    shown = shlex.quote(relative(path))
    print_line(("  results      ", "dim"), shown)
    if (path / "tensorboard").is_dir():
        print_line(("  tensorboard  ", "dim"), f"{program('tensorboard')} --logdir {shown}")
    if status in ("interrupted", "failed") and any(path.glob("checkpoints/*")):
        trust = shlex.quote(f" trust=[{','.join(info['trust'])}]"[1:]) if info.get("trust") else ""
        print_line(("  resume       ", "dim"), f"{program('optexp')} resume {shown} {trust}".rstrip())


def _metrics_table(metrics: Mapping[str, float | None], baselines: Mapping[str, float]) -> list[str]:
    """Return aligned lines with the last value of every metric: one line per split and baseline, one column each."""
    splits = [split for split in ("train", "val", "test") if any(tag.startswith(f"{split}/") for tag in metrics)]
    names = list(dict.fromkeys(tag.partition("/")[2] for tag in metrics if tag.partition("/")[0] in splits))
    names.sort(key=lambda name: (name != "loss", name != "accuracy"))
    lines = [["", *names]]
    for split in splits:
        tags = [f"{split}/{name}" for name in names]
        lines.append([split, *(measured(metrics[tag]) if tag in metrics else "" for tag in tags)])
    for baseline, value in baselines.items():
        lines.append([baseline, *(measured(value) if name == "loss" else "" for name in names)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ([first.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])] for first, *numbers in lines)
    return ["  ".join(["", *cells]).rstrip() for cells in aligned]


def relative(path: Path) -> str:
    """Return the path as seen from the current folder when it lies inside it, else the absolute one."""
    shown = os.path.relpath(path)
    return str(path.resolve()) if shown.startswith(os.pardir) else shown


def program(name: str) -> str:
    """Return how to call a program of this environment from the current folder, activated or not."""
    beside_python = Path(sys.executable).parent / name
    if shutil.which(name) or not beside_python.exists():
        return name
    return shlex.quote(relative(beside_python))
