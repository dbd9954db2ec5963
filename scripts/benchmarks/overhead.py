"""What instruments, records and checkpoints cost: the same training with and without them."""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial

from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.optexp_loop import LOG_EVERY, NEVER, Source, run_engine
from optexp.engine.loop import Plan
from optexp.instruments.look import Look

WORDS = ("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0", f"engine.eval_every={NEVER}")
STEPS, QUICK_STEPS = 1000, 100
CHECKPOINT_EVERY = 100
ALLOWED = 1.02  # the step may take 2 % longer
ALLOWED_TO_INSTRUMENTS = 1.03
MEASURED = {
    "MLP": ("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0"),
    "ResNet": ("model=resnet", "optimizer=sgd"),
    "Transformer": ("model=transformer", "dataset=pydocs", "optimizer=adamw"),
}
REPEATS = {"MLP": 25, "ResNet": 9, "Transformer": 7}  # short runs scatter more
SHARE = {"MLP": 1.0, "ResNet": 1.0, "Transformer": 0.3}  # of the steps: probes are dense in the first ones


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file."""
    steps = size.steps or (QUICK_STEPS if size.quick else STEPS)
    instruments = [instruments_contest(name, max(20, int(steps * SHARE[name]))) for name in MEASURED]
    return [*instruments, logging_contest(steps), checkpoint_contest(steps)]


def instruments_contest(name: str, steps: int) -> Contest:
    """Milliseconds per step with the instruments of a default run, without them, and with nothing measured at all.

    Nobody writes what is measured. Without instruments a row has loss, accuracy, gradient norm and learning rate.
    """
    words = [*MEASURED[name], f"engine.eval_every={NEVER}", "engine.checkpoint_every=null", f"engine.max_steps={steps}"]
    measuring = Source(words)
    blind = Source([*words, f"engine.log_every={NEVER}", "engine.probe_every=null"])
    contestants = [
        Contestant("instruments", partial(_step, measuring, steps, sinks=False)),
        Contestant("no instruments", partial(_step, measuring, steps, sinks=False, instruments=False)),
        Contestant("nothing measured", partial(_step, blind, steps, sinks=False, instruments=False)),
    ]
    title = f"overhead: instruments every {LOG_EVERY} steps, {name}"
    goals = {"no instruments": 1 / ALLOWED_TO_INSTRUMENTS}
    return Contest(title, "ms/step", contestants, goals=goals, repeats=REPEATS[name])


def logging_contest(steps: int) -> Contest:
    """Milliseconds per step with all records of a default run, and with metrics that are read but written nowhere."""
    source = Source([*WORDS, "engine.checkpoint_every=null", f"engine.max_steps={steps}"])
    contestants = [
        Contestant("metrics.jsonl, TensorBoard, console", partial(_step, source, steps)),
        Contestant("no records", partial(_step, source, steps, sinks=False)),
    ]
    name = f"overhead: records every {LOG_EVERY} steps"
    return Contest(name, "ms/step", contestants, goals={"no records": 1 / ALLOWED})


def checkpoint_contest(steps: int) -> Contest:
    """Milliseconds per step with a durable checkpoint every 100 steps, and without any."""
    words = [*WORDS, f"engine.max_steps={steps}"]
    saving = Source([*words, f"engine.checkpoint_every={CHECKPOINT_EVERY}"])
    never = Source([*words, "engine.checkpoint_every=null"])
    contestants = [
        Contestant("checkpoints", partial(_step, saving, steps, checkpoints=True)),
        Contestant("no checkpoints", partial(_step, never, steps)),
    ]
    name = f"overhead: checkpoint every {CHECKPOINT_EVERY} steps"
    return Contest(name, "ms/step", contestants, goals={"no checkpoints": 1 / ALLOWED})


class _RowsOnly(Plan):
    """A plan whose logged steps are not looked at: no sizes of the step, no probes."""

    @cached_property
    def looks(self) -> dict[int, Look]:
        return {step: Look(accuracy=True) for step in self.logged}


def _step(source: Source, steps: int, sinks: bool = True, checkpoints: bool = False, instruments: bool = True) -> Cost:
    """Return the whole training divided by its steps: what is written behind its back has to be finished too."""
    training = source.training()
    if not instruments:
        own = {field.name: getattr(training.plan, field.name) for field in dataclasses.fields(Plan)}
        training = dataclasses.replace(training, plan=_RowsOnly(**own))
    return Cost(1000 * run_engine(training, sinks=sinks, checkpoints=checkpoints).whole / steps)
