"""What a verification prints: the numbers of its table are those that the verdict is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

import pytest

from optexp.diagnosis.history import History
from optexp.verification.arms import Prescription
from optexp.verification.budget import Budget
from optexp.verification.ends import LOSS, RISE, End, Quantity
from optexp.verification.judgement import judge
from optexp.verification.text import as_dict, print_verification
from optexp.verification.verify import Trial, Verification

GUESSING = 2.3


def ends(losses: Sequence[float], outcome: str, lowest: float | None = None) -> list[End]:
    """Return an end for each loss; with `lowest`, of runs whose val/loss was once that."""
    rows = [] if lowest is None else [{"step": 1.0, "val/loss": lowest}]
    return [End(seed, "completed", None, outcome, loss, 0.5, GUESSING, rows) for seed, loss in enumerate(losses)]


def verification(before: list[End], after: list[End], quantity: Quantity = LOSS) -> Verification:
    repair = Prescription(("made-up",), ("optimizer.lr=0.1",))
    trial = Trial(repair, None, after, judge(before, after, quantity))
    return Verification(Budget(100, 100, "made up", None), [0, 1, 2], None, before, [trial])


def printed(found: Verification, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_verification(found, History(rows=[]))
    return capsys.readouterr().out.splitlines()[1:]


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line)


def first_number(text: str) -> float:
    return float(text.split()[0])


def test_a_loss_that_counts_as_that_of_guessing_stands_so_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Means as measured are 25.0 and 0.2: their difference is not the improvement."""
    before, after = ends((2.4, 2.2, 70.4), "diverged"), ends((0.21, 0.19, 0.2), "trained")
    found = verification(before, after)
    lines = printed(found, capsys)
    heading, original, repair = (cells(line) for line in lines[:3])
    assert heading[1] == "val/loss, at most 2.3000 (95 %)"
    assert (first_number(original[1]), first_number(repair[1])) == (
        pytest.approx(fmean((2.3, 2.2, 2.3)), abs=1e-4),
        0.2,
    )
    assert original[1].endswith(" to 2.3000)"), "an interval ends where values do"
    (said,) = [line for line in lines if line.startswith("1. made-up: helped: ")]
    improvement = first_number(said.partition("improvement ")[2])
    assert improvement == pytest.approx(first_number(original[1]) - first_number(repair[1]), abs=2e-4)
    assert any(
        line.startswith("a val/loss above 2.3000, that of predicting without the inputs, counts") for line in lines
    )
    (end,) = [line for line in lines if line.startswith("verified: ")]
    assert f"val/loss {original[1]} → {repair[1]}" in end
    (tried,) = as_dict(found)["verified"]
    assert (tried["counts_at_most"], tried["before"]["val/loss"]["mean"]) == (GUESSING, pytest.approx(25.0))


def test_what_is_counted_as_it_was_measured_is_not_called_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    found = verification(ends((2.2, 2.1, 2.2), "stalled"), ends((0.21, 0.19, 0.2), "trained"))
    lines = printed(found, capsys)
    assert cells(lines[0])[1] == "val/loss (95 %)"
    assert not any("counts as" in line for line in lines)
    assert as_dict(found)["verified"][0]["counts_at_most"] is None


def test_another_quantity_has_a_column_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = ends((3.2, 3.1, 3.3), "overfit", lowest=0.5), ends((0.62, 0.6, 0.61), "overfit", lowest=0.5)
    lines = printed(verification(before, after, RISE), capsys)
    heading, original, repair = (cells(line) for line in lines[:3])
    assert heading[1:3] == ["val/loss (95 %)", "rise of val/loss from its lowest (95 %)"]
    (said,) = [line for line in lines if line.startswith("1. made-up: helped: ")]
    improvement = first_number(said.partition("improvement ")[2])
    assert improvement == pytest.approx(first_number(original[2]) - first_number(repair[2]), abs=2e-4)


def test_an_interval_without_width_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    found = verification(ends((2.4, 2.5, 2.6), "stalled"), ends((0.21, 0.19, 0.2), "trained"))
    assert cells(printed(found, capsys)[1])[1] == "2.3000"
