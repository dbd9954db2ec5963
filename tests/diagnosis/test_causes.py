"""Outcomes and causes of histories in which they were written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from histories import LN10, falling, history

from optexp.diagnosis.account import GOOD_UPDATE
from optexp.diagnosis.causes import CAUSES
from optexp.diagnosis.diagnose import JUDGES, diagnose
from optexp.diagnosis.findings import Diagnosis
from optexp.diagnosis.history import History, ScheduleFacts
from optexp.diagnosis.outcome import OUTCOMES
from optexp.diagnosis.text import three_lines
from optexp.diagnosis.values import steps

ADAM = {"momentum": 0.0, "eps": 1e-8, "lr": 1e-3}


def flat(step: int) -> float:
    return 2.29


def causes(found: Diagnosis) -> list[str]:
    return [finding.cause for finding in found.findings]


def test_every_cause_has_a_judge() -> None:
    assert len(JUDGES) == len(CAUSES)
    assert {judge.__name__.replace("_", "-") for judge in JUDGES} == set(CAUSES)


def test_a_healthy_run_gets_nothing_to_report() -> None:
    found = diagnose(history())
    assert (found.outcome, found.findings) == ("trained", ())
    assert three_lines(found, history()) == []


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (2.30, 2.34, "The loss did not fall: "),
        (2.34, 2.30, "The loss hardly fell: "),
        (9.0, 2.30, "The loss fell to about that of predicting without the inputs, and no further: "),
    ],
)
def test_a_standstill_is_called_what_it_was(start: float, end: float, said: str) -> None:
    found = diagnose(history(loss=lambda step: start if step == 1 else end, noise=0, update=1e-5, baseline=LN10))
    assert found.outcome == "stalled"
    assert found.summary.startswith(said)


def test_the_slope_that_decides_between_slow_and_stalled_is_told() -> None:
    """A straight line is fitted exactly: 0.004 per step; one that does not fall is told of, too."""
    slow = diagnose(history(loss=lambda step: LN10 - 0.004 * step, noise=0))
    assert slow.outcome == "slow"
    assert (
        "; from step 140 to 200 train/loss falls by 0.4000 ± 0.0000 per 100 steps (± standard error)." in slow.summary
    )
    halted = diagnose(history(loss=lambda step: max(LN10 - 0.01 * step, 1.5), update=1e-5))
    assert halted.outcome == "stalled"
    assert halted.late_trend is not None
    way = "rises" if halted.late_trend.slope > 0 else "falls"
    assert f"train/loss {way} by {halted.late_trend.per_hundred_steps()} (± standard error)" in halted.summary
    assert halted.as_dict()["late_train_loss"] == halted.late_trend.as_dict()
    assert diagnose(history(10, baseline=LN10)).as_dict()["late_train_loss"] is None


@pytest.mark.parametrize(
    ("missing", "of", "rest"),
    [
        (3.0, " of the 3.0 decades", "2.0 decades"),
        (2.0, " of the 2.0 decades", "1.0 decade"),
        (1.2, " of the 1.2 decades", "0.2 decades"),
        (1.0, " of the 1.0 decade", "nothing"),
        (0.96, " of the 1.0 decade", "nothing"),
        (0.7, ", more than the 0.7 decades", "nothing"),
    ],
)
def test_what_dampening_takes_of_what_is_missing(missing: float, of: str, rest: str) -> None:
    settings = {"lr": 1e-4, "momentum": 0.9, "dampening": 0.9}
    found = diagnose(history(200, flat, update=GOOD_UPDATE * 10**-missing, settings=settings))
    (dampened,) = (finding for finding in found.findings if finding.cause == "dampened-momentum")
    said = f"exactly 1.0 decade{of} that the step falls short; without it {rest} would be missing"
    assert dampened.evidence[0] == f"dampening 0.9 multiplies the step by 1 − 0.9 = 0.1: {said}"


def test_of_a_step_of_zero_dampening_takes_nothing() -> None:
    settings = {"lr": 0.0, "momentum": 0.9, "dampening": 0.9}
    assert causes(diagnose(history(200, flat, update=0.0, settings=settings))) == ["step-too-small"]


def test_one_step_is_not_steps() -> None:
    assert (steps(1), steps(1970)) == ("1 step", "1,970 steps")


def test_without_a_cause_the_outcome_is_a_single_line() -> None:
    short = history(20, baseline=LN10)
    assert diagnose(short).outcome == "unknown"
    (line,) = three_lines(diagnose(short), short)
    assert line.startswith("unknown: Too short to judge: ")
    (line,) = three_lines(Diagnosis("slow", "The loss was still falling."), history())
    assert line == "slow: The loss was still falling. No cause stands out."


@pytest.mark.parametrize("steps", [100, 200, 800])
@pytest.mark.parametrize(
    ("lr", "momentum", "dampening", "missing"), [(1e-4, 0.9, 0.9, 3), (1e-4, 0.8, 0.5, 2.6), (1e-3, 0.9, 0.9, 2)]
)
def test_a_small_step_with_dampening(steps: int, lr: float, momentum: float, dampening: float, missing: float) -> None:
    """The effective learning rate of the repaired run is 0.1; updates are 1/38 of it, as those of exp2_sgd_B32 are."""
    effective = lr * (1 - dampening) / (1 - momentum)
    settings = {"lr": lr, "momentum": momentum, "dampening": dampening}
    found = diagnose(history(steps, flat, update=effective / 38, settings=settings))
    assert (found.outcome, causes(found)) == ("stalled", ["step-too-small", "dampened-momentum"])
    small, dampened = found.findings
    assert small.decades == pytest.approx(-missing, abs=0.5)
    assert dampened.decades == pytest.approx(math.log10(1 - dampening))
    assert any("dampening exactly" in sentence for sentence in small.evidence)
    new = dict(word.split("=") for word in small.prescription)
    assert set(new) == {"optimizer.lr", "optimizer.dampening"}
    repaired = float(new["optimizer.lr"]) * (1 - float(new["optimizer.dampening"])) / (1 - momentum)
    assert math.log10(repaired / 0.1) == pytest.approx(0, abs=0.5)


def test_dampening_comes_first_where_it_is_most_of_it() -> None:
    settings = {"lr": 1e-2, "momentum": 0.9, "dampening": 0.9}
    found = diagnose(history(loss=flat, update=10**-3.6, settings=settings))
    assert causes(found)[0] == "dampened-momentum"
    assert found.findings[0].prescription == ("optimizer.dampening=0",)


@pytest.mark.parametrize("steps", [60, 200, 800])
@pytest.mark.parametrize("dampening", [0.99, 0.999, 0.99999, 1.0])
def test_dampening_near_one_leaves_the_first_gradient_only(steps: int, dampening: float) -> None:
    """The weights travel in the first steps as far as one gradient takes them; after that they hardly move."""
    settings = {"lr": 0.05, "momentum": 0.9, "dampening": dampening}

    def update(step: int) -> float:
        return 6e-3 * max(1 - dampening, 0.9**step)

    (first,) = diagnose(history(steps, flat, update=update, settings=settings)).findings
    assert (first.cause, first.prescription) == ("dampened-momentum", ("optimizer.dampening=0",))
    assert first.decades == pytest.approx(math.log10(max(1 - dampening, 1 / steps)))
    assert ("exactly" in first.evidence[0]) == (1 - dampening >= 1 / steps)


def test_a_small_learning_rate_is_seen_behind_a_dampening_of_one() -> None:
    """Undampened, steps of 1e-4 are 6e-5 of the weights, ten times the first one: a hundredth of good ones."""
    settings = {"lr": 1e-4, "momentum": 0.9, "dampening": 1.0}
    small, dampened = diagnose(history(200, flat, update=lambda step: 6e-6 * 0.9**step, settings=settings)).findings
    assert (small.cause, dampened.cause) == ("step-too-small", "dampened-momentum")
    new = dict(word.split("=") for word in small.prescription)
    assert set(new) == {"optimizer.lr", "optimizer.dampening"}
    assert math.log10(float(new["optimizer.lr"]) / 0.01) == pytest.approx(0, abs=0.5)


CLIPPED = {"optim/clip_coefficient": 0.005, "optim/clipped": 1.0}
LAYERS = {f"layer/{i}.weight/grad_norm": 10.0 ** (-5 + i) for i in range(6)}
GROWING = {f"layer/{i}.weight/grad_norm": 10.0 ** (5 - i) for i in range(6)}


def collapsed(step: int) -> float:
    return 20 * math.exp(-step / 20) + 0.1


PLANTED: dict[str, History] = {
    "step-too-small": history(loss=flat, update=1e-6),
    "step-too-large": history(loss=lambda step: 2.6 + math.sin(step), update=0.1, weight=lambda step: 20 + step),
    "dampened-momentum": history(loss=flat, update=1e-4, settings={"momentum": 0.99, "dampening": 0.97}),
    "weight-decay-too-strong": history(
        loss=flat, weight=collapsed, gradient=0.2, settings={"weight_decay": 1.0}, every={"probe/decay_ratio": 1.0}
    ),
    "clipping-dominates": history(loss=flat, update=2e-5, clip_norm=0.005, every=CLIPPED),
    "vanishing-gradients": history(loss=flat, every=LAYERS),
    "exploding-gradients": history(loss=lambda step: 5.0, gradient=1e4, update=1e-2, every=GROWING),
    "dead-units": history(loss=flat, every={"probe/dead_units": 0.95}, update=1e-3),
    "overfitting": history(val=lambda step: 0.5 + 0.01 * step, loss=falling(LN10, 0.03)),
    "late-oscillation": history(
        800,
        lambda step: 2.3 * math.exp(-step / 30) + (0.05 if step < 300 else 0.45 + 0.25 * math.sin(step)),
        update=0.02,
        weight=lambda step: 20 + step / 15,
    ),
    "schedule-ended-early": history(loss=lambda step: max(1.2, 2.3 - step / 40), lr=lambda s: 0.01 if s < 50 else 1e-7),
    "warmup-too-long": history(
        loss=lambda step: 2.3 - (step / 200) ** 3,
        lr=lambda step: 0.01 * step / 200,
        schedule=ScheduleFacts("Constant", 200),
        update=1e-3,
    ),
    "frozen-parameters": history(loss=lambda step: 1.9 - step / 1e4, trainable=100),
    "l2-coupled-to-adaptive-step": history(
        loss=flat, optimizer="Adam", settings=ADAM | {"weight_decay": 0.1}, every={"probe/decay_ratio": 10.0}
    ),
    "adaptive-step-exhausted": history(
        loss=lambda step: 1.8 - step / 2000,
        optimizer="Adagrad",
        settings=ADAM | {"lr": 1e-2},
        update=lambda step: 0.02 / step,
    ),
    "noise-dominated-batch": history(
        loss=lambda step: 1.6, batch_size=1, every={"probe/signal": 0.001, "probe/noise": 5.0}, noise=0.1
    ),
    "no-signal-in-data": history(loss=flat, val=lambda step: 2.34),
    "bad-input-scale": history(loss=flat, inputs={"mean": 120.0, "std": 80.0, "largest": 255.0}, val=lambda s: 2.1),
    "epsilon-too-large": history(
        loss=flat, optimizer="Adam", settings=ADAM | {"eps": 1.0}, update=1.5e-5, every={"probe/eps_share": 1.0}
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_that_was_written_in_is_found(cause: str) -> None:
    found = diagnose(PLANTED[cause])
    assert found.outcome in OUTCOMES
    assert causes(found)[:1] == [cause], found
    first = found.findings[0]
    assert first.evidence
    assert 0.5 <= first.confidence < 1
    assert all(earlier.confidence >= later.confidence for earlier, later in pairwise(found.findings))
    lines = three_lines(found, PLANTED[cause])
    assert lines[0].startswith(found.outcome)
    assert cause in lines[1]
    assert len(lines) == (3 if first.prescription else 2)


def test_the_outcome_follows_from_the_curves() -> None:
    assert diagnose(history(status="diverged", reason="train/loss is nan at step 60")).outcome == "diverged"
    assert diagnose(history(loss=falling(LN10, 0.001))).outcome == "slow"
    assert diagnose(history(loss=flat)).outcome == "stalled"
    assert diagnose(history(loss=lambda step: 2.3 + step / 10)).outcome == "diverged"
    assert diagnose(PLANTED["late-oscillation"]).outcome == "unstable"
    assert diagnose(PLANTED["overfitting"]).outcome == "overfit"
    assert diagnose(History(rows=[])).outcome == "unknown"


def test_an_older_run_without_the_new_measurements_is_judged_by_what_there_is() -> None:
    made = history(loss=flat, update=1e-6)
    old = replace(made, baseline=None, inputs=None, trainable=None, batch_size=None)
    found = diagnose(old)
    assert causes(found) == ["step-too-small"]
    assert len(found.unknown) == 4  # probes, baseline, inputs, trainable
    bare = replace(old, rows=[{"step": row["step"], "train/loss": row["train/loss"]} for row in made.rows])
    assert diagnose(bare).outcome == "stalled"
    assert any("optim/update_ratio" in sentence for sentence in diagnose(bare).unknown)


def test_rows_that_are_not_finite_or_few_do_not_stop_it() -> None:
    for rows in ([{"step": 1, "train/loss": math.nan}], [{"step": 1, "train/loss": 2.3}], [{"step": 5.0}]):
        assert diagnose(History(rows=rows)).outcome in OUTCOMES
    broken = [{**row, "optim/grad_norm": math.nan, "optim/update_ratio": math.inf} for row in history().rows]
    assert diagnose(History(rows=broken, status="diverged", total_steps=200)).outcome == "diverged"


def test_a_run_too_short_to_learn_is_not_blamed_unless_its_steps_are_tiny() -> None:
    short = history(steps=20, loss=flat, update=6e-3)
    assert (diagnose(short).outcome, causes(diagnose(short))) == ("unknown", [])
    assert "Too short to judge" in diagnose(short).summary
    assert causes(diagnose(history(steps=20, loss=flat, update=6e-7)))[:1] == ["step-too-small"]


def test_validation_that_swings_is_unstable_even_where_it_ends_low() -> None:
    """0.1 and 0.6 in turns, 0.1 at the end; the training loss is low."""
    made = history(
        steps=400, val=lambda step: 0.6 if step // 40 % 2 else 0.1, loss=lambda step: 0.05 + LN10 / step, update=0.05
    )
    found = diagnose(made)
    assert (found.outcome, causes(found)) == ("unstable", ["late-oscillation"])
    assert any("val/loss changes" in sentence for sentence in found.findings[0].evidence)
    calm = history(steps=400, val=lambda step: 0.1 + 0.02 * (step // 40 % 2), loss=lambda step: 0.05, update=0.05)
    assert diagnose(calm).outcome == "trained"


def test_nothing_is_said_of_the_data_before_a_thousand_samples() -> None:
    every = {"probe/signal": -0.1, "probe/noise": 4.0}
    found = [diagnose(history(loss=flat, update=8e-3, every=every, batch_size=size)) for size in (1, 32)]
    assert "no-signal-in-data" not in causes(found[0])
    assert causes(found[0])[:1] == ["noise-dominated-batch"]
    assert "no-signal-in-data" in causes(found[1])


@pytest.mark.parametrize("loss", [lambda step: LN10 * (1 + step / 20), lambda step: LN10 * (1 + math.sin(step) / 2)])
def test_lbfgs_is_made_for_full_batches(loss: Callable[[int], float]) -> None:
    """On batches its jumps are those of the batches, at any learning rate; on all data the step is too large."""
    made = history(loss=loss, update=0.9, optimizer="LBFGS", every={"probe/signal": 1.0, "probe/noise": 4.0})
    first = diagnose(replace(made, batch_size=32)).findings[0]
    assert (first.cause, first.prescription) == ("noise-dominated-batch", ("dataset.batch_size=full",))
    assert "step-too-large" not in causes(diagnose(replace(made, batch_size=32)))
    assert causes(diagnose(replace(made, batch_size=1000)))[0] == "step-too-large"


def test_lbfgs_on_batches_is_not_blamed_where_it_learned() -> None:
    every = {"probe/signal": 1.0, "probe/noise": 4.0}
    made = history(loss=lambda step: LN10 / 5, update=0.02, optimizer="LBFGS", every=every)
    found = diagnose(made)
    assert (found.outcome, found.findings) == ("trained", ())


def test_an_optimizer_without_weight_decay_is_not_told_to_use_it() -> None:
    made = PLANTED["overfitting"]
    settings = {key: value for key, value in made.settings.items() if key != "weight_decay"}
    (first, *_) = diagnose(replace(made, settings=settings)).findings
    assert first.prescription == ("engine.early_stopping_patience=3",)


def test_a_learning_rate_of_zero_is_diagnosed_without_a_factor_that_could_mend_it() -> None:
    rows = [
        {"step": step, "train/loss": 2.3, "val/loss": 2.3, "optim/lr": 0.0, "optim/update_ratio": 0.0}
        | {"optim/weight_norm": 10.0, "optim/grad_norm": 1.0}
        for step in range(1, 101, 3)
    ]
    found = diagnose(History(rows, total_steps=100, optimizer="SGD", settings={"lr": 0.0}, baseline=2.3))
    assert found.outcome == "stalled"
    assert [(finding.cause, finding.prescription) for finding in found.findings] == [("step-too-small", ())]
    assert found.findings[0].evidence == (
        "every update that was measured is zero (the learning rate is 0): nothing moves",
    )
