"""Studies are read whole, or refused in one line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from optexp.errors import BadInput
from optexp.studies.study import factor_effects, read_studies, read_study, read_study_text, study_files

GOOD = """
question: Does it train?
claim: [C1]
source: "000"
limits: One small network.
seeds: 3
common: [model=mlp]
arms: {one: [optimizer=sgd], other: [optimizer=adam]}
tune: {seeds: 1, keys: {optimizer.lr: [0.1, 0.01]}}
measures: {accuracy: {of: val/accuracy, take: last}}
answers:
  better:
    statement: one is better
    effect: one.accuracy - other.accuracy
    unit: accuracy
    supported_if: above
    smallest: 0.01
    if_supported: Yes.
    if_refuted: No.
    if_inconclusive: Who knows.
"""


def changed(path: str, value: object) -> str:
    """Return the good study with one value, by the path of its keys, set or (None) removed."""
    node = yaml.safe_load(GOOD)
    *parents, last = path.split("/")
    inner = node
    for key in parents:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return yaml.safe_dump(node)


def test_a_study_is_read() -> None:
    study = read_study_text("it", GOOD)
    assert study.compared == {"one": ["optimizer=sgd"], "other": ["optimizer=adam"]}
    assert study.tune is not None
    assert study.answers["better"].effect == "one.accuracy - other.accuracy"
    assert study.tune.grid("one") == [["optimizer.lr=0.1"], ["optimizer.lr=0.01"]]
    expression = study.expression("one.accuracy - other.accuracy")
    assert expression.value({("one", "accuracy"): 0.75, ("other", "accuracy"): 0.5}) == 0.25


def test_factors_make_all_combinations_in_order() -> None:
    node = yaml.safe_load(changed("arms", None))
    node["factors"] = {name: {"from": [f"{name}=0"], "to": [f"{name}=1"]} for name in ("a", "b")}
    del node["tune"]
    node["answers"]["better"]["effect"] = "main(a, accuracy)"
    node["effects_on"] = ["accuracy", "log10(accuracy)"]
    study = read_study_text("it", yaml.safe_dump(node, sort_keys=False))
    assert study.compared == {"none": ["a=0", "b=0"], "b": ["a=0", "b=1"], "a": ["a=1", "b=0"], "a_b": ["a=1", "b=1"]}
    expression = study.expression("main(a, accuracy)")
    numbers = {(arm, "accuracy"): value for arm, value in zip(study.compared, (1.0, 2.0, 5.0, 8.0), strict=True)}
    assert expression.value(numbers) == 6.5 - 1.5
    effects = factor_effects(study)
    assert {measure: list(of) for measure, of in effects.items()} == {
        "accuracy": [("a",), ("b",), ("a", "b")],
        "log10(accuracy)": [("a",), ("b",), ("a", "b")],
    }
    assert effects["accuracy"]["a", "b"].value(numbers) == ((8 - 2) - (5 - 1)) / 2
    assert effects["log10(accuracy)"]["b",].value(numbers) == pytest.approx(math.log10(2 * 8 / 5) / 2)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("question", "It trains.", "question=It trains.: allowed is a sentence that ends in a question mark"),
        ("limits", None, "limits is missing"),
        ("arm", {}, r"arm=\{\}: no such key \(did you mean 'arms'\?\); there are name, text, question"),
        ("seeds", -1, r"seeds=-1: allowed is an integer ≥ 0"),
        ("seeds", 0, "seeds=0: arms need seeds"),
        ("common", ["mlp"], "mlp: allowed is an override word key=value"),
        ("common", ["seed=3"], "seed=3: a study sets the seeds itself"),
        (
            "arms/lambda",
            ["model=mlp"],
            "lambda: names of arms, factors and measures are letters, digits and underscores",
        ),
        ("measures/accuracy/take", "median", r"measures\.accuracy: take=median: allowed is one of last, first"),
        ("measures/accuracy/value", 3, r"measures\.accuracy: value=3: take=last takes none"),
        ("answers/better/smallest", "much", r"answers\.better: smallest=much: allowed is a finite number"),
        ("answers/better/effect", "one.loss", r"answers\.better: .*one\.loss"),
        ("answers/better/effect", "__import__('os')", r"answers\.better: "),
        ("answers/better/effect", None, r"answers\.better: allowed is either effect or probe"),
        ("answers/better/probe", "state_per_parameter", r"answers\.better: allowed is either effect or probe"),
        ("answers/better/interval", "exact", r"interval=exact: runs vary with their seeds"),
        ("answers/better/interval", "bootstrap", r"interval=bootstrap: needs at least 8 seeds; here are 3"),
        ("answers", {}, "answers: there is none"),
        ("tune/arms", {"third": {}}, r"tune\.arms\.third: no such arm; there are one, other"),
        (
            "tune/arms",
            {"one": {"optimizer.lr": [1]}},
            "arms must get the same number of combinations; here one 1, other 2",
        ),
        ("factors", {"a": {"from": [], "to": []}}, "factors: excludes arms"),
        ("effects_on", ["accuracy"], r"effects_on=\['accuracy'\]: needs factors"),
    ],
)
def test_a_mistake_is_named(path: str, value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        read_study_text("it", changed(path, value))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("study/it.yaml: ")


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    for text in ("- 1", "a: [", "\x00"):
        file = tmp_path / "it.yaml"
        file.write_text(text)
        with pytest.raises(BadInput, match=r"^study/it\.yaml: "):
            read_study(file)


def test_unknown_names_are_refused_and_own_studies_found(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"study=exp1_vs_exp: no such study \(did you mean 'exp1_vs_exp2'\?\)"):
        read_studies(["exp1_vs_exp"])
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text(GOOD)
    assert [study.name for study in read_studies(["mine", "mine"], str(tmp_path))] == ["mine"]


@pytest.mark.parametrize("name", study_files())
def test_a_shipped_study_keeps_its_promises(name: str) -> None:
    """Fixed rules, a limit of what it shows, and sentences without the numbers that only a run can give."""
    [study] = read_studies([name])
    assert study.claim
    assert all(claim.startswith("C") for claim in study.claim)
    assert len(study.limits) > 40
    if study.seeds:
        assert study.seeds >= 8
    for answer in study.answers.values():
        assert answer.interval != "bootstrap"  # with 8 seeds it supports a null too often
        for text in (answer.if_supported, answer.if_refuted, answer.if_inconclusive):
            assert text.endswith(".")
