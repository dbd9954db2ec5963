"""From what was measured to the answer: shares, interactions, necessary and sufficient keys, minimal sets.

Everything is plain values; what is printed, drawn and written says nothing that is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from optexp.attribution import games, repairs
from optexp.attribution.games import Combination, Game, Values
from optexp.attribution.intervals import LEVEL, mean_interval, ratio_interval, widened
from optexp.attribution.outcomes import Measured
from optexp.attribution.plan import Plan
from optexp.statistics import t_interval

Answer = dict[str, Any]


def answer_of(plan: Plan, found: Measured) -> Answer:
    """Return the answer to an attribution, from seeds that every combination has a value on (two at least)."""
    sign = -1.0 if plan.settings.metric == "val/loss" else 1.0
    nothing = (0,) * len(plan.keys)
    game = {combination: sign * (values - found.values[nothing]) for combination, values in found.values.items()}
    improvement = mean_interval(game[(1,) * len(plan.keys)])
    attributable = improvement.low > 0
    judged = repairs.judge(game, plan.settings.recovery) if attributable else {}
    rates = found.rates
    decades = None if rates is None else {each: np.log10(values / rates[nothing]) for each, values in rates.items()}
    return {
        "failing": plan.failing.named,
        "working": plan.working.named,
        "metric": plan.settings.metric,
        "lower_is_better": sign < 0,
        "recovery": plan.settings.recovery,
        "level": LEVEL,
        "seeds": found.seeds,
        "seeds_left_out": {str(seed): reason for seed, reason in found.left_out.items()},
        "design": {
            "kind": "all combinations" if plan.design.is_full else "pairs of orders",
            "combinations": len(plan.design.combinations),
            "of": 2 ** len(plan.keys),
            "pairs": None if plan.design.is_full else len(plan.design.orders),
        },
        "keys": [{"key": key.key, "name": key.name, "failing": key.at(0), "working": key.at(1)} for key in plan.keys],
        "runs": _totals(found.statuses),
        "rates_from": _totals(found.rates_from),
        "combinations": [_combination(plan, found, game, judged, each) for each in plan.design.combinations],
        "improvement": asdict(improvement),
        "attributable": attributable,
        "shares": _shares(plan, game, relative=True) if attributable else None,
        "decades": None if decades is None else _shares(plan, decades, relative=False),
        "necessary": {key.key: repairs.necessary(judged, place) for place, key in enumerate(plan.keys)}
        if attributable
        else None,
        "sufficient": {key.key: repairs.sufficient(judged, place) for place, key in enumerate(plan.keys)}
        if attributable
        else None,
        "minimal_sets": [_minimal(plan, each) for each in repairs.minimal_sets(judged)] if attributable else None,
    }


def _totals(counted: Mapping[Combination, Mapping[Any, int]]) -> dict[str, int]:
    """Add up what was counted for each combination."""
    total: dict[str, int] = {}
    for counts in counted.values():
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total


def _combination(
    plan: Plan, found: Measured, game: Game, judged: Mapping[Combination, str], each: Combination
) -> Answer:
    whole = game[(1,) * len(plan.keys)]
    rates = None if found.rates is None else found.rates[each]
    return {
        "changed": [key.key for key in plan.changed(each)],
        "statuses": found.statuses[each],
        "metric": asdict(mean_interval(found.values[each])),
        "per_seed": found.values[each].tolist(),
        "recovered": asdict(ratio_interval(game[each], whole)) if judged else None,
        "verdict": judged.get(each),
        "effective_lr": None if rates is None else float(10 ** np.log10(rates).mean()),
        "rates_from": dict(found.rates_from.get(each, {})),
        "command": plan.command(each),
    }


def _shares(plan: Plan, game: Game, relative: bool) -> Answer:
    """Return what each key contributes to v(all) − v(none), and how much of that each pair does together.

    With `relative` each contribution also as a share of the whole. Intervals are over seeds; in a sampled design the
    sampling error is added in quadrature.
    """
    estimates = plan.design.estimates(game)  # [pairs, k, S]
    whole = game[(1,) * len(plan.keys)]
    contributions = estimates.mean(axis=0)
    keys = []
    for place, key in enumerate(plan.keys):
        own: Values = contributions[place]
        error = _sampling_error(estimates[:, place])
        entry = {
            "key": key.key,
            "contribution": asdict(widened(mean_interval(own), error)),
            "sampling_error": error,
            "per_seed": own.tolist(),
        }
        if relative:
            error = _sampling_error(estimates[:, place] / whole.mean())
            entry |= {"share": asdict(widened(ratio_interval(own, whole), error)), "sampling_error_of_share": error}
        keys.append(entry)
    pairs = []
    if plan.design.is_full:
        for (one, other), values in games.interactions(game).items():
            pair = {
                "keys": [plan.keys[one].key, plan.keys[other].key],
                "contribution": asdict(mean_interval(values)),
                "per_seed": values.tolist(),
            }
            if relative:
                pair["share"] = asdict(ratio_interval(values, whole))
            pairs.append(pair)
    return {"whole": asdict(mean_interval(whole)), "keys": keys, "interactions": pairs if pairs else None}


def _sampling_error(estimates: Values) -> float | None:
    """Return half the width of the t interval over pairs of orders [pairs, S], None of a full design."""
    if len(estimates) < 2:
        return None
    interval = t_interval([float(value) for value in estimates.mean(axis=1)], LEVEL)
    return (interval.high - interval.low) / 2


def _minimal(plan: Plan, found: repairs.MinimalSet) -> Answer:
    return {
        "keys": [key.key for key in plan.changed(found.combination)],
        "doubts": [[key.key for key in plan.changed(part)] for part in found.doubts],
        "command": plan.command(found.combination),
    }


def main_numbers(answer: Answer) -> dict[str, float]:
    """Return the shares and decades of each key, for lists of runs."""
    found = {f"improvement/{answer['metric']}": answer["improvement"]["estimate"]}
    if answer["shares"] is not None:
        found |= {f"share/{key['key']}": key["share"]["estimate"] for key in answer["shares"]["keys"]}
    if answer["decades"] is not None:
        found |= {f"decades/{key['key']}": key["contribution"]["estimate"] for key in answer["decades"]["keys"]}
    return found
