"""Causes in the size of the step: too small, too large, or dampened."""

from __future__ import annotations

import math

from optexp.diagnosis import repairs
from optexp.diagnosis.account import Account, good_update
from optexp.diagnosis.candidates import Candidate, Case
from optexp.diagnosis.values import decades, log10, percent, steps
from optexp.records.numbers import measured, setting

LARGE_UPDATE = 0.15
"""Update ratio above which the steps of a run that fails are the likely reason. A tenth is common where all is well."""

SAFE_UPDATE = 1e-2
"""Update ratio that a repair of too large a step aims at, at least: somewhat less than what is best."""


def step_too_small(case: Case) -> Candidate | None:
    """The weights could not travel far enough: Σ ‖Δw‖/‖w‖ falls short, and the learning rate itself is the reason."""
    account = case.account
    if account is None or case.outcome.name not in ("slow", "stalled") or account.rest <= 0:
        return None
    if not math.isfinite(account.shortfall):  # what is a good rate cannot be told by steps that were none
        why = " (the learning rate is 0)" if case.measures.base_lr == 0 else ""
        return Candidate("step-too-small", 1.0, (f"every update that was measured is zero{why}: nothing moves",), ())
    words = repairs.whole_step(case, account)
    missing = account.lacking - (math.fsum(account.parts.values()) if account.dominant else 0.0)
    return Candidate(
        "step-too-small",
        missing - (0.3 if case.outcome.name == "slow" else 0.45),  # where it still falls, little else can be the reason
        (*_travelled(case, account), *_shares(case, account), *_signal(case), *_effective(case)),
        words,
        -account.shortfall,
    )


def dampened_momentum(case: Case) -> Candidate | None:
    """Dampening takes (1 − dampening) of a step that is too small."""
    account = case.account
    part = account.parts.get("dampening", 0.0) if account else 0.0
    if account is None or part == 0 or case.outcome.name not in ("slow", "stalled") or account.lacking < 0.3:
        return None
    tau, momentum = case.measures.number("dampening"), case.measures.number("momentum")
    if not math.isfinite(account.shortfall):  # a learning rate of zero: nothing is left that dampening could take
        return None
    left = account.shortfall - part
    compared = " of" if round(part, 1) <= round(account.shortfall, 1) else ", more than"
    share = f"{decades(part)}{compared} the {decades(account.shortfall)}"
    rest = decades(left) if left >= 0.05 else "nothing"
    exact = _is_exact(case)
    what = "the step" if exact else f"all but the first of {case.measures.steps:,} gradients"
    evidence: tuple[str, ...] = (
        f"dampening {setting(tau)} multiplies {what} by 1 − {setting(tau)} = {setting(round(1 - tau, 12))}: "
        f"{'exactly ' if exact else ''}{share} that the step falls short; without it {rest} would be missing",
    )
    if not case.history.differing:
        evidence += (
            f"lr · (1 − dampening)/(1 − momentum) is {measured(_effective_lr(case, tau))}, with dampening 0 it is "
            f"{measured(_effective_lr(case, 0.0))} (momentum {setting(momentum)})",
        )
    words = repairs.whole_step(case, account) if account.dominant == "dampening" else repairs.of_part(case, "dampening")
    return Candidate("dampened-momentum", part - 0.05, evidence, words, -part)


def step_too_large(case: Case) -> Candidate | None:
    """The updates are a large part of the weights, or have blown them up, and the loss is worse for it."""
    measures, name = case.measures, case.outcome.name
    size = _largest_early_update(case)
    if size is None or name not in ("diverged", "unstable", "stalled", "slow"):
        return None
    if measures.mixes_batches:  # whatever the learning rate, L-BFGS jumps then: see `data.noise_dominated_batch`
        return None
    growth = measures.weight_growth or 0.0
    peak = _early_peak(case)
    scores = [log10(size / LARGE_UPDATE), 2 * (growth - 0.4)]
    if peak is not None:
        scores.append(min(6 * math.log10(peak) - 0.3, 1.5))
    bonus = {"diverged": 0.6, "stalled": 0.0, "unstable": 0.0, "slow": -0.4}[name]
    excess = log10(size / max(SAFE_UPDATE, good_update(measures)))
    much = f"{percent(size)} of" if size < 10 else f"{size:,.0f} times"
    evidence = [f"early updates change the weights by up to {much} their size per step"]
    if growth > 0.2:
        evidence.append(f"the weights grew by a factor of {10**growth:.2g}")
    if peak is not None and peak > 1.1:
        evidence.append(f"in the first three tenths of the run the training loss rose to {peak:.2g} times its start")
    alpha = measures.late("probe/alpha")
    if alpha is not None and alpha > 0:
        evidence.append(f"the steps overshoot: alpha is {alpha:+.2f} on average (0 is the floor of the valley)")
    score = max(scores) + bonus
    if case.account is not None and name != "diverged":
        score = min(score, 3 * (0.9 - case.account.lacking))
    if measures.lowest_late is not None:  # a run that has learned had a good rate, if not to the end
        score -= 4 * max(0.0, math.log10(0.6 / max(measures.lowest_late, 1e-3)))
    words = repairs.learning_rate(case, -max(excess, 0.5))
    return Candidate("step-too-large", score, tuple(evidence), words, max(excess, 0.5))


def _travelled(case: Case, account: Account) -> tuple[str, ...]:
    measures = case.measures
    mean = account.path / max(measures.total, 1)
    text = (
        f"updates of {mean:.1e} of the weights per step add up to {account.path:.1e} in {steps(measures.total)}, "
        f"where {account.needed:.2g} is needed: {decades(account.shortfall)} too small"
    )
    return (text,)


def _is_exact(case: Case) -> bool:
    """Whether dampening takes its 1 − dampening of the step, and the first gradient is not most of what is left."""
    return 1 - case.measures.number("dampening") >= 1 / case.measures.steps


def _shares(case: Case, account: Account) -> tuple[str, ...]:
    if not account.parts:
        return ()
    words = {
        "dampening": "dampening exactly {}" if _is_exact(case) else "dampening {}",
        "clipping": "clipping {}",
        "schedule": "the schedule {}",
        "epsilon": "eps {}",
        "exhaustion": "the growing sum of squares {}",
    }
    texts = [words[name].format(f"{part:.1f}") for name, part in account.parts.items()]
    return (
        f"of these {decades(account.shortfall)}: {', '.join(texts)}, the learning rate {max(account.rest, 0.0):.1f}",
    )


def _signal(case: Case) -> tuple[str, ...]:
    """Say by how much the loss could fall: effective lr · ‖G‖² per step, from the measured signal."""
    measures = case.measures
    signal, effective, loss = (
        measures.average("probe/signal"),
        measures.average("optim/effective_lr"),
        measures.loss_end,
    )
    if signal is None or effective is None or signal <= 0 or not loss or case.history.optimizer != "SGD":
        return ()
    if case.history.differing:
        return ()
    fall = effective * signal * measures.total
    if fall > 0.5 * loss:
        return ()
    return (
        f"the measured gradient (‖G‖² = {measured(signal)}) allows the loss to fall by {measured(fall)} in all "
        f"{steps(measures.total)}; it is still {measured(loss)}",
    )


def _effective(case: Case) -> tuple[str, ...]:
    if case.history.differing:  # what is logged is that of the first group
        return ()
    effective = case.measures.late("probe/effective_lr") or case.measures.average("optim/effective_lr")
    how = "measured" if case.measures.late("probe/effective_lr") else "by the settings"
    return () if effective is None else (f"the effective learning rate is {effective:.1e} ({how})",)


def _effective_lr(case: Case, dampening: float) -> float:
    base, momentum = case.measures.base_lr or math.nan, case.measures.number("momentum")
    return base * (1 - dampening) / (1 - momentum) if momentum < 1 else math.inf


def _largest_early_update(case: Case) -> float | None:
    """Return the larger of the early update ratio and the first one, as large as the like of it will be later.

    Momentum multiplies it by its long-run amplification; RMSprop's first step is 1/√(1 − alpha) times too large.
    """
    measures, rule = case.measures, case.history.optimizer
    early, first = measures.early_update, measures.update.first
    if early is None or first is None:
        return None
    factor = 1.0
    shared = {"momentum", "dampening"}.isdisjoint(case.history.differing)
    if rule in ("SGD", "RMSprop") and shared and 0 < measures.number("momentum") < 1:
        factor = (1 - measures.number("dampening")) / (1 - measures.number("momentum"))
    if rule == "RMSprop":
        factor *= math.sqrt(1 - measures.number("alpha"))
    return max(early, first * factor)


def _early_peak(case: Case) -> float | None:
    """Return the highest training loss of the first three tenths of the run, as means, over the loss at the start."""
    measures = case.measures
    if len(measures.tenths) < 4 or not measures.train.first or not measures.reference:
        return None
    return max(measures.tenths[:3]) / max(measures.train.first, measures.reference)
