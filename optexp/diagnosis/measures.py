"""The numbers that outcome and causes are judged by, each made once from the rows of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optexp.diagnosis.curves import Curve
from optexp.diagnosis.history import History
from optexp.diagnosis.trend import FEWEST, Trend

LATE = 0.1
"""Share of the run whose mean counts as its end, where the curves are long enough."""

WHOLE_STEP = 0.01
"""Update ratio above which a step carries no further: it is noise or a jump."""

TEXT_FLOOR = 0.4
"""Share of the entropy of single tokens that is left however much of the text before them is known.

From C. Shannon, "Prediction and Entropy of Printed English", 1951: 1.3 bits per letter at most with 100 letters known,
4.0 with none; more where less is known, as by a small model.
"""


@dataclass(frozen=True)
class Measures:
    """What the rows say, as numbers without units wherever possible. None where it was not recorded."""

    history: History

    def curve(self, tag: str) -> Curve:
        return Curve.of(self.history.rows, tag)

    @cached_property
    def train(self) -> Curve:
        """The training loss, means over the steps since the row before."""
        return self.curve("train/loss")

    @cached_property
    def val(self) -> Curve:
        return self.curve("val/loss")

    @cached_property
    def steps(self) -> int:
        """Optimizer steps done, as far as logged."""
        return int(max((row["step"] for row in self.history.rows), default=0))

    @property
    def total(self) -> int:
        """Optimizer steps planned, or done where no plan is known."""
        return self.history.total_steps or self.steps

    @cached_property
    def reference(self) -> float | None:
        """The loss of knowing nothing about the inputs: the baseline, or where that is unknown the first loss."""
        return self.history.baseline or self.train.first

    @cached_property
    def loss_end(self) -> float | None:
        """Mean training loss of the last tenth of the steps, at least two rows."""
        late = self.train.between(self.steps * (1 - LATE), self.steps)
        return late.mean() if len(late) >= 2 else Curve(self.train.steps[-2:], self.train.values[-2:]).average()

    @cached_property
    def tenths(self) -> list[float]:
        """Mean training loss of each tenth of the run that has rows."""
        parts = (self.train.between(self.steps * i / 10, self.steps * (i + 1) / 10).mean() for i in range(10))
        return [part for part in parts if part is not None]

    @cached_property
    def tenth_rows(self) -> list[tuple[float, ...]]:
        """The training losses of each tenth of the run that has rows."""
        parts = (self.train.between(self.steps * i / 10, self.steps * (i + 1) / 10).values for i in range(10))
        return [part for part in parts if part]

    def share(self, loss: float | None) -> float | None:
        """Return a loss as a share of the reference: 1 is nothing learned, 0 all there is to learn (see TEXT_FLOOR)."""
        if loss is None or not self.reference or self.reference <= 0:
            return None
        floor = TEXT_FLOOR if self.history.objective == "language" else 0.0
        return max((loss / self.reference - floor) / (1 - floor), 0.0)

    @cached_property
    def level(self) -> float | None:
        """The training loss at the end as a share of the reference."""
        return self.share(self.loss_end)

    @cached_property
    def distance(self) -> float | None:
        """How far the run is from having learned: the larger level of training and validation loss at the end."""
        return max((level for level in (self.level, self.share(self.val.last)) if level is not None), default=None)

    @cached_property
    def lowest_late(self) -> float | None:
        """The lowest level the loss reached in the second half: tenths of training, and validation."""
        half = self.val.between(self.steps / 2, self.steps).values
        return self.share(min([*self.tenths[len(self.tenths) // 2 :], *half], default=None))

    @cached_property
    def lr_kept(self) -> float | None:
        """The last learning rate as a share of the highest."""
        return self.lr.values[-1] / max(self.lr.values) if len(self.lr) and max(self.lr.values) > 0 else None

    @cached_property
    def active(self) -> tuple[float, float]:
        """The steps between which the learning rate did the last two fifths of its work (Σ lr), but for 2 %."""
        work, done = math.fsum(self._work.values()), 0.0
        marks: list[float] = []
        if work <= 0:
            return self.steps * 0.6, float(self.steps)
        for step, share in self._work.items():
            done += share / work
            if done > 0.6 and not marks:
                marks.append(step)
            if done > 0.98:
                break
        return (marks[0] if marks else 0.0), step

    @cached_property
    def _work(self) -> dict[float, float]:
        """The learning rate times the steps since the row before, of each row."""
        gaps = (later - earlier for earlier, later in zip((0.0, *self.lr.steps), self.lr.steps, strict=False))
        return {step: gap * lr for step, gap, lr in zip(self.lr.steps, gaps, self.lr.values, strict=True)}

    @cached_property
    def late_trend(self) -> Trend | None:
        """The straight line through the training loss of the last part of the run in which the step was not zero.

        Where that part has fewer rows than a line takes, more of those before it are taken: a short run has few.
        """
        start, end = self.active
        part = self.train.between(start, end)
        return (part if len(part) >= FEWEST else self.train.between(0, end).tail(FEWEST)).trend()

    @cached_property
    def update(self) -> Curve:
        return self.curve("optim/update_ratio")

    @cached_property
    def path(self) -> float | None:
        """Σ ‖Δw‖/‖w‖ over the steps: how far the weights could have moved, relative to their size.

        A step counts for no more than `WHOLE_STEP`: a single jump at the start is no way travelled.
        """
        mean = Curve(self.update.steps, tuple(min(size, WHOLE_STEP) for size in self.update.values)).mean_of_samples()
        return None if mean is None else mean * self.steps

    @cached_property
    def early_update(self) -> float | None:
        """Median update ratio of the first tenth of the run (at least three rows, without the very first)."""
        early = self.update.between(1, max(self.steps / 10, 1))
        rows = early if len(early) >= 3 else Curve(self.update.steps[1:4], self.update.values[1:4])
        return rows.median() if len(rows) else self.update.median()

    @cached_property
    def weight_growth(self) -> float | None:
        """log10 of the last weight norm over the first."""
        weights = self.curve("optim/weight_norm")
        if len(weights) < 2 or weights.values[0] <= 0 or weights.values[-1] <= 0:
            return None
        return math.log10(weights.values[-1] / weights.values[0])

    @cached_property
    def gradient(self) -> Curve:
        return self.curve("optim/grad_norm")

    @cached_property
    def lr(self) -> Curve:
        return self.curve("optim/lr")

    @cached_property
    def base_lr(self) -> float | None:
        """The learning rate before schedule and warm-up."""
        given = self.history.settings.get("lr")
        return float(given) if isinstance(given, (int, float)) and given > 0 else max(self.lr.values, default=None)

    @cached_property
    def clip_coefficient(self) -> Curve:
        """What clipping left of each gradient, in (0, 1]; made from the gradient norms where it was not recorded."""
        recorded, limit = self.curve("optim/clip_coefficient"), self.history.clip_norm
        if len(recorded) or limit is None:
            return recorded
        kept = tuple(min(1.0, limit / norm) if norm > 0 else 1.0 for norm in self.gradient.values)
        return Curve(self.gradient.steps, kept)

    @property
    def batch(self) -> float | None:
        """Independent predictions in a batch: its samples, times the root of the tokens of each, as they are alike."""
        size, length = self.history.batch_size, self.history.config.get("dataset.context_length")
        if not size or self.history.objective != "language" or not isinstance(length, int):
            return size
        return size * math.sqrt(length)

    @property
    def mixes_batches(self) -> bool:
        """Whether the rule takes the differences of gradients for curvature, and these are of different batches."""
        size, whole = self.history.batch_size, self.history.num_train
        return self.history.optimizer == "LBFGS" and size is not None and whole is not None and size < whole

    @property
    def count(self) -> int | None:
        """How many numbers are trained; all of the model's where that was not recorded."""
        return self.history.trainable or self.history.parameters

    @cached_property
    def trainable_share(self) -> float | None:
        """Numbers that are trained, as a share of all parameters."""
        trainable, parameters = self.history.trainable, self.history.parameters
        return trainable / parameters if trainable is not None and parameters else None

    def late(self, tag: str) -> float | None:
        """Return the mean of a tag over the second half of the run, or over all of it where it is rare."""
        curve = self.curve(tag)
        half = curve.between(self.steps / 2, self.steps)
        return half.average() if len(half) else curve.average()

    def average(self, tag: str) -> float | None:
        """Return the mean of a tag over all of its rows."""
        return self.curve(tag).average()

    @cached_property
    def noise_ratio(self) -> float | None:
        """Noise over signal of a gradient, tr Σ/B over ‖G‖², averaged over all probes before the ratio is taken.

        McCandlish et al., "An Empirical Model of Large-Batch Training", 2018: times the batch size it is the gradient
        noise scale, in samples. Infinite where the averaged signal is not positive.
        """
        signal, noise = self.average("probe/signal"), self.average("probe/noise")
        if signal is None or noise is None:
            return None
        return noise / signal if signal > 0 else math.inf

    @cached_property
    def layers(self) -> list[tuple[str, float]]:
        """(parameter, median log10 gradient norm) of every weight with two axes or more, in forward order."""
        names: dict[str, list[float]] = {}
        for row in self.history.rows:
            for tag, value in row.items():
                if tag.startswith("layer/") and tag.endswith("/grad_norm"):
                    names.setdefault(tag[len("layer/") : -len("/grad_norm")], []).append(value)
        found = []
        for name, values in names.items():
            positive = sorted(value for value in values if value > 0 and math.isfinite(value))
            found.append((name, math.log10(positive[len(positive) // 2]) if positive else -math.inf))
        return found

    def setting(self, name: str, default: Any = None) -> Any:
        """Return an optimizer setting."""
        return self.history.settings.get(name, default)

    def number(self, name: str) -> float:
        """Return an optimizer setting that is a number; 0 where there is none."""
        value = self.history.settings.get(name)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
