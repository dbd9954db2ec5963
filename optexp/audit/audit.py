"""All checks of an optimizer, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from optexp.audit.checks import Check
from optexp.audit.conformance import rule_checks
from optexp.audit.liveness import liveness_checks
from optexp.audit.promises import promise_checks
from optexp.audit.subject import Subject
from optexp.audit.variants import variant_checks


def audit(
    subject: Subject, steps: int, compiled: bool = False, progress: Callable[[Check], None] = lambda check: None
) -> list[Check]:
    """Run every check. `steps` is the length of the comparisons with the published rule.

    `compiled` compares torch.compile as well, which takes minutes; `progress` hears of every check as it is done.
    """
    checks = []
    for part in (
        rule_checks(subject, steps),
        promise_checks(subject),
        liveness_checks(subject),
        variant_checks(subject, compiled),
    ):
        with np.errstate(all="ignore"):  # weights that diverge are told in the verdict
            for check in part:
                checks.append(check)
                progress(check)
    return checks
