"""Scores, tables and the rule of harm against examples worked out by hand."""

from __future__ import annotations

import math

import fault_tables
import numpy as np
import pytest
import scoring
from fault_fitting import logistic
from fault_tables import BEGIN, END, Outcome
from harm import Reference
from scipy.stats import binomtest
from scoring import NOTHING, Answer, Share

from optexp.errors import BadInput

SMALL, LARGE, DAMPED = "step-too-small", "step-too-large", "dampened-momentum"


def faulty(cause: str, *findings: tuple[str, float], also: str | None = None, **decades: float | None) -> Answer:
    right = frozenset([cause, also] if also else [cause])
    stated = tuple((found, confidence, decades.get("estimated")) for found, confidence in findings)
    return Answer(cause, right, stated, decades.get("true"))


ANSWERS = [
    faulty(SMALL, (SMALL, 0.9), true=-2.0, estimated=-2.3),
    faulty(SMALL, (DAMPED, 0.8), (SMALL, 0.7)),
    faulty(SMALL),
    faulty(LARGE, (LARGE, 1.0)),
    faulty(LARGE, (SMALL, 0.6), also=SMALL),
    faulty(DAMPED, (SMALL, 0.55), (LARGE, 0.5), (DAMPED, 0.5)),
    Answer(None, frozenset(), ()),
    Answer(None, frozenset(), ()),
    Answer(None, frozenset(), ((LARGE, 0.5, None),)),
]


def test_confusion() -> None:
    assert scoring.confusion(ANSWERS) == {
        (SMALL, SMALL): 1,
        (SMALL, DAMPED): 1,
        (SMALL, NOTHING): 1,
        (LARGE, LARGE): 1,
        (LARGE, SMALL): 1,
        (DAMPED, SMALL): 1,
        (NOTHING, NOTHING): 2,
        (NOTHING, LARGE): 1,
    }


def test_precision_and_recall() -> None:
    """step-too-small is first three times: right, right as the other cause of a run, and wrong."""
    assert scoring.precision(ANSWERS, SMALL) == Share(2, 3)
    assert scoring.precision(ANSWERS, LARGE) == Share(1, 2)
    assert scoring.precision(ANSWERS, DAMPED) == Share(0, 1)
    assert scoring.recall(ANSWERS, SMALL) == Share(1, 3)
    assert scoring.recall(ANSWERS, LARGE) == Share(2, 2)
    assert scoring.recall(ANSWERS, DAMPED) == Share(0, 1)
    assert scoring.recall(ANSWERS, "overfitting").value is None


def test_top_and_false_alarms() -> None:
    assert scoring.top(ANSWERS, 1) == Share(3, 6)
    assert scoring.top(ANSWERS, 2) == Share(4, 6)
    assert scoring.top(ANSWERS, 3) == Share(5, 6)
    assert scoring.false_alarms(ANSWERS) == Share(1, 3)


def test_interval_of_a_share() -> None:
    """Wilson's interval in closed form, for 8 of 10 and z = 1.96."""
    z, p, n = 1.959964, 0.8, 10
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    interval = Share(8, 10).interval
    assert interval == pytest.approx(((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)))
    assert interval == pytest.approx(tuple(binomtest(8, 10).proportion_ci(method="wilson")))
    assert Share(0, 0).interval is None


def test_reliability() -> None:
    """Confidences 0.5 wrong, wrong, right; 0.55 wrong, 0.6 right, 0.7 right, 0.8 wrong, 0.9 right, 1.0 right."""
    bins = scoring.reliability(ANSWERS, edges=(0.5, 0.6, 0.8, 1.0))
    assert [each.right for each in bins] == [Share(1, 4), Share(2, 2), Share(2, 3)]
    assert [each.confidence for each in bins] == pytest.approx([0.5125, 0.65, 0.9])
    expected = (abs(4 * 0.5125 - 1) + abs(2 * 0.65 - 2) + abs(3 * 0.9 - 2)) / 9
    assert scoring.calibration_error(bins) == pytest.approx(expected)
    assert scoring.calibration_error([]) is None


def test_a_part_of_a_fault_is_right_for_the_confidence_and_wrong_as_the_first_finding() -> None:
    answer = Answer(SMALL, frozenset([SMALL]), ((DAMPED, 0.9, None), (SMALL, 0.8, None)), part=frozenset([DAMPED]))
    assert not answer.is_right
    assert sum(each.right.hits for each in scoring.reliability([answer])) == 2


def test_decades() -> None:
    more = [*ANSWERS, faulty(SMALL, (SMALL, 0.9), true=-3.0, estimated=-2.0), faulty(SMALL, (SMALL, 0.9), true=-3.0)]
    errors = scoring.decade_errors(more, SMALL)
    assert (errors.within, errors.median, errors.largest) == (Share(1, 2), pytest.approx(0.65), pytest.approx(1.0))
    assert scoring.decade_errors(more, LARGE).median is None


def test_tables() -> None:
    shown = [Outcome("Some families", ["mlp", "resnet"], ANSWERS, {"healthy": 2})]
    text = fault_tables.page(shown, shown)
    assert text.startswith(fault_tables.page(shown, []).strip())
    assert "6 faulty and 3 healthy runs" in text
    assert "2 healthy." in text
    assert "| Some families (mlp, resnet) | 50.0 % (19 to 81, n = 6) |" in text
    assert "### Some families: mlp, resnet" in text
    assert "| 1 step-too-small | 1 | · | 1 | 1 |" in text
    assert "| 4 healthy | · | 1 | · | 2 |" in text
    assert "| step-too-small | 1/3 = 0.33 | 2/3 = 0.67 | 0.30, 0.30 | 1 of 1 |" in text


def test_the_page_keeps_what_stands_around_the_tables() -> None:
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nlast words\n"
    assert fault_tables.into_page(page, "new\n") == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nlast words\n"
    with pytest.raises(BadInput, match="--page: the page has no"):
        fault_tables.into_page("# Title\n", "new")


def test_the_limit_of_harm() -> None:
    """From 2.3 to a mean of 0.2: a tenth of the decrease is 0.21, three spreads are 0.3 where seeds differ by 0.1."""
    assert Reference.of([0.2, 0.2, 0.2], start=2.3).limit == pytest.approx(0.41)
    assert Reference.of([0.1, 0.2, 0.3], start=2.3).limit == pytest.approx(0.5)


def test_a_curve_is_found_again() -> None:
    """From many scores whose hits follow a known curve; smoothing the targets matters little then."""
    random = np.random.default_rng(0)
    scores = random.normal(size=20_000)
    hits = random.uniform(size=20_000) < 1 / (1 + np.exp(-(2.0 * scores - 0.5)))
    assert logistic(scores, hits) == pytest.approx((2.0, -0.5), abs=0.1)


def test_a_curve_stays_finite_where_scores_separate() -> None:
    slope, offset = logistic([-2.0, -1.0, 1.0, 2.0], [False, False, True, True])
    assert 0 < slope < 10
    assert abs(offset) < 1e-3
