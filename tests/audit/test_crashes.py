"""An optimizer that crashes fails; one that says what it does not take is asked no more."""

from __future__ import annotations

import warnings
from typing import Any

import planted
import pytest
import torch

from optexp.audit.audit import audit
from optexp.audit.checks import FAIL, NOT_APPLICABLE, PASS, Check
from optexp.audit.conformance import rule_checks
from optexp.audit.liveness import liveness_checks
from optexp.audit.promises import promise_checks
from optexp.audit.subject import Subject, configured, subject
from optexp.audit.variants import variant_checks

GIVEN = {"lr": 0.05, "momentum": 0.9}


def made(kind: type, **given: Any) -> Subject:
    return subject(configured(kind, given), given)


def by_name(checks: Any) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.mark.parametrize("at", ["constructor", "step"])
def test_a_crash_with_two_groups_fails_every_check_of_groups(at: str) -> None:
    kind = type("OneGroup", (planted.OneGroup,), {"at": at, "__init__": torch.optim.SGD.__init__})
    if at == "constructor":
        kind = planted.OneGroup
    found = subject(configured(kind, GIVEN), {**GIVEN, "weight_decay": 0.0})
    checks = by_name(promise_checks(found))
    for name in ("groups: weight decay", "groups: lr"):
        assert checks[name].verdict == FAIL, checks[name]
        assert "IndexError: list index out of range" in checks[name].explanation
    assert checks["no gradient"].verdict == PASS


def test_a_crash_with_two_groups_fails_the_rule_too() -> None:
    kind = type("OneGroup", (planted.OneGroup,), {"at": "step", "__init__": torch.optim.SGD.__init__})
    check = by_name(rule_checks(made(kind, **GIVEN), 20))["rule: two groups"]
    assert (check.verdict, check.step) == (FAIL, 1)


@pytest.mark.parametrize(
    ("kind", "name", "step", "told"),
    [
        (planted.LosesState, "save and load", 6, "raises KeyError: 'momentum_buffer'"),
        (planted.NeedsGradients, "zero gradient", 1, "raises ZeroDivisionError"),
        (planted.FixedLR, "lr changes", 7, "raises RuntimeError: lr changed"),
    ],
)
def test_a_crash_where_the_settings_run_is_a_failure_that_tells_it(kind: type, name: str, step: int, told: str) -> None:
    check = by_name(promise_checks(made(kind, **GIVEN)))[name]
    assert (check.verdict, check.step) == (FAIL, step), check
    assert told in check.explanation


def test_a_refusal_of_groups_that_is_told_is_no_failure() -> None:
    checks = by_name(promise_checks(made(planted.SaysOneGroup, lr=0.1)))
    assert checks["groups: lr"].verdict == NOT_APPLICABLE
    assert "doesn't support per-parameter options" in checks["groups: lr"].explanation


def test_a_step_that_crashes_with_an_argument_that_was_accepted_fails() -> None:
    found = made(planted.CrashesWithMomentum)
    check = by_name(liveness_checks(found))["alive: momentum"]
    assert (check.verdict, check.step) == (FAIL, 1)
    assert "KeyError: 'momentum' (with momentum=0.5)" in check.explanation
    assert by_name(variant_checks(found, compiled=False))["agrees: in a run"].verdict == FAIL


def test_a_first_step_that_names_the_argument_it_refuses_does_not_fail() -> None:
    found = made(planted.SaysWhatItRefuses)
    assert by_name(liveness_checks(found))["alive: momentum"].verdict == NOT_APPLICABLE
    assert by_name(variant_checks(found, compiled=False))["agrees: in a run"].verdict == PASS


def test_torchs_own_refusals_stay_refusals() -> None:
    """capturable=True raises at the first step on a CPU."""
    check = by_name(variant_checks(made(torch.optim.Adam, lr=0.01), compiled=False))["agrees: capturable"]
    assert check.verdict == NOT_APPLICABLE
    assert "capturable" in check.explanation


def test_weights_rounded_to_float32_are_compared_as_such() -> None:
    found = made(planted.Rounding, **GIVEN)
    assert (found.dtype, found.tolerance) == (torch.float32, 1e-3)
    assert made(torch.optim.SGD, **GIVEN).dtype == torch.float64
    checks = [*rule_checks(found, 30), *promise_checks(found)]
    assert [check for check in checks if check.verdict == FAIL] == []


def test_what_diverges_at_once_is_not_said_to_agree_and_warns_of_nothing() -> None:
    found = made(torch.optim.SGD, lr=1e60, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks = by_name(audit(found, 200))
    for name in ("rule: quadratic", "rule: sparse gradient", "rule: two groups", "lr changes", "agrees: foreach"):
        assert checks[name].verdict == NOT_APPLICABLE, checks[name]
        assert "exceed 1e+100 after step 1" in checks[name].explanation
    assert checks["rule: other settings"].verdict == NOT_APPLICABLE


def test_a_comparison_tells_the_steps_that_it_compared() -> None:
    check = by_name(rule_checks(made(torch.optim.SGD, lr=3.0, momentum=0.9), 200))["rule: two groups"]
    assert check.verdict == PASS
    assert 10 <= check.numbers["steps"] < 200
    assert f"over {check.numbers['steps']} of 200 steps" in check.explanation


def test_a_constructor_of_its_own_leaves_the_rule_of_the_base_class() -> None:
    found = subject(configured(planted.SaysOneGroup, {"lr": 0.1}), {"lr": 0.1})
    assert found.published is None
