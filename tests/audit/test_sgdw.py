"""A real one: SGDW of pytorch_optimizer 3.10.0 ignored momentum by default, and began its buffer with the weights."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import pytorch_optimizer
from planted import ReleasedSGDW

from optexp.audit.audit import audit
from optexp.audit.checks import FAIL, Check
from optexp.audit.published import PUBLISHED
from optexp.audit.subject import configured, subject


def checks_of(kind: type) -> dict[str, Check]:
    given = {"lr": 0.05, "momentum": 0.9}
    found = subject(configured(kind, given), given, PUBLISHED["sgd"])
    return {check.name: check for check in audit(found, 30)}


def test_sgdw_as_it_was_released_fails_where_its_authors_found_it_wrong() -> None:
    checks = checks_of(ReleasedSGDW)
    failed = {name for name, check in checks.items() if check.verdict == FAIL}
    assert {"alive: momentum", "alive: nesterov", "zero gradient", "agrees: foreach", "first step"} <= failed
    assert {"save and load", "groups: lr", "groups: weight decay", "no gradient"}.isdisjoint(failed)
    assert "ignored" in checks["alive: momentum"].explanation
    assert checks["zero gradient"].step == 1


def test_sgdw_as_it_is_now_passes() -> None:
    if tuple(int(part) for part in version("pytorch_optimizer").split(".")[:2]) < (4, 1):
        pytest.skip("an older pytorch_optimizer")
    assert [check for check in checks_of(pytorch_optimizer.SGDW).values() if check.verdict == FAIL] == []
