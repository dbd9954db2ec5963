"""The override words that repair what takes the step away."""

from __future__ import annotations

import math

from optexp.diagnosis.account import Account
from optexp.diagnosis.candidates import Case
from optexp.diagnosis.values import nice
from optexp.records.numbers import setting

WORTH_REPAIRING = 0.25
"""Decades below which a part of the shortfall is left as it is: less than a factor of 1.8."""

WORTH_RAISING = 0.4
"""The same for what remains when all parts are repaired: whatever lies within a factor of 2.5 is a good rate."""

USUAL_EPS = 1e-8
USUAL_WARMUP = 0.05  # of the run


def learning_rate(case: Case, decades: float) -> tuple[str, ...]:
    """Return the word that raises the learning rate by so many decades (lowers it where they are negative)."""
    base = case.measures.base_lr
    if not base or not math.isfinite(decades):  # no factor makes a step of a learning rate of zero
        return ()
    return (f"optimizer.lr={setting(nice(base * 10**decades))}",)


def whole_step(case: Case, account: Account) -> tuple[str, ...]:
    """Return all words that together make the step a good one: what takes it away repaired, the rest by its size."""
    words: list[str] = []
    for part, missing in account.parts.items():
        if missing >= WORTH_REPAIRING:
            words += of_part(case, part)
    rest = account.rest
    if not of_part(case, "exhaustion"):  # for a sum of squares that has grown by itself only a larger rate makes up
        rest += account.parts.get("exhaustion", 0.0)
    if rest >= WORTH_RAISING:
        words += learning_rate(case, rest)
    return tuple(words)


def of_part(case: Case, part: str) -> tuple[str, ...]:
    """Return the words that give back what one part of the account takes away."""
    if part == "schedule":
        return schedule(case)
    if part == "exhaustion":
        given = {"lr_decay": 0, "initial_accumulator_value": 0}
        return tuple(f"optimizer.{key}={value}" for key, value in given.items() if case.measures.number(key) > 0)
    words = {
        "dampening": "optimizer.dampening=0",
        "clipping": "engine.clip_norm=null",
        "epsilon": f"optimizer.eps={setting(USUAL_EPS)}",
    }
    return (words[part],)


def schedule(case: Case) -> tuple[str, ...]:
    """Return the words for a schedule that is neither rising most of the time nor over early."""
    facts = case.history.schedule
    words: list[str] = []
    if facts is not None and facts.warmup_steps > 2 * USUAL_WARMUP * case.measures.total:
        words += warmup(case)
    if ended_early(case):
        words += until_the_end(case)
    return tuple(words)


def warmup(case: Case) -> tuple[str, ...]:
    """Return the word for a warm-up of a twentieth of the run, in the unit it was given in."""
    if case.history.config.get("schedule.warmup_fraction") is not None:
        return (f"schedule.warmup_fraction={USUAL_WARMUP}",)
    return (f"schedule.warmup_steps={round(USUAL_WARMUP * case.measures.total)}",)


def idle_from(case: Case, least: float = 0.02) -> float | None:
    """Return the first logged step from which on the learning rate stays below this share of its highest.

    What it was between two rows is not known: it counts as working until a row says that it is not. None where it
    works until the end, or was never logged.
    """
    lr = case.measures.lr
    peak = max(lr.values, default=0.0)
    idle = None
    for step, value in zip(reversed(lr.steps), reversed(lr.values), strict=True):
        if value >= least * peak:
            break
        idle = step
    return idle


def ended_early(case: Case, share: float = 0.35) -> bool:
    """Return whether the learning rate had vanished for this share of the run."""
    idle = idle_from(case)
    return idle is not None and idle < (1 - share) * case.measures.steps


def until_the_end(case: Case) -> tuple[str, ...]:
    """Return the words that let the present schedule come down at the end of the run, and neither before nor after.

    Its own settings are changed: another schedule would not take those that an experiment makes. Only a constant rate,
    and a schedule that is not optexp's, are replaced.
    """
    name = case.history.schedule.name if case.history.schedule else ""
    ticks, config = _ticks(case), case.history.config
    lengths = {"Cosine": "T_max", "Linear": "total_iters", "Polynomial": "total_iters", "OneCycle": "total_steps"}
    if name in lengths:
        words = [f"schedule.{lengths[name]}=null"]
        return (*words, "schedule.eta_min=0") if config.get("schedule.eta_min") else tuple(words)
    if name == "Plateau":
        patience = config.get("schedule.patience")
        longer = 2 * patience + 2 if isinstance(patience, int) else 10
        return ("schedule.factor=0.5", f"schedule.patience={longer if ended_early(case) else 1}")
    if name == "WarmupStableDecay":
        if config.get("schedule.decay_steps") is not None:
            return (f"schedule.decay_steps={max(1, round(0.2 * case.measures.total))}",)
        return ("schedule.decay_fraction=0.2",)
    if name == "InverseSqrt":  # 1/√(1 + t/timescale) comes down to a tenth
        return (f"schedule.timescale={max(1, round(case.measures.total / 99))}",)
    if ticks is not None and name == "CosineWarmRestarts":
        return (f"schedule.T_0={max(1, math.ceil(ticks))}",)
    if ticks is not None and name == "Step":
        return (f"schedule.step_size={max(1, round(ticks / 3))}",)
    if ticks is not None and name == "MultiStep" and ticks >= 4:
        return (f"schedule.milestones=[{round(ticks / 2)},{round(ticks * 3 / 4)}]",)
    if ticks is not None and name == "Exponential":
        return (f"schedule.gamma={setting(float(f'{0.01 ** (1 / ticks):.3g}'))}",)
    return ("schedule=cosine",)


def _ticks(case: Case) -> float | None:
    """Return the length of the run in the unit of its schedule's clock: optimizer steps, or epochs."""
    if case.history.config.get("schedule.unit") != "epoch":
        return float(case.measures.total)
    pairs = [(row["step"], row["epoch"]) for row in case.history.rows if row.get("epoch", 0) > 0 < row["step"]]
    return case.measures.total * pairs[-1][1] / pairs[-1][0] if pairs else None
