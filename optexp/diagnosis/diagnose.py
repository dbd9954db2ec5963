"""The diagnosis: outcome, then every cause weighed, the likely ones ranked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from optexp.diagnosis import adaptive, data, decay, network, step_size, timing
from optexp.diagnosis.account import account
from optexp.diagnosis.calibration import LIKELY, confidence
from optexp.diagnosis.candidates import Candidate, Case
from optexp.diagnosis.explaining import ranked
from optexp.diagnosis.findings import Diagnosis, Finding
from optexp.diagnosis.history import History
from optexp.diagnosis.measures import Measures
from optexp.diagnosis.outcome import Outcome, outcome

JUDGES: tuple[Callable[[Case], Candidate | None], ...] = (
    step_size.step_too_small,
    step_size.step_too_large,
    step_size.dampened_momentum,
    decay.weight_decay_too_strong,
    timing.clipping_dominates,
    network.vanishing_gradients,
    network.exploding_gradients,
    network.dead_units,
    data.overfitting,
    timing.late_oscillation,
    timing.schedule_ended_early,
    timing.warmup_too_long,
    network.frozen_parameters,
    decay.l2_coupled_to_adaptive_step,
    adaptive.adaptive_step_exhausted,
    data.noise_dominated_batch,
    data.no_signal_in_data,
    data.bad_input_scale,
    adaptive.epsilon_too_large,
)
"""One for each cause of the vocabulary."""


def diagnose(history: History) -> Diagnosis:
    """Return what happened in a run and why; pure: the same history gives the same diagnosis."""
    measures = Measures(history)
    ended = outcome(measures)
    findings = (
        Finding(each.cause, confidence(each.score), each.evidence, each.prescription, each.decades)
        for each in weighed(measures, ended)
    )
    likely = tuple(finding for finding in findings if finding.confidence >= LIKELY)
    if not likely and ended.otherwise is not None:
        ended = ended.otherwise
    return Diagnosis(ended.name, ended.summary, likely, _unknown(measures), measures.late_trend)


def scores(history: History) -> list[tuple[str, float]]:
    """Return every cause that could be judged, with the score that its confidence is made of, the likeliest first."""
    measures = Measures(history)
    return [(each.cause, each.score) for each in weighed(measures, outcome(measures))]


def weighed(measures: Measures, ended: Outcome) -> list[Candidate]:
    """Return every cause that could be judged, the likeliest first; a score is what outweighs the outcome's doubt."""
    case = Case(measures.history, measures, ended, account(measures))
    candidates = [candidate for judge in JUDGES if (candidate := judge(case)) is not None]
    return [replace(each, score=each.score - ended.doubt) for each in ranked(candidates, ended.doubt)]


def _unknown(measures: Measures) -> tuple[str, ...]:
    """Say what could not be looked at because the run did not record it."""
    tags = {tag for row in measures.history.rows for tag in row}
    missing = []
    if "optim/update_ratio" not in tags:
        missing.append("the size of the updates (optim/update_ratio)")
    if not any(tag.startswith("probe/") for tag in tags):
        missing.append("probes of successive steps (engine.probe_every)")
    if measures.history.baseline is None:
        missing.append("the loss of predicting without the inputs (the first loss stands in)")
    if measures.history.inputs is None:
        missing.append("the scale of the inputs")
    if measures.history.trainable is None:
        missing.append("how many parameters are trained")
    if differing := measures.history.differing:
        missing.append(
            f"an effective learning rate of all parameters (their groups differ in {' and '.join(differing)})"
        )
    return tuple(missing)
