"""Two ledgers side by side: which factors make the steps of one run larger than those of the other."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from optexp.records.console import relative
from optexp.records.reading import Run, differences
from optexp.report.effective_rate import FACTORS, amplifies, effective_lr, factors, optimizer_class, why_no_single_rate
from optexp.report.ledger import SETTINGS, Account, Ledger

CLOSE = 0.05
"""Decades below which a difference is shown as none."""

NO_PART = ("foreach", "fused", "capturable", "differentiable", "_target_")
"""Optimizer keys that say how a step is computed, and not which."""

OTHERS = ("schedule.", "engine.clip_norm", "engine.max_steps", "engine.epochs", "dataset.", "model.")
"""Keys beside the optimizer's that change how large steps are."""


@dataclass(frozen=True)
class Promise:
    """What two configs promise: decades by which the first run's effective learning rate is above the second's.

    `parts` has what each argument contributes, those that differ and change nothing included; their sum is `decades`.
    """

    decades: float
    parts: dict[str, float]


def signed(decades: float, digits: int = 1) -> str:
    """Return decades with their sign, `−2.0`, and none in front of zero."""
    text = f"{abs(decades):.{digits}f}"
    return ("" if float(text) == 0 else "−" if decades < 0 else "+") + text


def names(runs: Sequence[Run]) -> list[str]:
    """Return what to call runs: their directories' names without the time of day, or paths where those are equal."""
    short = [re.sub(r"^\d{6}-(?=.)", "", run.path.resolve().name) for run in runs]
    return short if len(set(short)) == len(runs) else [relative(run.path) for run in runs]


def promise(first: Run, second: Run) -> Promise | None:
    """Compare the closed forms `lr · (1 − dampening) / (1 − momentum)`.

    None where they are not of one kind: for rules other than torch's SGD and RMSprop, for one beside the other, and
    where a run has more than one effective learning rate.
    """
    both = (first.settings, second.settings)
    if any(map(why_no_single_rate, (first, second))):
        return None
    if not all(map(amplifies, both)) or len(set(map(optimizer_class, both))) > 1:
        return None
    ones, others = map(factors, both)
    if ones is None or others is None:
        return None
    by_factor = {name: ones[name] - others[name] for name in FACTORS}
    parts = {name: by_factor[name] for name in FACTORS if by_factor[name] or name in _differing(first, second)}
    parts |= {name: 0.0 for name in _differing(first, second) if name not in FACTORS}
    return Promise(math.fsum(parts.values()), parts)


def _differing(first: Run, second: Run) -> list[str]:
    """Return the arguments of the optimizer that are not the same in both configs."""
    keys = [key.removeprefix("optimizer.") for key in differences([first, second]) if key.startswith("optimizer.")]
    return [key for key in keys if key not in NO_PART]


def headline(first: Run, second: Run) -> list[str]:
    """Return the sentence that two configs make, with what else differs in them and could matter."""
    one, other = names([first, second])
    found = promise(first, second)
    lines = []
    if found is not None:
        parts = ", ".join(f"{name.replace('_', ' ')} {signed(value)}" for name, value in found.parts.items())
        if abs(found.decades) < CLOSE:
            rate = effective_lr(first.settings)
            text = f"{one} and {other} have the same effective learning rate, {rate:.3g}"
        else:
            side = "below" if found.decades < 0 else "above"
            text = f"{one} is {abs(found.decades):.1f} decades {side} {other} in effective learning rate"
        lines.append(f"{text}{': ' * bool(parts)}{parts}")
    else:
        lines.append(_why_no_promise(first, second))
    beside = [key for key in differences([first, second]) if key.startswith(OTHERS)]
    if beside:
        more = f" and {len(beside) - 6} more" if len(beside) > 6 else ""
        lines.append(f"what also differs: {', '.join(beside[:6])}{more}")
    return lines


def _why_no_promise(first: Run, second: Run) -> str:
    classes = [optimizer_class(run.settings) for run in (first, second)]
    without = [name for name, run in zip(classes, (first, second), strict=True) if not amplifies(run.settings)]
    if without:
        who = " and ".join(dict.fromkeys(without))
        have = "has" if len(set(without)) == 1 else "have"
        return f"{who} {have} no effective learning rate lr·(1 − dampening)/(1 − momentum): what compares is the update"
    if len(set(classes)) > 1:
        return (
            f"the learning rates of {classes[0]} and {classes[1]} are of different kinds: what compares is the update"
        )
    reasons = [
        f"in {name} the {why}"
        for name, run in zip(names((first, second)), (first, second), strict=True)
        if (why := why_no_single_rate(run))
    ]
    if reasons:
        return f"{' and '.join(reasons)}, so there is no one effective learning rate: what compares is the update"
    return "these settings have no effective learning rate: what compares is the update"


def measured_headline(first: Ledger, second: Ledger) -> str:
    """Return the sentence that the measured updates make, with the factors that count, the largest first."""
    one, other = names([first.run, second.run])
    ours, theirs = first.accounts[0], second.accounts[0]
    apart = ours.update - theirs.update
    parts = {name: ours.factors[name] - theirs.factors[name] for name in shared_factors(ours, theirs)}
    if any(len(account.factors) < len(SETTINGS) + 2 for account in (ours, theirs)):
        parts = {}  # they would not add up
    counting = sorted((n for n in parts if abs(parts[n]) >= CLOSE), key=lambda n: -abs(parts[n]))
    text = ", ".join(f"{SHORT.get(name, name)} {signed(parts[name])}" for name in counting)
    if abs(apart) < CLOSE:
        said = f"measured: relative to the weights, the updates of {one} and {other} are of one size"
    else:
        side = "below" if apart < 0 else "above"
        size = f"{abs(apart):.1f} decades {side}"
        said = f"measured: relative to the weights, the updates of {one} are {size} those of {other}"
    return f"{said}{': ' * bool(text)}{text}"


SHORT = {"gradient": "gradient/weight"}
"""Factors whose name alone would not say what they are."""


def shared_factors(ours: Account, theirs: Account) -> list[str]:
    """Return the factors that both accounts have: one over groups that differ has not all of them."""
    return [name for name in ours.factors if name in theirs.factors]


def comparable(first: Ledger, second: Ledger) -> list[tuple[Account, Account]]:
    """Return the accounts that stand for the same parameters in both runs: all of them, and groups of equal size."""
    pairs = [(first.accounts[0], second.accounts[0])]
    ours, theirs = first.accounts[1:], second.accounts[1:]
    if len(ours) == len(theirs) and all(_size(a) == _size(b) for a, b in zip(ours, theirs, strict=True)):
        pairs += list(zip(ours, theirs, strict=True))
    return pairs


def _size(account: Account) -> object:
    return (account.parameters or {}).get("numbers")
