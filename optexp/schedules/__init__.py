"""Learning rate schedules as pure functions of the step (plateau: of the step and the validation history).

A schedule is a frozen set of arguments, named as in `torch.optim.lr_scheduler` and equal to it value by value. Binding
it to the length of a run gives the function `lr(step, base_lr, history)`; no schedule has state, so there is nothing to
save, and a resumed run cannot drift from an uninterrupted one.

Where torch can surprise, these do not: warm-up never makes the first step zero, it is counted before the schedule's
own clock starts (as in torch's SequentialLR), and nothing rises again after the end.
"""

from optexp.schedules.base import BoundSchedule, Schedule, Timed
from optexp.schedules.decays import (
    Constant,
    Cosine,
    CosineWarmRestarts,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    Polynomial,
    Step,
)
from optexp.schedules.phases import OneCycle, WarmupStableDecay
from optexp.schedules.plateau import Plateau

__all__ = [
    "BoundSchedule",
    "Constant",
    "Cosine",
    "CosineWarmRestarts",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Plateau",
    "Polynomial",
    "Schedule",
    "Step",
    "Timed",
    "WarmupStableDecay",
]
