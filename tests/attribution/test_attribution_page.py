"""The page of an attribution has the answer's tables and says how the numbers were obtained."""

from __future__ import annotations

from typing import Any

import numpy as np
from made_up import exp2_answer, measured_of, plan_of

from optexp.attribution.answer import answer_of
from optexp.attribution.page import page_sections


def by_heading(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {section.get("heading", ""): section for section in page_sections(answer)}


def test_the_answer_stands_before_the_combinations() -> None:
    sections = by_heading(exp2_answer())
    assert list(sections) == [
        *("What each key brings", "Interactions", "Necessary and sufficient", "Repair", "Figure", "Combinations")
    ]
    headings, rows = sections["What each key brings"]["table"]
    assert headings[:3] == ["changed key", "share of the improvement in val/loss", "effective lr, decades"]
    assert rows[0] == ["optimizer.lr", "85.0 % (84.9 to 85.0)", "+2.0", "0.0001", "0.01"]
    assert sections["Interactions"]["table"][1][0] == ["lr × dampening", "10.0 % (10.0 to 10.0)", "0.0"]
    caption = sections["What each key brings"]["caption"]
    assert "2.00" in caption, "the whole improvement is 2.0, and 3 decades"
    assert "log10 of the effective learning rate, +3.0 in all" in caption
    assert caption.endswith("intervals over 8 seeds, 95%, BCa bootstrap, paired by seed")
    assert [row[:2] for row in sections["Necessary and sufficient"]["table"][1]] == [
        ["necessary", "{lr, dampening}"],
        ["sufficient alone", "none"],
        ["minimal sufficient", "{lr, dampening}"],
    ]
    assert sections["Repair"]["commands"] == [
        ("repaired by {lr, dampening}", "optexp experiment=exp2_sgd_B32 optimizer.lr=0.01 optimizer.dampening=0.0")
    ]
    assert sections["Combinations"]["table"][1][-1][1].startswith("0.3"), "four digits and the interval"


def test_what_is_undecided_is_called_that() -> None:
    answer = exp2_answer()
    answer["sufficient"]["optimizer.lr"] = answer["necessary"]["optimizer.dampening"] = None
    necessary, sufficient, _ = by_heading(answer)["Necessary and sufficient"]["table"][1]
    assert (necessary[1], sufficient[1]) == ("{lr}; undecided: {dampening}", "none; undecided: {lr}")


def test_lost_runs_are_told_first() -> None:
    answer = exp2_answer(rates=False)
    answer |= {"runs": {"completed": 61, "diverged": 3}, "seeds_left_out": {"4": "failed"}}
    rates, diverged, seed = page_sections(answer)[0]["notes"]
    assert rates.startswith("effective learning rate: left out")
    assert diverged.startswith("3 runs diverged")
    assert seed.startswith("seed 4 is left out")


def test_without_an_improvement_there_is_no_repair() -> None:
    noise = np.random.default_rng(0)
    answer = answer_of(plan_of(), measured_of({each: noise.normal(size=8) for each in np.ndindex(2, 2, 2)}))
    sections = by_heading(answer)
    assert list(sections) == ["", "What each key brings", "Figure", "Combinations"]
    assert sections["What each key brings"]["caption"] == ""
