"""The rule of a verification, on ends that are made up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats

from optexp.verification.ends import RISE, SPREAD, End
from optexp.verification.judgement import judge

GUESSING = 2.3
STALLED = (2.28, 2.27, 2.29)
TRAINED = (0.21, 0.19, 0.20)


def ends(losses: Sequence[float | None], outcome: str | Sequence[str], first: float | None = None) -> list[End]:
    """Return an end for each loss; with `first`, runs whose val/loss begins there and whose lowest is 0.5."""
    outcomes = [outcome] * len(losses) if isinstance(outcome, str) else outcome
    rows = [] if first is None else [{"step": 1.0, "val/loss": first}, {"step": 2.0, "val/loss": 0.5}]
    return [
        End(seed, "completed", None, each, loss, None, GUESSING, rows)
        for seed, (loss, each) in enumerate(zip(losses, outcomes, strict=True))
    ]


def test_a_repair_that_trains_has_helped() -> None:
    found = judge(ends(STALLED, "stalled"), ends(TRAINED, "trained"))
    assert found.verdict == "helped"
    assert "all 3 seeds" in found.reason


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    found = judge(ends(STALLED, "stalled"), ends(TRAINED, "trained")).improvement
    assert found is not None
    oracle = scipy.stats.ttest_rel(STALLED, TRAINED).confidence_interval(0.95)
    assert (found.low, found.high, found.n) == (pytest.approx(oracle.low), pytest.approx(oracle.high), 3)


@pytest.mark.parametrize(
    ("after", "outcome", "reason"),
    [
        ((2.28, 2.28, 2.28), "stalled", "hardly lower"),
        ((2.20, 2.21, 2.22), "stalled", "hardly lower"),
        ((2.9, 2.8, 3.0), "stalled", "higher"),
        ((2.9, 2.2, 2.2), "stalled", "hardly lower"),
        ((2.4, 7.0, 900.0), "stalled", "higher"),  # its interval is wide, and still it has helped on no seed
        ((2.4, 7.0, 900.0), "diverged", "worse: diverged"),
        ((0.9, 0.8, 0.7), "diverged", "worse: diverged"),
    ],
)
def test_useless_and_harmful_repairs_did_not_help(after: Sequence[float], outcome: str, reason: str) -> None:
    found = judge(ends(STALLED, "stalled"), ends(after, outcome))
    assert (found.verdict, reason in found.reason) == ("did not help", True), found.reason


@pytest.mark.parametrize(
    ("after", "outcome", "reason"),
    [
        ((1.5, 1.6, 1.4), "stalled", "but the outcome is stalled"),
        (TRAINED, ("trained", "stalled", "stalled"), "but the outcome is stalled or trained"),
        (TRAINED, ("trained", "trained", "diverged"), "but the outcome is diverged or trained"),
        ((0.2, 2.3, 2.4), ("trained", "stalled", "stalled"), "differs too much"),
    ],
)
def test_what_is_neither_is_undecided(after: Sequence[float], outcome: Sequence[str], reason: str) -> None:
    found = judge(ends(STALLED, "stalled"), ends(after, outcome))
    assert (found.verdict, reason in found.reason) == ("undecided", True), found.reason


def test_worse_than_nothing_is_nothing() -> None:
    """One original ended far above the others, which says nothing about the repair: 2.3 is the loss of guessing."""
    before = (2.4, 2.25, 70.0)
    differences = np.subtract(before, TRAINED)
    assert scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95).low < 0
    found = judge(ends(before, "diverged"), ends(TRAINED, "trained"))
    assert (found.verdict, found.improvement and found.improvement.estimate) == (
        "helped",
        pytest.approx(np.mean(np.subtract((2.3, 2.25, 2.3), TRAINED))),
    )


def test_an_original_that_is_trained_leaves_nothing_to_repair() -> None:
    found = judge(ends(TRAINED, "trained"), ends((0.1, 0.09, 0.11), "trained"))
    assert (found.verdict, "nothing to repair" in found.reason) == ("undecided", True)


def test_overfitting_is_judged_by_its_rise_and_the_loss_itself() -> None:
    before = ends((1.2, 1.1, 1.3), "overfit", first=2.3)
    assert judge(before, ends((0.62, 0.60, 0.61), "overfit", first=2.3), RISE).verdict == "helped"
    # Without a rise, but with the loss of a run that has learned nothing: all of them from 2.3 to 2.3.
    flat = [
        End(seed, "completed", None, "stalled", 2.3, None, None, [{"step": 1.0, "val/loss": 2.3}]) for seed in range(3)
    ]
    assert judge(before, flat, RISE).verdict == "did not help"


def test_an_oscillation_is_judged_by_the_spread_of_the_last_losses() -> None:
    def run(seed: int, size: float, outcome: str) -> End:
        rows = [{"step": float(step), "train/loss": 0.5 + size * (-1) ** step} for step in range(1, 101)]
        return End(seed, "completed", None, outcome, 0.5, None, None, rows)

    assert SPREAD.of(run(0, 0.1, "unstable")) == pytest.approx(0.1, rel=0.01)
    before = [run(seed, 0.1 + 0.01 * seed, "unstable") for seed in range(3)]
    assert judge(before, [run(seed, 0.01, "trained") for seed in range(3)], SPREAD).verdict == "helped"
    assert judge(before, [run(seed, 0.0, "stalled") for seed in range(3)], SPREAD).verdict == "did not help"


def test_seeds_without_a_value_do_not_count_and_one_is_too_few() -> None:
    lost = [End(seed, "failed", "out of memory", "unknown") for seed in range(2)]
    after = [*lost, *ends(TRAINED, "trained")[2:]]
    found = judge(ends(STALLED, "stalled"), after)
    assert (found.verdict, found.improvement) == ("undecided", None)
    assert "1 of 3 seeds have the val/loss of both (failed: out of memory)" in found.reason
    both = judge(ends(STALLED, "stalled"), [lost[0], *ends(TRAINED, "trained")[1:]]).improvement
    assert both is not None
    assert both.n == 2
