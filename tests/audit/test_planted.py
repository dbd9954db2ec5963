"""Every planted bug is caught by the check that is made for it; the same optimizers without a bug pass."""

from __future__ import annotations

import planted
import pytest
from planted import Moments, Momentum, with_bug

from optexp.audit.audit import audit
from optexp.audit.checks import FAIL, Check
from optexp.audit.conformance import rule_checks
from optexp.audit.liveness import liveness_checks
from optexp.audit.promises import promise_checks
from optexp.audit.published import PUBLISHED
from optexp.audit.subject import Subject, configured, subject
from optexp.audit.variants import variant_checks

STEPS = 30

BY_RULE = [
    (Momentum, "sgd", planted.MOMENTUM_IGNORED, "alive: momentum"),
    (Momentum, "sgd", planted.DAMPED_FIRST, "first step"),
    (Momentum, "sgd", planted.BUFFER_OF_WEIGHTS, "zero gradient"),
    (Momentum, "sgd", planted.DECAY_IGNORED, "alive: weight_decay"),
    (Momentum, "sgd", planted.DECAY_TWICE, "rule: other settings"),
    (Momentum, "sgd", planted.LR_BAKED, "lr changes"),
    (Momentum, "sgd", planted.DECAY_EVERYWHERE, "groups: weight decay"),
    (Momentum, "sgd", planted.FIRST_GROUPS_LR, "groups: lr"),
    (Momentum, "sgd", planted.FOREACH_WITHOUT_MOMENTUM, "agrees: foreach"),
    (Momentum, "sgd", planted.NO_MAXIMIZE, "alive: maximize"),
    (Moments, "adamw", planted.BETAS_SWAPPED, "rule: quadratic"),
    (Moments, "adamw", planted.NO_BIAS_CORRECTION, "first step"),
    (Moments, "adamw", planted.BUFFER_OF_WEIGHTS, "zero gradient"),
    (Moments, "adamw", planted.DECAY_IGNORED, "alive: weight_decay"),
    (Moments, "adamw", planted.DECAY_TWICE, "rule: quadratic"),
    (Moments, "adamw", planted.DECAY_EVERYWHERE, "groups: weight decay"),
    (Moments, "adamw", planted.STATE_FORGOTTEN, "save and load"),
    (Moments, "adamw", planted.EPS_IGNORED, "alive: eps"),
]

WITHOUT_RULE = [
    (Momentum, planted.MOMENTUM_IGNORED, "alive: momentum"),
    (Momentum, planted.BUFFER_OF_WEIGHTS, "zero gradient"),
    (Momentum, planted.DECAY_IGNORED, "alive: weight_decay"),
    (Momentum, planted.LR_BAKED, "lr changes"),
    (Momentum, planted.DECAY_EVERYWHERE, "groups: weight decay"),
    (Moments, planted.STATE_FORGOTTEN, "save and load"),
]


PARTS = {"alive": liveness_checks, "agrees": lambda subject: variant_checks(subject, compiled=False)}


def right_or_wrong(kind: type, rule: str | None) -> Subject:
    return subject(configured(kind, {}), {}, PUBLISHED[rule] if rule else None)


def check_of(kind: type, rule: str | None, name: str) -> Check:
    """Return one check, and do no others than those before it in its part."""
    found = right_or_wrong(kind, rule)
    part = name.partition(":")[0]
    promises = part in ("zero gradient", "lr changes", "groups", "save and load")
    checks = PARTS.get(part, promise_checks if promises else lambda subject: rule_checks(subject, STEPS))(found)
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize(("kind", "rule"), [(Momentum, "sgd"), (Moments, "adamw"), (Momentum, None)])
def test_a_right_optimizer_passes(kind: type, rule: str | None) -> None:
    checks = {check.name: check for check in audit(right_or_wrong(with_bug(kind, None), rule), STEPS)}
    assert [name for name, check in checks.items() if check.verdict == FAIL] == []
    assert (checks["rule: quadratic"].verdict == "pass") == (rule is not None)


@pytest.mark.parametrize(("kind", "rule", "bug", "name"), BY_RULE)
def test_a_bug_is_caught_by_its_check(kind: type, rule: str, bug: str, name: str) -> None:
    check = check_of(with_bug(kind, bug), rule, name)
    assert check.verdict == FAIL, check
    assert check.step is not None
    assert check.step >= 1


@pytest.mark.parametrize(("kind", "bug", "name"), WITHOUT_RULE)
def test_a_bug_is_caught_without_a_published_rule(kind: type, bug: str, name: str) -> None:
    assert check_of(with_bug(kind, bug), None, name).verdict == FAIL


def test_a_deviation_names_its_step_and_numbers() -> None:
    """A first buffer that is dampened by 0.5 is half of what it should be; a doubled decay deviates at step 1."""
    check = check_of(with_bug(Momentum, planted.DAMPED_FIRST), "sgd", "first step")
    assert check.numbers["found"] == pytest.approx(0.5 * check.numbers["expected"])
    twice = check_of(with_bug(Moments, planted.DECAY_TWICE), "adamw", "rule: quadratic")
    assert twice.step == 1
    assert f"{twice.numbers['expected']:.9g}" in twice.explanation
