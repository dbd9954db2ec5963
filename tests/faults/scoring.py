"""How good diagnoses of known faults are: confusion, precision, recall, accuracy, false alarms, reliability."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from scipy.stats import binomtest

NOTHING = "nothing"
"""Stands for a diagnosis without findings, and for the cause of a healthy run."""


@dataclass(frozen=True)
class Answer:
    """What was planted in a run, and what the diagnosis said of it.

    `cause` is None for a healthy run; `right` holds all causes that count as right, `part` those that are right behind
    one of these. `findings` are (cause, confidence, decades) in the order of the diagnosis; `decades` is the true
    distance of the step from a good one, where that is what was planted.
    """

    cause: str | None
    right: frozenset[str]
    findings: tuple[tuple[str, float, float | None], ...]
    decades: float | None = None
    part: frozenset[str] = frozenset()

    @property
    def first(self) -> str:
        """The cause that was found first."""
        return self.findings[0][0] if self.findings else NOTHING

    @property
    def is_right(self) -> bool:
        """Whether the first finding is right; of a healthy run, whether there is none."""
        return self.first in self.right if self.cause else not self.findings


@dataclass(frozen=True)
class Share:
    """How many of how many, with the 95 % interval of Wilson (J. Am. Stat. Assoc. 22, 1927); 0 of 0 has none."""

    hits: int
    of: int

    @classmethod
    def among(cls, hits: Iterable[bool]) -> Share:
        """Count them."""
        every = list(hits)
        return cls(sum(every), len(every))

    @property
    def value(self) -> float | None:
        """The share, or None of nothing."""
        return self.hits / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The lower and the upper end."""
        if not self.of:
            return None
        found = binomtest(self.hits, self.of).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def confusion(answers: Sequence[Answer]) -> dict[tuple[str, str], int]:
    """Return how many runs of each (true cause, first finding) there are."""
    counts: dict[tuple[str, str], int] = {}
    for answer in answers:
        pair = (answer.cause or NOTHING, answer.first)
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def precision(answers: Sequence[Answer], cause: str) -> Share:
    """Return in how many of the runs in which a cause is the first finding it is right."""
    return Share.among(cause in answer.right for answer in answers if answer.first == cause)


def recall(answers: Sequence[Answer], cause: str) -> Share:
    """Return in how many of the runs in which a cause was planted the first finding is right."""
    return Share.among(answer.is_right for answer in answers if answer.cause == cause)


def top(answers: Sequence[Answer], first: int) -> Share:
    """Return in how many of the faulty runs one of the `first` findings is right."""
    faulty = [answer for answer in answers if answer.cause]
    return Share.among(any(found[0] in answer.right for found in answer.findings[:first]) for answer in faulty)


def false_alarms(answers: Sequence[Answer]) -> Share:
    """Return in how many of the healthy runs anything was found."""
    return Share.among(bool(answer.findings) for answer in answers if not answer.cause)


@dataclass(frozen=True)
class Bin:
    """Findings whose confidence lies in [low, high): their mean confidence, and how many of them are right."""

    low: float
    high: float
    confidence: float | None
    right: Share


def reliability(answers: Sequence[Answer], edges: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)) -> list[Bin]:
    """Return for bins of confidence how often a finding is right: every finding of every run, the healthy ones too.

    The last bin holds confidence 1, too; the first one all that is below its upper edge.
    """
    stated = [
        (confidence, cause in answer.right | answer.part)
        for answer in answers
        for cause, confidence, _ in answer.findings
    ]
    bins = []
    for place, (low, high) in enumerate(pairwise(edges)):
        within = [
            (confidence, hit)
            for confidence, hit in stated
            if (place == 0 or confidence >= low) and (place == len(edges) - 2 or confidence < high)
        ]
        mean = fmean(confidence for confidence, _ in within) if within else None
        bins.append(Bin(low, high, mean, Share.among(hit for _, hit in within)))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Return the mean distance between confidence and share of right findings, weighted by the number of findings.

    Source: "expected calibration error" of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    total = sum(each.right.of for each in bins)
    if not total:
        return None
    return sum(abs(each.confidence * each.right.of - each.right.hits) for each in bins if each.confidence) / total


@dataclass(frozen=True)
class DecadeErrors:
    """How far estimated decades are from the true ones: `within` half a decade, median and largest distance."""

    within: Share
    median: float | None
    largest: float | None


def decade_pairs(answers: Sequence[Answer], cause: str) -> list[tuple[float, float]]:
    """Return (true, estimated) decades of the runs in which a cause was planted and found first.

    Decades are those of the step in all: a finding that names a part of it only is not asked for them.
    """
    return [
        (answer.decades, estimate)
        for answer in answers
        if answer.cause == cause == answer.first and answer.decades is not None
        for estimate in (answer.findings[0][2],)
        if estimate is not None
    ]


def decade_errors(answers: Sequence[Answer], cause: str) -> DecadeErrors:
    """Return the errors of the decades of `decade_pairs`."""
    errors = [abs(estimate - true) for true, estimate in decade_pairs(answers, cause)]
    if not errors:
        return DecadeErrors(Share(0, 0), None, None)
    return DecadeErrors(Share.among(error <= 0.5 for error in errors), median(errors), max(errors))
