"""Causes in the course of the learning rate: warm-up, its end, and a rate too large for the end; and clipping."""

from __future__ import annotations

import math

from optexp.diagnosis import repairs
from optexp.diagnosis.candidates import Candidate, Case
from optexp.diagnosis.outcome import SWING, jumps, swing
from optexp.diagnosis.values import of_missing, percent
from optexp.records.numbers import measured, setting


def clipping_dominates(case: Case) -> Candidate | None:
    """Clipping takes most of a step that is too small."""
    account, measures = case.account, case.measures
    part = account.parts.get("clipping", 0.0) if account else 0.0
    if account is None or part == 0 or case.outcome.name not in ("slow", "stalled"):
        return None
    clipped = measures.average("optim/clipped")
    share = "" if clipped is None else f", {percent(clipped)} of the gradients are clipped"
    evidence = (
        f"clip_norm {setting(case.history.clip_norm)} leaves {percent(10**-part)} of the gradients, whose norm is "
        f"{measured(measures.gradient.median())}{share}: {of_missing(part, account.shortfall)}",
    )
    words = repairs.whole_step(case, account) if account.dominant == "clipping" else repairs.of_part(case, "clipping")
    return Candidate("clipping-dominates", min(part, account.lacking + 0.3) - 0.4, evidence, words, -part)


def warmup_too_long(case: Case) -> Candidate | None:
    """Warm-up takes up most of the run."""
    facts, measures = case.history.schedule, case.measures
    if facts is None or not facts.warmup_steps or case.outcome.name not in ("slow", "stalled"):
        return None
    share = min(facts.warmup_steps / max(measures.total, 1), 1.0)
    reached = measures.lr.mean()
    mean = (
        f"; the mean learning rate was {percent(reached / measures.base_lr)} of the base"
        if reached and (measures.base_lr)
        else ""
    )
    evidence = (f"warm-up takes {facts.warmup_steps:,} of {measures.total:,} steps, {percent(share)} of the run{mean}",)
    return Candidate("warmup-too-long", 4 * (share - 0.4), evidence, repairs.warmup(case), None)


def schedule_ended_early(case: Case) -> Candidate | None:
    """The learning rate had vanished long before the end, and the loss had not come down."""
    measures = case.measures
    idle = repairs.idle_from(case)
    if idle is None or case.outcome.name not in ("slow", "stalled") or measures.steps == 0:
        return None
    tail = 1 - idle / measures.steps
    if tail < 0.2:
        return None
    at = measures.train.between(0, idle).last
    evidence = (
        f"the learning rate was below 2 % of its highest from step {int(idle):,} on: for {percent(tail)} of the run it "
        f"was as good as zero; train/loss was {measured(at)} then and is {measured(measures.loss_end)} now",
    )
    return Candidate("schedule-ended-early", 4 * (tail - 0.3), evidence, repairs.until_the_end(case), None)


def late_oscillation(case: Case) -> Candidate | None:
    """The loss had come down and now stands or jumps about, at large steps and a rate that has hardly been lowered."""
    measures, account = case.measures, case.account
    low, kept, late = measures.lowest_late, measures.lr_kept, measures.late_trend
    if case.outcome.name not in ("unstable", "stalled") or account is None:
        return None
    if low is None or kept is None or measures.reference is None:
        return None
    restless, swings = jumps(measures), swing(measures)
    evidence = [
        f"the loss came down to {percent(low)} of what it is without learning ({measured(measures.reference)}) and no "
        f"further, at {percent(kept)} of the highest learning rate",
        f"the updates, {measured(measures.update.median())} of the weights per step, are large enough to go on",
    ]
    if restless is not None and restless > 0.05:
        evidence.append(f"in the second half it is {10**restless:.1f} times as high as its lowest level")
    if swings is not None and swings > SWING / 2:
        evidence.append(f"val/loss changes {10**swings:.1f}-fold from one evaluation to the next in the second half")
    changes = measures.late("probe/sign_changes")
    if changes is not None and changes > 0.3:
        evidence.append(f"{percent(changes)} of the updates' elements change sign from step to step")
    falling = -late.significance if late is not None else 0.0
    score = min(
        4 * math.log10(0.55 / max(low, 1e-3)),  # it had learned: the rate was good once
        3 * math.log10(max(kept, 1e-9) / 0.3),
        3 * (0.3 - account.lacking),
        max((5 - falling) / 3, 10 * ((swings or 0.0) - SWING)),  # no more progress, or none to be relied on
        4 * max((measures.weight_growth or 0.0) - 0.35, math.log10((measures.early_update or 1e-9) / 0.035)) + 0.5,
        1.0,
    )
    return Candidate("late-oscillation", score, tuple(evidence), repairs.until_the_end(case))
