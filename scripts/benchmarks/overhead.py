"""What instruments, records and checkpoints cost: the same training with and without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property, partial

from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.optexp_loop import LOG_EVERY, NEVER, Source, run_engine
from benchmarks.turns import Race
from optexp.assemble import Training
from optexp.engine.loop import Plan
from optexp.instruments.look import Look

STEPS, QUICK_STEPS = 1000, 100
CHECKPOINT_EVERY = 100
ALLOWED = 1.02  # the step may take 2 % longer
ALLOWED_TO_INSTRUMENTS = 1.03
MLP = ("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0")
RESNET = ("model=resnet", "optimizer=sgd")
TRANSFORMER = ("model=transformer", "dataset=pydocs", "optimizer=adamw")
MEASURED = (  # name, words, share of the steps, repeats: looks are frequent at first, and short runs scatter more
    ("MLP", MLP, 6.0, 7),
    ("MLP", MLP, 1.0, 25),
    ("ResNet", RESNET, 1.0, 6),
    ("Transformer", TRANSFORMER, 0.3, 6),
)


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file."""
    steps = size.steps or (QUICK_STEPS if size.quick else STEPS)
    instruments = [
        instruments_contest(name, words, max(20, int(steps * share)), repeats)
        for name, words, share, repeats in MEASURED
    ]
    return [*instruments, logging_contest(steps), checkpoint_contest(steps)]


def instruments_contest(name: str, words: Sequence[str], steps: int, repeats: int) -> Contest:
    """Processor time per step with the instruments of a default run, without them, and with nothing measured at all.

    Nobody writes what is measured. Without instruments a row has loss, accuracy, gradient norm and learning rate.
    """
    every = [*words, f"engine.eval_every={NEVER}", "engine.checkpoint_every=null", f"engine.max_steps={steps}"]
    measuring = Source(every)
    blind = Source([*every, f"engine.log_every={NEVER}", "engine.probe_every=null"])
    race = Race(
        {
            "instruments": partial(_planned, measuring, Plan),
            "no instruments": partial(_planned, measuring, _RowsOnly),
            "nothing measured": partial(_planned, blind, _RowsOnly),
        },
        steps,
    )
    goals = {"no instruments": 1 / ALLOWED_TO_INSTRUMENTS}
    title = f"overhead: instruments, {name}, {steps:,} steps"
    return Contest(title, "ms/step", race.contestants(), goals=goals, repeats=repeats)


def logging_contest(steps: int) -> Contest:
    """Milliseconds per step with all records of a default run, and with metrics that are read but written nowhere."""
    source = Source([*MLP, f"engine.eval_every={NEVER}", "engine.checkpoint_every=null", f"engine.max_steps={steps}"])
    contestants = [
        Contestant("metrics.jsonl, TensorBoard, console", partial(_step, source, steps)),
        Contestant("no records", partial(_step, source, steps, sinks=False)),
    ]
    name = f"overhead: records every {LOG_EVERY} steps"
    return Contest(name, "ms/step", contestants, goals={"no records": 1 / ALLOWED})


def checkpoint_contest(steps: int) -> Contest:
    """Milliseconds per step with a durable checkpoint every 100 steps, and without any."""
    words = [*MLP, f"engine.eval_every={NEVER}", f"engine.max_steps={steps}"]
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


def _planned(source: Source, kind: type[Plan]) -> Training:
    """Return the training with a plan of this kind."""
    training = source.training()
    own = {field.name: getattr(training.plan, field.name) for field in dataclasses.fields(Plan)}
    return dataclasses.replace(training, plan=kind(**own))


def _step(source: Source, steps: int, sinks: bool = True, checkpoints: bool = False) -> Cost:
    """Return the whole training divided by its steps: what is written behind its back has to be finished too."""
    return Cost(1000 * run_engine(source.training(), sinks=sinks, checkpoints=checkpoints).whole / steps)
