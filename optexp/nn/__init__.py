"""The layers that models are written with.

They are torch.nn's own, under torch.nn's names, wherever one run is trained at a time. Operations whose meaning depends
on which axis is the batch (pooling, flattening, attention, the tied output projection, positions) are named modules or
functions here and never spelled out in a model, so that the same model can later carry a leading axis of runs.
Dropout is ours: its masks are a function of (seed, step, layer), so that a resumed run repeats them exactly.
"""

from torch.nn import (
    GELU,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Identity,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    ReLU,
    Sequential,
)
from torch.nn.init import kaiming_normal_, normal_, ones_, zeros_

from optexp.nn.dropout import Dropout, StepState, StochasticDepth, attach_step_state, draw_outside_compilation
from optexp.nn.operations import Embedding, GlobalAvgPool2d, LearnedPositions, causal_self_attention

__all__ = [
    "GELU",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAvgPool2d",
    "Identity",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "Module",
    "ModuleList",
    "ReLU",
    "Sequential",
    "StepState",
    "StochasticDepth",
    "attach_step_state",
    "causal_self_attention",
    "draw_outside_compilation",
    "kaiming_normal_",
    "normal_",
    "ones_",
    "zeros_",
]
