"""The task `lr_range_test`: which learning rates to use, over several seeds, and whether the answer can be trusted."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from optexp.config.compose import Composed
from optexp.config.schema import Engine
from optexp.config.settings import task_settings
from optexp.config.values import Above, AtLeast, Between
from optexp.errors import BadInput, StorageError
from optexp.instruments.step_size import effective_lr
from optexp.override_words import key_of
from optexp.range_test.advice import LARGEST_SPREAD, Advice, advise
from optexp.range_test.confirm import Confirmation, Trial, confirm
from optexp.range_test.members import seeds_for, template
from optexp.range_test.suggestions import RULES
from optexp.range_test.sweep import Sweep, run_curves
from optexp.records.console import relative, say
from optexp.records.files import write_atomically
from optexp.records.numbers import duration, measured, setting
from optexp.report.figures.range_test import range_test_figure
from optexp.report.figures.style import save_png
from optexp.report.tables import Column, print_table
from optexp.run import Result
from optexp.task_record import Found, carry_out

LENGTHS = (
    "epochs",
    "max_steps",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "early_stopping_patience",
    "evaluate_test",
)
"""Keys of the engine that say how a training proceeds; a range test is none."""

LOWEST_RATE, HIGHEST_RATE = 1e-30, 1e30
"""Beyond these, an optimizer's step size leaves the range of float32."""

NARROWEST = 1.1
"""The end of the range over its start, at least: slopes need rates that differ in their floating-point digits."""

SECONDS_BETWEEN_LINES = 20.0


@dataclass(frozen=True)
class LrRangeTestSettings:
    """See conf/task/lr_range_test.yaml."""

    start_lr: Annotated[float, Between(LOWEST_RATE, HIGHEST_RATE)] = 1e-7
    end_lr: Annotated[float, Between(LOWEST_RATE, HIGHEST_RATE)] = 10.0
    num_iter: Annotated[int, AtLeast(20)] = 1000
    seeds: Annotated[int, AtLeast(1)] = 5
    smoothing: Annotated[float, AtLeast(0)] = 0.2
    stop_factor: Annotated[float, Above(1)] = 4.0
    fused: bool | None = None
    confirm: bool = False
    confirm_steps: Annotated[int, AtLeast(1)] = 300

    def __post_init__(self) -> None:
        ratio = self.end_lr / self.start_lr
        if ratio < NARROWEST * (1 - 1e-9):
            least = f"task.start_lr={self.start_lr:g}, by a factor of {NARROWEST} at least"
            raise BadInput(f"end_lr={self.end_lr:g}: allowed is a number > {least}")
        decades = math.log10(ratio)
        if self.smoothing > decades * (1 + 1e-9):
            most = f"{decades:.4g}, the decades from task.start_lr to task.end_lr"
            raise BadInput(f"smoothing={self.smoothing:g}: allowed is a number from 0 to {most}")
        if self.confirm and self.seeds < 3:
            raise BadInput(f"seeds={self.seeds}: task.confirm=true needs an interval; allowed is an integer ≥ 3")


class LrRangeTest:
    """A range test, refused or ready when constructed (BadInput), then run in a directory of its own."""

    def __init__(self, composed: Composed, engine: Engine) -> None:
        self.composed = composed
        self.settings = task_settings(LrRangeTestSettings, composed.config["task"])
        for word in composed.overrides:
            group, _, key = key_of(word).partition(".")
            if group == "engine" and key in LENGTHS:
                raise BadInput(f"{word}: task=lr_range_test does not use it; its length is task.num_iter")
        given = self.settings
        self.sweep = Sweep(given.start_lr, given.end_lr, given.num_iter, given.smoothing, given.stop_factor)
        self.training = template(composed.config, engine, composed.choices)
        self.amplification = effective_lr(self.training.optimizer, 1.0)

    def run(self, path: Path, command: Sequence[str], overrides: Sequence[str], member: str | None = None) -> Result:
        """Test in the directory `path`; see optexp.task_record.carry_out."""
        return carry_out(self.composed, path, command, overrides, self._work)

    def _work(self, path: Path) -> Found:
        given, start = self.settings, time.perf_counter()
        for note in self.training.notes:
            say(f"note: {note}")
        seeds = seeds_for(self.training.seed, "range test", given.seeds)
        curves, why_alone = run_curves(self.training, self.sweep, seeds, given.fused, _Progress())
        advice = advise(curves, self.sweep)
        held = None
        if given.confirm and advice.middle is not None:
            fresh = seeds_for(self.training.seed, "confirm range test", given.seeds)
            held = confirm(self.training, advice.middle, fresh, given.confirm_steps, given.fused)
        how = "in one program" if why_alone is None else f"one by one: {why_alone}"
        say(f"{self._name()}: {setting(given.start_lr)} to {setting(given.end_lr)} in {given.num_iter} steps,")
        say(f"{given.seeds} seed{'s' * (given.seeds > 1)} ({how}), {duration(time.perf_counter() - start)}\n")
        self._say_answer(advice)
        if held is not None:
            _say_confirmation(held, given.confirm_steps)
        print()
        self._print_table(advice)
        print()
        self._write(path, advice)
        return Found(self._metrics(advice), self._result(advice, held, why_alone))

    def _name(self) -> str:
        choices = self.composed.choices
        return f"{choices.get('model')} on {choices.get('dataset')} with {choices.get('optimizer')}"

    # What it says ---------------------------------------------------------------------------------------------------

    def _say_answer(self, advice: Advice) -> None:
        if advice.window is None:
            say("no learning rate can be suggested:")
        else:
            low, high = advice.window
            steepest, spread = advice.means["steepest"], advice.spreads["steepest"]
            verb = "use a learning rate" if advice.trusted else "the rule gives learning rates"
            say(f"{verb} from {_rate(low)} to {_rate(high)}{self._effective(low, high)}")
            say(f"  a tenth to a half of the steepest descent at {_rate(steepest)}")
            if advice.trusted and spread is not None:
                most = f"up to {LARGEST_SPREAD} counts as one point"
                say(f"  seeds agree to {spread:.2f} decades (standard deviation; {most})")
            say(f"  {_compared(self.training.base_lr, low, high)}")
            say("  more steps (task.num_iter) move the point to smaller rates; short trainings often do better above")
            say(f"  the window (optexp study=range_test); {self._how_to_check()}")
            if not advice.trusted:
                say("\nDO NOT TRUST THIS SUGGESTION:")
        for problem in advice.problems:
            say(f"- {problem}")

    def _how_to_check(self) -> str:
        return "see below" if self.settings.confirm else "task.confirm=true tries it"

    def _effective(self, low: float, high: float) -> str:
        if math.isclose(self.amplification, 1.0):
            return ""
        effective = f"{_rate(low * self.amplification)} to {_rate(high * self.amplification)}"
        return f"; effective, lr·(1 − dampening)/(1 − momentum): {effective}"

    def _print_table(self, advice: Advice) -> None:
        """Print the rules side by side: one line per seed, then mean, spread, and the mean as effective rate."""
        rows: list[dict[str, Any]] = [
            {"seed": str(number), **{name: _rate(rate) for name, rate in seed.rates.items()}, "ended": _ended(seed)}
            for number, seed in enumerate(advice.seeds)
        ]
        if advice.means:
            rows.append({"seed": "geometric mean", **{name: _rate(rate) for name, rate in advice.means.items()}})
            if not math.isclose(self.amplification, 1.0):
                effective = {name: _rate(rate * self.amplification) for name, rate in advice.means.items()}
                rows.append({"seed": "as effective rate", **effective})
            spreads = {name: f"{spread:.2f}" for name, spread in advice.spreads.items() if spread is not None}
            if spreads:
                rows.append({"seed": "spread in decades", **spreads})
        columns = [
            Column("seed"),
            *(Column(name, text=str, numeric=True) for name in RULES),
            Column("ended", text=str, optional=1),
        ]
        print_table(rows, columns)
        for name, spread in advice.spreads.items():
            if name != "steepest" and spread is not None and spread > LARGEST_SPREAD:
                say(f"{name} is not to be trusted here: its answers differ by {spread:.2f} decades")

    # What it leaves -------------------------------------------------------------------------------------------------

    def _write(self, path: Path, advice: Advice) -> None:
        """Write the picture and the two tables; raises StorageError."""
        picture = path / "figures" / "lr_range_test.png"
        drawn = [seed for seed in advice.seeds if len(seed.smoothed)]
        try:
            write_atomically(path / "curves.csv", self._curves_csv(advice).encode())
            write_atomically(path / "suggestions.csv", self._suggestions_csv(advice).encode())
            if drawn:
                picture.parent.mkdir(exist_ok=True)
                figure = range_test_figure(
                    self.sweep.rates,
                    [seed.smoothed.tolist() for seed in drawn],
                    [seed.curve.losses for seed in drawn],
                    advice.means,
                    [seed.rates["steepest"] for seed in drawn if seed.falls],
                    advice.window,
                    f"{self._name()}{'' if advice.trusted else ': not to be trusted'}",
                    self.amplification,
                )
                save_png(figure, picture)
                say(f"picture: {relative(picture)}")
        except OSError as error:
            raise StorageError(f"cannot write into {path}: {error.strerror or error}") from error
        say(f"curves: {relative(path / 'curves.csv')}; suggestions: {relative(path / 'suggestions.csv')}")

    def _curves_csv(self, advice: Advice) -> str:
        rates = self.sweep.rates
        return _csv(
            ("seed", "step", "lr", "effective_lr", "loss", "smoothed_loss"),
            [
                (number, step + 1, rates[step], rates[step] * self.amplification, loss, float(seed.smoothed[step]))
                for number, seed in enumerate(advice.seeds)
                for step, loss in enumerate(seed.curve.losses)
            ],
        )

    def _suggestions_csv(self, advice: Advice) -> str:
        return _csv(
            ("seed", "rule", "lr", "effective_lr"),
            [
                (number, name, rate, rate * self.amplification)
                for number, seed in enumerate(advice.seeds)
                for name, rate in seed.rates.items()
            ],
        )

    def _metrics(self, advice: Advice) -> dict[str, float]:
        found: dict[str, float] = {}
        if advice.window is not None:
            found = {"lr/low": advice.window[0], "lr/high": advice.window[1], "lr/steepest": advice.means["steepest"]}
        spread = advice.spreads.get("steepest")
        return found if spread is None else found | {"lr/spread_decades": spread}

    def _result(self, advice: Advice, held: Confirmation | None, why_alone: str | None) -> dict[str, Any]:
        low_high = advice.window
        return {
            "trusted": advice.trusted,
            "problems": advice.problems,
            "notes": self.training.notes,
            "window": low_high,
            "window_effective": None if low_high is None else [lr * self.amplification for lr in low_high],
            "middle": advice.middle,
            "means": advice.means,
            "spreads_in_decades": advice.spreads,
            "per_seed": [
                {"rates": seed.rates, "ended": seed.curve.ended, "steps": len(seed.curve.losses)}
                for seed in advice.seeds
            ],
            "effective_over_lr": self.amplification,
            "sweep": {**asdict(self.sweep), "beta": self.sweep.beta},
            "why_one_by_one": why_alone,
            "confirmation": None if held is None else {**asdict(held), "held": held.held},
        }


class _Progress:
    """Says how far the test is, at most every few seconds."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self, done: int, of: int) -> None:
        if time.perf_counter() - self._last > SECONDS_BETWEEN_LINES:
            self._last = time.perf_counter()
            say(f"step {done} of {of}")


def _say_confirmation(held: Confirmation, steps: int) -> None:
    """Say what came of the suggestion, one line for each learning rate."""
    said = "held" if held.held else "did NOT hold"
    say(f"\nThe suggestion {said} in {steps} steps from fresh weights, at the middle of the window (validation loss):")
    rows = [
        {
            "lr": _rate(held.lr),
            "what": "suggested",
            "loss": _mean_loss(held.losses),
            "verdict": _lost(held.diverged, held.losses),
        }
    ]
    for trial, what in zip(held.others, ("a third", "three times"), strict=True):
        rows.append({"lr": _rate(trial.lr), "what": what, "loss": _mean_loss(trial.losses), "verdict": _verdict(trial)})
    print_table(
        rows,
        [
            Column("lr", text=str, numeric=True),
            Column("what", " "),
            Column("loss", "mean loss", str, True),
            Column("verdict", " "),
        ],
    )

    if any(trial.better and trial.lr > held.lr for trial in held.others):
        say(
            "Short trainings favour large learning rates: task.confirm_steps of the length you mean to train says more."
        )


def _verdict(trial: Trial) -> str:
    if trial.diverged:
        return _lost(trial.diverged, trial.losses)
    if trial.excess is None:
        return "cannot be compared"
    low, high = trial.excess.low, trial.excess.high
    assert low is not None
    assert high is not None
    word = "better than suggested" if trial.better else "worse than suggested" if high < 0 else "not told apart"
    # The difference is that of this rate to the suggestion, so that a positive number is worse.
    return f"{word}: {-trial.excess.mean:+.4f} ({-high:+.4f} to {-low:+.4f}, 95 %, paired by seed)"


def _lost(diverged: int, losses: Sequence[float]) -> str:
    return f"diverged on {diverged} of {len(losses)} seeds" if diverged else ""


def _mean_loss(losses: Sequence[float]) -> str:
    return measured(math.fsum(losses) / len(losses))


def _ended(seed: Any) -> str:
    return ("" if seed.falls else "never falls; ") + (seed.curve.ended or "at the end of the range")


def _compared(lr: float, low: float, high: float) -> str:
    """Say where the configured learning rate lies."""
    if low <= lr <= high:
        return f"optimizer.lr={setting(lr)} lies in this window"
    side, decades = ("above", math.log10(lr / high)) if lr > high else ("below", math.log10(low / lr))
    return f"optimizer.lr={setting(lr)} lies {decades:.2g} decades {side} this window"


def _rate(lr: float) -> str:
    return setting(float(f"{lr:.2g}"))


def _csv(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return file.getvalue()
