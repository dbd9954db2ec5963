"""What records and checkpoints cost: the same training with and without them."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Contest, Contestant, Cost, Size
from benchmarks.optexp_loop import LOG_EVERY, NEVER, Source, run_engine

WORDS = ("model=mlp", "optimizer=adamw", "engine.clip_norm=1.0", f"engine.eval_every={NEVER}")
STEPS, QUICK_STEPS = 1000, 100
CHECKPOINT_EVERY = 100
ALLOWED = 1.02  # the step may take 2 % longer


def contests(size: Size) -> list[Contest]:
    """Return all contests of this file."""
    steps = size.steps or (QUICK_STEPS if size.quick else STEPS)
    return [logging_contest(steps), checkpoint_contest(steps)]


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


def _step(source: Source, steps: int, sinks: bool = True, checkpoints: bool = False) -> Cost:
    """Return the whole training divided by its steps: what is written behind its back has to be finished too."""
    return Cost(1000 * run_engine(source.training(), sinks=sinks, checkpoints=checkpoints).whole / steps)
