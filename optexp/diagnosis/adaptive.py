"""Causes in the factor of an adaptive rule."""

from __future__ import annotations

from optexp.diagnosis import repairs
from optexp.diagnosis.account import element_sizes, gradient_element
from optexp.diagnosis.candidates import Candidate, Case
from optexp.diagnosis.values import of_missing, percent
from optexp.records.numbers import measured, setting


def epsilon_too_large(case: Case) -> Candidate | None:
    """eps is larger than the root of the second moment, and the step falls short for it."""
    account = case.account
    part = account.parts.get("epsilon", 0.0) if account else 0.0
    if account is None or part == 0 or case.outcome.name not in ("slow", "stalled"):
        return None
    share, element = case.measures.average("probe/eps_share"), gradient_element(case.measures)
    evidence = [
        f"eps {setting(case.measures.number('eps'))} against gradient elements of {measured(element)}: "
        + of_missing(part, account.shortfall)
    ]
    if share is not None:
        evidence.append(f"eps exceeds the root of the second moment in {percent(share)} of the elements")
    words = repairs.whole_step(case, account) if account.dominant == "epsilon" else repairs.of_part(case, "epsilon")
    score = min(part, account.lacking + 0.3) - 0.3
    return Candidate(
        "epsilon-too-large",
        min(score, 2 * (share - 0.3)) if share is not None else score,
        tuple(evidence),
        words,
        -part,
    )


def adaptive_step_exhausted(case: Case) -> Candidate | None:
    """Adagrad's updates have shrunk against the learning rate, and the loss had not come down."""
    account, sizes = case.account, element_sizes(case.measures)
    part = account.parts.get("exhaustion", 0.0) if account else 0.0
    if account is None or part == 0 or len(sizes) < 3 or case.outcome.name not in ("slow", "stalled"):
        return None
    evidence = (
        f"an update's elements were {sizes[0][1]:.1e} of the learning rate at step {int(sizes[0][0]):,} and are "
        f"{sizes[-1][1]:.1e} of it at step {int(sizes[-1][0]):,}: {of_missing(part, account.shortfall)}",
    )
    words = repairs.whole_step(case, account)
    return Candidate("adaptive-step-exhausted", min(part, account.lacking + 0.3) - 0.3, evidence, words, -part)
