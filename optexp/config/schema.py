"""The typed part of the configuration: what the engine and the top level accept, with ranges and meanings.

The groups `model`, `dataset`, `optimizer` and `schedule` are checked against the signature of their `_target_`
(see `build.py`); this file holds what has no signature to check against.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from optexp.config.values import Above, AtLeast, Between
from optexp.errors import BadInput


@dataclass(frozen=True)
class Interval:
    """How often something happens: every `count` optimizer steps, or every `count` epochs."""

    count: float
    unit: Literal["step", "epoch"]

    @classmethod
    def parse(cls, key: str, value: Any) -> Interval:
        """Read `100` (steps) or `1epoch`, `2epochs`, `0.5epochs`. Raises BadInput naming the key."""
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 and value == int(value):
            return cls(value, "step")
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(epoch|step)s?", value) if isinstance(value, str) else None
        if match and float(match[1]) > 0 and not (match[2] == "step" and not float(match[1]).is_integer()):
            return cls(float(match[1]), "epoch" if match[2] == "epoch" else "step")
        shown = "null" if value is None else value
        raise BadInput(f"{key}={shown}: allowed are a number of steps (100) or of epochs (1epoch, 0.5epochs)")

    def all_due(self, total_steps: int, steps_per_epoch: float) -> Iterator[int]:
        """Yield the steps (1-based) up to `total_steps` that complete an interval, in order."""
        length = self.count * (steps_per_epoch if self.unit == "epoch" else 1)
        last = 0
        for number in range(1, int(total_steps / length + 1e-9) + 1):
            step = math.ceil(number * length - 1e-9)
            if step > last:
                yield step
            last = step

    def due(self, step: int, steps_per_epoch: float) -> bool:
        """Return whether the step-th optimizer step (1-based) completes another interval."""
        length = self.count * (steps_per_epoch if self.unit == "epoch" else 1)
        return int(step / length + 1e-9) > int((step - 1) / length + 1e-9)


@dataclass(frozen=True)
class Engine:
    """How a model is trained: everything that is neither model, data, optimizer nor schedule. See conf/engine."""

    epochs: Annotated[float, Above(0)] | None = 5.0
    max_steps: Annotated[int, AtLeast(1)] | None = None
    clip_norm: Annotated[float, Above(0)] | None = None
    accumulate: Annotated[int, AtLeast(1)] = 1
    label_smoothing: Annotated[float, Between(0, 1, open_above=True)] = 0.0
    decay_norm_and_bias: bool = False
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, AtLeast(1)] | None = None
    compile: bool = False
    cuda_graph: bool | None = None
    channels_last: bool = True
    log_every: Annotated[int, AtLeast(1)] = 10
    probe_every: Annotated[int, AtLeast(1)] | None = 400
    eval_every: Any = "1epoch"  # see Interval
    checkpoint_every: Any = "1epoch"
    early_stopping_patience: Annotated[int, AtLeast(1)] | None = None
    evaluate_test: bool = False
    init_from: str | None = None

    @property
    def evaluation_interval(self) -> Interval:
        return Interval.parse("engine.eval_every", self.eval_every)

    @property
    def checkpoint_interval(self) -> Interval | None:
        if self.checkpoint_every is None:
            return None
        return Interval.parse("engine.checkpoint_every", self.checkpoint_every)


TOP_LEVEL: dict[str, Any] = {
    "seed": Annotated[int, Between(0, 2**63 - 1)],
    "name": str | None,
    "remark": str | None,
    "output_dir": str,
    "trust": list[str],
}
"""The keys of config.yaml that belong to no group."""

BATCH_SIZE = Annotated[int, AtLeast(1)] | Literal["full"]

OPTIMIZER_ARGUMENTS: dict[str, Any] = {
    "lr": Annotated[float, AtLeast(0)],
    "momentum": Annotated[float, Between(0, 1, open_above=True)],
    "dampening": Annotated[float, Between(0, 1)],
    "weight_decay": Annotated[float, AtLeast(0)],
    "betas": list[Annotated[float, Between(0, 1, open_above=True)]],
    "alpha": Annotated[float, Between(0, 1)],
    "eps": Annotated[float, AtLeast(0)] | list[Annotated[float, AtLeast(0)] | None],  # Adafactor has two
    "rho": Annotated[float, Between(0, 1)],
    "lambd": Annotated[float, AtLeast(0)],
    "momentum_decay": Annotated[float, AtLeast(0)],
    "d": Annotated[float, AtLeast(1)],
    "etas": list[Annotated[float, Above(0)]],
    "step_sizes": list[Annotated[float, AtLeast(0)]],
    "max_iter": Annotated[int, AtLeast(1)],
    "max_eval": Annotated[int, AtLeast(1)] | None,
    "history_size": Annotated[int, AtLeast(1)],
    "tolerance_grad": Annotated[float, AtLeast(0)],
    "tolerance_change": Annotated[float, AtLeast(0)],
    "line_search_fn": Literal["strong_wolfe"] | None,
    "lr_decay": Annotated[float, AtLeast(0)],
    "initial_accumulator_value": Annotated[float, AtLeast(0)],
    "nesterov": bool,
    "amsgrad": bool,
    "centered": bool,
    "maximize": bool,
    "capturable": bool,
    "differentiable": Literal[False],
    "foreach": bool | None,
    "fused": bool | None,
}
"""Arguments of torch's optimizers under their own names, with ranges: checked before torch is imported.

`differentiable=true` is refused because it lets autograd record the update, which an in-place training step forbids.
torch itself takes any number as momentum or dampening; outside these ranges the update rule amplifies without bound.
"""
