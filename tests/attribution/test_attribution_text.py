"""The answer in words, tables, CSV and a picture says what is in it."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from made_up import exp2_answer, measured_of, plan_of

from optexp.attribution.answer import answer_of, main_numbers
from optexp.attribution.text import (
    combination_table,
    combinations_csv,
    headline,
    interactions_csv,
    key_table,
    keys_csv,
    pair_table,
    print_answer,
    remarks,
    set_name,
)
from optexp.records.console import program
from optexp.report.figures.attribution import attribution_figure
from optexp.report.figures.style import save_png


def test_the_sentence() -> None:
    """The game's Shapley values are 0.85 and 0.15: half of 0.8 + (1 − 0.1), and of 0.1 + (1 − 0.8)."""
    text = headline(exp2_answer())
    assert text.startswith("decades of effective learning rate: lr +2.0, dampening +1.0, weight_decay 0.0; ")
    assert "of the improvement in val/loss 85.0 % (84.9 to 85.0) is lr's, 15.0 % (15.0 to 15.1)" in text
    assert text.endswith("minimal sufficient: {lr, dampening}")


def test_the_numbers() -> None:
    answer = exp2_answer()
    assert answer["necessary"] == {
        "optimizer.lr": True,
        "optimizer.dampening": True,
        "optimizer.weight_decay": False,
    }
    assert set(answer["sufficient"].values()) == {False}
    [minimal] = answer["minimal_sets"]
    assert (minimal["keys"], minimal["doubts"]) == (["optimizer.lr", "optimizer.dampening"], [])
    assert main_numbers(answer)["decades/optimizer.lr"] == pytest.approx(2)
    pairs = {tuple(pair["keys"]): pair["share"]["estimate"] for pair in answer["shares"]["interactions"]}
    assert pairs["optimizer.lr", "optimizer.dampening"] == pytest.approx(0.1, abs=0.01), "1 − 0.8 − 0.1"
    recovered = [each["recovered"]["estimate"] for each in answer["combinations"]]
    assert recovered == pytest.approx([0, 0, 0.1, 0.1, 0.8, 0.8, 1, 1], abs=0.01)


def test_a_recovery_of_four_fifths_may_be_enough() -> None:
    answer = exp2_answer(recovery=0.7)
    assert headline(answer).endswith("minimal sufficient: {lr}")
    assert answer["sufficient"]["optimizer.lr"] is True
    assert answer["necessary"]["optimizer.dampening"] is False


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    answer = exp2_answer()
    rows, _ = key_table(answer)
    assert (rows[0]["failing"], rows[0]["working"], rows[0]["decades"]) == ("0.0001", "0.01", "+2.0")
    assert [row["necessary"] for row in rows] == ["yes", "yes", "no"]
    assert pair_table(answer)[0][0]["pair"] == "lr × dampening"
    rows, _ = combination_table(answer)
    assert [row["verdict"] for row in rows] == ["does not"] * 6 + ["repairs"] * 2
    print_answer(answer)
    out = capsys.readouterr().out
    assert (
        f"repaired by {{lr, dampening}}: {program('optexp')} experiment=exp2_sgd_B32 optimizer.lr=0.01 "
        "optimizer.dampening=0.0" in out
    )
    assert "all 8 combinations on the same 8 seeds" in out


def test_an_interaction_is_explained_where_there_are_pairs() -> None:
    """The definition in words: with the other keys as they are, v(both) − v(one) − v(other) + v(none), averaged."""
    (said,) = [line for line in remarks(exp2_answer()) if line.startswith("interaction of a pair: ")]
    assert "what changing both brings beyond the sum of what each brings alone" in said
    answer = exp2_answer()
    answer["shares"]["interactions"] = answer["decades"]["interactions"] = None
    assert not any("interaction of a pair" in line for line in remarks(answer))


def test_where_rates_are_unknown_a_line_says_why() -> None:
    answer = exp2_answer(rates=False)
    assert answer["decades"] is None
    assert headline(answer).startswith("of the improvement in val/loss")
    assert remarks(answer)[0].startswith("effective learning rate: left out")
    assert "decades" not in key_table(answer)[0][0]


def test_rates_that_are_missing_or_not_measured_are_told() -> None:
    """Four combinations of the first key diverge on a seed each before a probe; then all of an Adam have no rate."""
    answer = exp2_answer()
    for each in answer["combinations"][4:]:
        each["rates_from"] = {"probes": 7, "settings": 1}
    answer["rates_from"] = {"probes": 60, "settings": 4}
    assert remarks(answer)[0].startswith("effective learning rate from settings: 4 of 64 runs ended before a probe")
    marked = [row["rate"].endswith(" (from settings)") for row in combination_table(answer)[0]]
    assert marked == [False] * 4 + [True] * 4
    answer = exp2_answer(rates=False)
    answer["rates_from"] = {"probes": 63, "not logged": 1}
    assert remarks(answer)[0] == (
        "effective learning rate: left out, because 1 of 64 runs ended before a step with one was logged"
    )
    answer["rates_from"] = {"probes": 32, "not of the SGD type": 32}
    assert remarks(answer)[0].endswith("left out, because an optimizer that is not of the SGD type has none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (1.2, "exp2_sgd_B32_fixed is worse by 1.2000 (1.1925 to 1.2075)"),
        (-0.002, "exp2_sgd_B32_fixed is better by 0.0020 (−0.0055 to 0.0095)"),
    ],
)
def test_a_change_for_the_worse_is_called_that(change: float, said: str) -> None:
    noise = np.array([-0.01, 0.01] * 4)
    values = {each: 1.0 + change * each[0] + noise * each[0] for each in np.ndindex(2, 2, 2)}
    found = headline(answer_of(plan_of(), measured_of(values)))
    assert found == f"no improvement in val/loss to attribute: {said}"


def test_without_an_improvement_nothing_is_shared_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    answer = answer_of(plan_of(), measured_of({each: noise.normal(size=8) for each in np.ndindex(2, 2, 2)}))
    assert not answer["attributable"]
    assert answer["shares"] is answer["minimal_sets"] is answer["necessary"] is None
    assert "no improvement in val/loss to attribute" in headline(answer)
    print_answer(answer)
    assert "no improvement" in capsys.readouterr().out
    save_png(attribution_figure(answer), tmp_path / "picture.png")
    assert "share" not in keys_csv(answer)


def test_accuracy_is_better_when_higher() -> None:
    values = {each: np.linspace(0.1, 0.12, 8) + 0.8 * each[0] for each in np.ndindex(2, 2, 2)}
    answer = answer_of(plan_of(metric="val/accuracy"), measured_of(values))
    assert answer["improvement"]["estimate"] == pytest.approx(0.8)
    assert answer["shares"]["keys"][0]["share"]["estimate"] == pytest.approx(1)


def test_sets_of_many_keys_are_told_by_what_is_missing() -> None:
    answer = {"keys": [{"key": f"optimizer.{name}", "name": name} for name in "abcdef"]}
    assert set_name(answer, [f"optimizer.{name}" for name in "ab"]) == "{a, b}"
    assert set_name(answer, [f"optimizer.{name}" for name in "abcde"]) == "all but {f}"
    assert set_name(answer, [f"optimizer.{name}" for name in "abcdef"]) == "all"
    assert set_name(exp2_answer(), ["optimizer.lr", "optimizer.dampening"]) == "{lr, dampening}"


def test_csv() -> None:
    answer = exp2_answer()
    rows = list(csv.DictReader(io.StringIO(combinations_csv(answer))))
    assert len(rows) == 64
    assert (rows[-1]["optimizer.lr"], rows[0]["optimizer.lr"]) == ("working", "failing")
    assert float(rows[-1]["val/loss"]) == answer["combinations"][-1]["per_seed"][-1]
    keys = list(csv.DictReader(io.StringIO(keys_csv(answer))))
    assert [row["key"] for row in keys] == ["optimizer.lr", "optimizer.dampening", "optimizer.weight_decay"]
    assert float(keys[0]["share"]) == pytest.approx(0.85, abs=0.01)
    assert float(keys[0]["decades"]) == pytest.approx(2)


def test_csv_of_interactions() -> None:
    """lr and dampening need each other by 1 − 0.8 − 0.1 of the improvement; of the rates they need nothing."""
    answer = exp2_answer()
    rows = list(csv.DictReader(io.StringIO(interactions_csv(answer) or "")))
    names = ("optimizer.lr", "optimizer.dampening", "optimizer.weight_decay")
    assert [(row["key"], row["other"]) for row in rows] == list(itertools.combinations(names, 2))
    low, share, high = (float(rows[0][name]) for name in ("share_low", "share", "share_high"))
    assert low < share < high
    assert share == pytest.approx(0.1, abs=0.01)
    assert float(rows[0]["decades"]) == pytest.approx(0, abs=1e-9)
    answer["shares"]["interactions"] = answer["decades"]["interactions"] = None
    assert interactions_csv(answer) is None


def test_the_picture_has_a_bar_for_each_key_and_a_column_for_each_combination() -> None:
    answer = exp2_answer()
    shares, decades, metric, matrix = attribution_figure(answer).axes
    assert [bar.get_width() for bar in shares.patches] == pytest.approx(
        [100 * key["share"]["estimate"] for key in answer["shares"]["keys"]]
    )
    assert [bar.get_width() for bar in decades.patches] == pytest.approx([2, 1, 0], abs=1e-9)
    means = [line.get_ydata()[0] for line in metric.lines if line.get_marker() == "D" and len(line.get_ydata())]
    assert len(means) == 8
    assert means[0] == pytest.approx(answer["combinations"][0]["metric"]["estimate"])
    taken = [len(line.get_xdata()) for line in matrix.lines if line.get_marker() == "o"]
    assert taken == [4, 4] * 3, "each key is taken by half of the combinations"
    assert [text.get_text() for text in matrix.get_yticklabels()] == ["lr", "dampening", "weight_decay"]
