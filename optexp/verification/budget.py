"""How long the runs of a verification are, and how a configuration is shortened to that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optexp.config.schema import Interval
from optexp.errors import BadInput
from optexp.records.numbers import duration
from optexp.records.reading import Run

LONG = 60.0
"""Seconds that a run may have taken for its repetitions to be as long as it was."""

FEWEST_STEPS = 100
"""In fewer than these hardly anything can be told from anything else."""

ROWS = 20
"""Of a shortened run at least so many rows are logged where it has the steps: a diagnosis needs curves."""

TIMES = (
    *("warmup_steps", "decay_steps", "total_steps", "timescale"),
    *("T_max", "T_0", "total_iters", "step_size", "milestones"),
)
"""Arguments of schedules that are times, in optimizer steps or epochs."""


@dataclass(frozen=True)
class Budget:
    """`steps` optimizer steps in place of the `planned` ones, and why; `seconds` is what one run takes, if known."""

    steps: int
    planned: int
    why: str
    seconds: float | None

    @property
    def fraction(self) -> float:
        return self.steps / self.planned


def budget_of(run: Run, steps: int | None) -> Budget:
    """Return how many steps to train: `steps` where given, else as many as the run had planned, unless that takes long.

    A run of more than `LONG` seconds at its recorded pace is cut to what takes so long, and to no less than
    `FEWEST_STEPS`. Raises BadInput when the run has recorded no length and none is given.
    """
    recorded = run.info.get("total_steps")
    planned = recorded if isinstance(recorded, int) and recorded > 0 else steps
    if planned is None:
        raise BadInput(f"{run.path}: has recorded no number of steps; give one with --steps N")
    pace = run.wall_time / run.last_step if run.wall_time > 0 and run.last_step > 0 else None

    def budget(number: int, why: str) -> Budget:
        return Budget(number, planned, why, None if pace is None else number * pace)

    if steps is not None:
        return budget(steps, "as asked for")
    if pace is None or planned * pace <= LONG or planned <= FEWEST_STEPS:
        return budget(planned, "as many as the run has")
    whole = duration(planned * pace)
    return budget(
        min(planned, max(FEWEST_STEPS, math.floor(LONG / pace))),
        f"of the run's {planned:,}, because all would take {whole} each at its pace; --steps N chooses another number",
    )


def shortened(config: Mapping[str, Any], budget: Budget, batch_size: Any) -> list[str]:
    """Return the words that give a composed configuration the length of the budget, none where it has that already.

    Times of a schedule of ours shrink with the run, and so does the time between evaluations: the course of the
    learning rate and the number of evaluations stay what they were. `batch_size` is the original's: a configuration
    with another one trains on as many samples, as it would in as many epochs.
    """
    if budget.steps == budget.planned:
        return []
    fraction, engine = budget.fraction, config["engine"]
    own = config["dataset"].get("batch_size")
    per_step = own / batch_size if isinstance(own, int) and isinstance(batch_size, int) else 1.0
    steps = max(1, round(budget.steps / per_step))
    words = [f"engine.max_steps={steps}"]
    interval = Interval.parse("engine.eval_every", engine["eval_every"])
    count = interval.count * fraction
    words.append(f"engine.eval_every={max(1, round(count)) if interval.unit == 'step' else f'{count:.6f}epochs'}")
    words.append(f"engine.log_every={min(engine['log_every'], max(1, steps // ROWS))}")
    schedule = config["schedule"]
    if str(schedule.get("_target_")).startswith("optexp.schedules."):
        for key in TIMES:
            value = schedule.get(key)
            if isinstance(value, list):
                words.append(
                    f"schedule.{key}=[{','.join(map(str, sorted({_scaled(each, fraction) for each in value})))}]"
                )
            elif value:
                words.append(f"schedule.{key}={_scaled(value, fraction)}")
        if str(schedule["_target_"]).endswith(".Exponential"):
            words.append(f"schedule.gamma={schedule['gamma'] ** (1 / fraction)!r}")
    return words


def _scaled(time: float, fraction: float) -> int:
    return max(1, round(time * fraction))
