"""Effects as arithmetic: against Python's own, closed forms of factorial effects, and what must be refused."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from optexp.errors import BadInput
from optexp.studies.expressions import Expression
from optexp.studies.measures import Censored

ARMS, MEASURES = ["sgd", "adam", "max"], ["loss", "speed"]
NUMBERS: dict[tuple[str, str], float | None] = {
    ("sgd", "loss"): 0.5,
    ("sgd", "speed"): 100.0,
    ("adam", "loss"): 0.2,
    ("adam", "speed"): 40.0,
    ("max", "loss"): 3.0,
    ("max", "speed"): 7.0,
}


def expression(text: str) -> Expression:
    return Expression(text, ARMS, MEASURES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sgd.loss", 0.5),
        ("sgd.loss - adam.loss", 0.5 - 0.2),
        ("-sgd.loss + 2 * adam.loss", -0.5 + 2 * 0.2),
        ("1 - 2 - sgd.loss", 1 - 2 - 0.5),
        ("(sgd.loss - adam.loss) / sgd.loss * 1e2", (0.5 - 0.2) / 0.5 * 1e2),
        ("8 / 4 / sgd.loss", 8 / 4 / 0.5),
        ("log10(sgd.speed / adam.speed)", math.log10(100 / 40)),
        ("sqrt(abs(adam.loss - sgd.loss))", math.sqrt(0.3)),
        ("min(sgd.loss, adam.loss, -1)", -1.0),
        ("max(sgd.loss, min(adam.loss, 7)) - mean(sgd.loss, adam.loss, 0.2)", 0.5 - 0.3),
        ("max.speed", 7.0),  # an arm may have the name of a function
        ("  sgd.loss\n  - adam.loss\n", 0.3),  # as YAML folds long lines
    ],
)
def test_value(text: str, value: float) -> None:
    assert expression(text).value(NUMBERS) == pytest.approx(value, rel=1e-14)


def test_names() -> None:
    effect = expression("log10(sgd.speed / adam.speed) - min(sgd.speed, 3)")
    assert effect.names() == {("sgd", "speed"), ("adam", "speed")}
    effect.names().clear()
    assert len(effect.names()) == 2


@pytest.mark.parametrize("number", [None, math.nan, math.inf])
@pytest.mark.parametrize("text", ["sgd.loss", "min(sgd.loss, 0)", "max(1, sgd.loss)", "1 / sgd.loss", "0 * sgd.loss"])
def test_what_was_not_measured_leaves_the_effect_undefined(text: str, number: float | None) -> None:
    assert expression(text).value({**NUMBERS, ("sgd", "loss"): number}) is None
    assert expression(text).value({**NUMBERS, ("adam", "loss"): number}) is not None


@pytest.mark.parametrize(
    "text",
    [
        "1 / (sgd.loss - 0.5)",
        "log10(sgd.loss - 0.5)",
        "log10(-sgd.loss)",
        "sqrt(-sgd.loss)",
        "1e308 * 1e308 * sgd.loss",
    ],
)
def test_what_has_no_finite_value_is_undefined(text: str) -> None:
    assert expression(text).value(NUMBERS) is None


def test_a_number_that_nobody_looked_for_is_an_error() -> None:
    with pytest.raises(KeyError):
        expression("sgd.loss").value({("adam", "loss"): 1.0})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sgd.loss +", "is no arithmetic"),
        ("", "is no arithmetic"),
        ("x = 1", "is no arithmetic"),
        ("sgd.loss; adam.loss", "is no arithmetic"),
        ("sgd.los", r"no measure 'los' \(did you mean 'loss'\?\); there are loss, speed"),
        ("sdg.loss", r"no arm 'sdg' \(did you mean 'sgd'\?\); there are sgd, adam, max"),
        ("sgd", "'sgd' is not allowed"),
        ("sgd.loss.real", "'sgd.loss.real' is not allowed"),
        ("sgd.loss ** 2", r"'sgd.loss \*\* 2' is not allowed"),
        ("sgd.loss % 2", "is not allowed"),
        ("sgd.loss // 2", "is not allowed"),
        ("+sgd.loss", "is not allowed"),
        ("not sgd.loss", "is not allowed"),
        ("sgd.loss > adam.loss", "is not allowed"),
        ("sgd.loss if 1 else 2", "is not allowed"),
        ("sgd.loss and 1", "is not allowed"),
        ("[sgd.loss][0]", "is not allowed"),
        ("(lambda: sgd.loss)()", "is not allowed"),
        ("(sgd.loss, 1)", "is not allowed"),
        ("sgd.loss + True", "'True' is not allowed"),
        ("sgd.loss + 1j", "'1j' is not allowed"),
        ("sgd.loss + 'a'", "is not allowed"),
        ("sgd.loss + None", "is not allowed"),
        ("sgd.loss * 1e999", "not finite"),
        ("sgd.loss * 1" + "0" * 400, "not finite"),
        ("exp(sgd.loss)", "no function 'exp'"),
        ("maxx(sgd.loss, 1)", r"no function 'maxx' \(did you mean 'max'\?\)"),
        ("__import__('os').system('true')", "is not allowed"),
        ("open(sgd.loss)", "no function 'open'"),
        ("abs(sgd.loss, 1)", "abs takes one argument, not 2"),
        ("log10()", "log10 takes one argument, not 0"),
        ("min(sgd.loss)", "min takes two arguments or more, not 1"),
        ("mean(*sgd.loss, 1)", "is not allowed"),
        ("max(sgd.loss, 1, key=1)", "is not allowed"),
        ("main(sgd, loss)", "main needs a study with factors"),
        ("1 - 0.9", "has no arm.measure"),
        ("sgd.loss\0", "allowed are"),
        ("(" * 500 + "sgd.loss" + ")" * 500, "allowed are"),
        ("-" * 30000 + "sgd.loss", "cannot be read"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as error:
        expression(text)
    message = str(error.value)
    assert message.startswith(f"effect={text[:40]!r}"[:-1])
    assert "allowed are numbers, arm.measure, + - * /, abs, log10" in message
    assert "\n" not in message
    assert len(message) < 700


# --- factorial studies: accuracy = 1 + 2 d + 4 l + 8 d l, loss = -10 w; the last factor changes fastest

FACTORS = ["d", "l", "w"]
DESIGN = ["none", "w", "l", "l_w", "d", "d_w", "d_l", "d_l_w"]


def level(arm: str, factor: str) -> int:
    return factor in arm.split("_")


FACTORIAL: dict[tuple[str, str], float | None] = {
    (arm, measure): float(value)
    for arm in DESIGN
    for measure, value in {
        "accuracy": 1 + 2 * level(arm, "d") + 4 * level(arm, "l") + 8 * level(arm, "d") * level(arm, "l"),
        "loss": -10 * level(arm, "w"),
    }.items()
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("main(d, accuracy)", 2 + 8 / 2),
        ("main(l, accuracy)", 4 + 8 / 2),
        ("main(w, accuracy)", 0),
        ("main(w, loss)", -10),
        ("interaction(d, l, accuracy)", 8 / 2),
        ("interaction(l, d, accuracy)", 8 / 2),
        ("interaction(d, w, accuracy)", 0),
        ("interaction(d, l, w, accuracy)", 0),
        ("main(w, abs(loss))", 10),
        ("main(d, sqrt(accuracy))", ((3**0.5 - 1) + (15**0.5 - 5**0.5)) / 2),
        ("interaction(d, l, sqrt(accuracy))", ((15**0.5 - 5**0.5) - (3**0.5 - 1)) / 2),
        ("min(main(d, accuracy) - main(l, accuracy), main(d, accuracy) - abs(main(w, loss)))", -4),
        ("d_l.accuracy - none.accuracy - main(d, accuracy)", 15 - 1 - 6),
    ],
)
def test_factorial_effects(text: str, value: float) -> None:
    effect = Expression(text, DESIGN, ["accuracy", "loss"], FACTORS)
    assert effect.value(FACTORIAL) == pytest.approx(value, abs=1e-12)


def test_a_factorial_effect_needs_every_arm() -> None:
    effect = Expression("main(d, accuracy)", DESIGN, ["accuracy", "loss"], FACTORS)
    assert effect.names() == {(arm, "accuracy") for arm in DESIGN}
    assert effect.value({**FACTORIAL, ("l_w", "accuracy"): None}) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("main(d)", "main takes a factor and a measure"),
        ("main(d, l, accuracy)", "main takes a factor and a measure"),
        ("main(d, d.accuracy)", "main takes a measure, or log10 of one, in the last place"),
        ("main(d, log10(d.accuracy))", "main takes a measure, or log10 of one, in the last place"),
        ("main(d, log10(accurac))", r"no measure 'accurac' \(did you mean 'accuracy'"),
        ("interaction(d, accuracy)", "interaction takes two factors or more and a measure"),
        ("interaction(d, d, accuracy)", "different factors"),
        ("main(x, accuracy)", "no factor 'x'; there are d, l, w"),
        ("main(d, accurac)", r"no measure 'accurac' \(did you mean 'accuracy'"),
        ("mian(d, accuracy)", r"no function 'mian' \(did you mean 'm"),
        ("main(d, accuracy, seed=1)", "is not allowed"),
    ],
)
def test_wrong_factorial_effects_are_refused(text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as error:
        Expression(text, DESIGN, ["accuracy", "loss"], FACTORS)
    assert str(error.value).startswith(f"effect={text!r}: ")
    assert str(error.value).endswith("interaction(factor, factor, measure), of log10(measure), too")


def test_arms_that_are_no_design_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 arms are no full design of 2 factors"):
        Expression("main(d, loss)", ["a", "b", "c"], ["loss"], ["d", "l"])


def test_reading_a_study_waits_for_neither_scipy_nor_torch() -> None:
    code = (
        "import sys, optexp.studies.expressions, optexp.studies.measures; print(*{'scipy', 'torch'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""


def test_what_nobody_reached_is_not_equal() -> None:
    effect = Expression("one.steps - other.steps", ["one", "other"], ["steps"])
    never = Censored(100)
    assert effect.value({("one", "steps"): never, ("other", "steps"): never}) is None
    assert effect.value({("one", "steps"): 60.0, ("other", "steps"): never}) == -40
