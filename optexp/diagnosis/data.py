"""Causes in the data: too few, too noisy, without a signal, or on a wrong scale."""

from __future__ import annotations

import math

from optexp.diagnosis.candidates import Candidate, Case
from optexp.diagnosis.outcome import FAR, generalization
from optexp.diagnosis.values import nice, percent
from optexp.records.numbers import measured, setting

NOTHING_LEARNED = 0.97
"""Validation loss over the baseline above which nothing was learned about the inputs."""

ENOUGH_SEEN = 1000
"""Samples that a run must have seen before it tells anything about the data: as many as it takes on small problems
until a gradient's signal outweighs its noise (McCandlish et al., "An Empirical Model of Large-Batch Training", 2018).
"""


def seen(case: Case) -> float:
    """Return how many samples the run has seen, in decades above `ENOUGH_SEEN`; infinite where that is not known."""
    batch = case.history.batch_size
    return math.log10(max(batch * case.measures.steps, 1) / ENOUGH_SEEN) if batch else math.inf


def overfitting(case: Case) -> Candidate | None:
    """The training loss fell, the validation loss did not follow."""
    found = generalization(case.measures)
    if found is None or case.outcome.name != "overfit":
        return None
    evidence = [
        f"val/loss was {measured(found.best)} at step {found.best_step:,} and is {measured(found.last)}; train/loss is "
        f"{measured(found.train)}"
    ]
    sizes = case.history.num_train, case.history.trainable or case.history.parameters
    if sizes[0] and sizes[1]:
        evidence.append(f"{sizes[1]:,} parameters learn from {sizes[0]:,} samples")
    never = found.best >= NOTHING_LEARNED * (case.measures.reference or math.inf)
    words = ["engine.early_stopping_patience=3"]
    if case.measures.setting("weight_decay") is not None:  # not every optimizer takes one
        decay = nice(max(10 * case.measures.number("weight_decay"), 1e-2))
        words.insert(0, f"optimizer.weight_decay={setting(decay)}")
    return Candidate("overfitting", found.excess + 0.5 - 2 * never, tuple(evidence), tuple(words))


def no_signal_in_data(case: Case) -> Candidate | None:
    """The step is large enough, training is at the baseline or learns by heart, validation never beats the baseline."""
    measures, account, reference = case.measures, case.account, case.measures.reference
    low = measures.val.lowest()
    if low is None or reference is None or case.outcome.name not in ("stalled", "overfit", "slow"):
        return None
    best = measures.share(low[1]) or 0.0
    evidence = [
        f"the best val/loss, {measured(low[1])}, is {percent(best)} of what predicting without the inputs gives "
        f"({measured(reference)})"
    ]
    score = min(20 * (best - NOTHING_LEARNED), 2 * seen(case), 1.0)
    if account is not None:
        score = min(score, 0.7 - account.lacking)
        evidence.append(
            f"the updates were large enough to learn: they add up to {measured(account.path)} of the weights"
        )
    score = min(score, 4 * (0.45 - abs(measures.weight_growth or 0.0)))
    score = min(score, 4 * (0.4 - (measures.late("probe/dead_units") or 0.0)))
    return Candidate("no-signal-in-data", score, tuple(evidence))


def noise_dominated_batch(case: Case) -> Candidate | None:
    """The noise of a gradient is many times its signal, in a small batch, with steps of a fair size."""
    measures, batch = case.measures, case.history.batch_size
    if measures.mixes_batches:
        return _noise_in_curvature(case)
    ratio, best = measures.noise_ratio, measures.val.lowest() or measures.train.lowest()
    if ratio is None or not batch or best is None or not measures.reference:
        return None
    if case.outcome.name not in ("slow", "stalled", "unstable"):
        return None
    if math.isinf(ratio):
        text = "its signal could not be told from zero"
    else:
        text = f"noise is {ratio:.0f} times the signal (gradient noise scale {measured(ratio * batch)} samples)"
    evidence = (f"in a gradient of {batch} samples, over all probes, {text}",)
    size = 2 ** round(math.log2(min(max(ratio, 8.0), 32.0) * batch))
    # The ratio is rough, being made of a few probes, and 10 is common where all is well: a small batch must join it.
    score = min(math.log10(max(ratio, 1e-9) / 3), 0.6) - 0.7 * math.log10((measures.batch or batch) / 4)
    score = min(score, 4 * (0.45 - abs(measures.weight_growth or 0.0)))
    if seen(case) > 0:  # with something learned, for where nothing is the data may be at fault
        score = min(score, 20 * (0.98 - (measures.share(best[1]) or 0.0)))
    if case.account is not None:
        score = min(score, 3 * (0.6 - case.account.lacking))
    return Candidate("noise-dominated-batch", score, evidence, (f"dataset.batch_size={size}",))


def _noise_in_curvature(case: Case) -> Candidate | None:
    """L-BFGS failed on batches: it takes the differences of their gradients for curvature, whatever the learning rate.

    Byrd et al., "A Stochastic Quasi-Newton Method for Large-Scale Optimization", 2016; Bollapragada et al., "A
    Progressive Batching L-BFGS Method for Machine Learning", 2018.
    """
    measures, ratio, name = case.measures, case.measures.noise_ratio, case.outcome.name
    if name not in ("slow", "stalled", "unstable", "diverged"):
        return None
    evidence = [
        f"L-BFGS takes the differences of its last gradients for curvature (history_size "
        f"{setting(measures.setting('history_size', 100))}), and these are of different batches, "
        f"{case.history.batch_size} of {case.history.num_train:,} samples each: it is made for full batches"
    ]
    if ratio is not None and math.isfinite(ratio):
        evidence.append(f"the noise of a batch's gradient is {measured(ratio)} times its signal")
    # There are runs that come through it; the farther one has stayed behind, the less it is one of them.
    far = 1.0 if name == "diverged" else math.log10(max(measures.distance or 0.0, 1e-9) / FAR) + 0.3
    noisy = math.inf if ratio is None else math.log10(max(ratio, 1e-9) / 0.3)
    return Candidate("noise-dominated-batch", min(far, noisy, 1.0), tuple(evidence), ("dataset.batch_size=full",))


def bad_input_scale(case: Case) -> Candidate | None:
    """The inputs are far from mean 0 and deviation 1."""
    facts = case.history.inputs
    if facts is None or not case.outcome.failed:
        return None
    mean, std = float(facts.get("mean") or 0.0), float(facts.get("std") or 0.0)
    if std <= 0:
        return Candidate("bad-input-scale", 2.0, (f"all inputs are the same number, {measured(mean)}",))
    off = max(abs(math.log10(std)), math.log10(max(abs(mean) / std, 1e-9)))
    largest = facts.get("largest")
    size = "" if largest is None else f", the largest {measured(float(largest))}"
    evidence = (f"the inputs have mean {measured(mean)} and deviation {measured(std)}{size}; good is 0 and 1",)
    return Candidate("bad-input-scale", 2 * (off - 0.8), evidence)
