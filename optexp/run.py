"""One run, or several in one program: from the objects of a training to run directories that tell what happened."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optexp.assemble import Training
from optexp.engine.loop import train
from optexp.engine.program import Program
from optexp.engine.runtime import Interruption, prepare
from optexp.errors import BadInput, Exit, StorageError
from optexp.recording import Job, Recorded
from optexp.records.group_console import GroupConsole


@dataclass(frozen=True)
class Result:
    """How a run ended and the value a sweeper minimizes: the best val/loss, infinite when the run did not get there."""

    path: Path
    status: str
    reason: str | None
    objective: float
    exit_status: int


def execute(
    training: Training,
    path: Path,
    command: Sequence[str],
    overrides: Sequence[str] = (),
    member: str | None = None,
    resume: bool = False,
) -> Result:
    """Train alone in the run directory `path` and record everything there; see `execute_together`."""
    return execute_together([Job(training, path, command, overrides, member)], training.program, resume=resume)[0]


def execute_together(jobs: Sequence[Job], program: Program, name: str = "", resume: bool = False) -> list[Result]:
    """Train all jobs in one program, each recorded in its own run directory as if it had been trained alone.

    `program` has a member for each job, in this order; `name` is what to call the group on the screen. With `resume`,
    all go on from their last checkpoints. Diverging, being interrupted and failing are results: they are recorded and
    returned, not raised. StorageError is raised when a directory itself cannot be written.
    """
    first = jobs[0].training
    prepare(first.device, first.engine.threads, first.flops_per_step)
    runs = [Recorded(job) for job in jobs]
    start = _restored(runs, program) if resume else 0
    group = GroupConsole(first.plan.total_steps, name, len(jobs)) if len(jobs) > 1 else None
    interruption = Interruption()
    try:
        for run in runs:
            run.open(start if resume else None, group)
        with interruption.listening():
            train(program, [run.member for run in runs], first.plan, first.validation, interruption, start, first.test)
    except (BadInput, StorageError) as error:
        for run in runs:
            run.abandon("failed", str(error))
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's may do anything; it is recorded
        for run in runs:
            run.abandon("failed", f"{type(error).__name__}: {error}".strip().splitlines()[0], traceback.format_exc())
    except KeyboardInterrupt:
        for run in runs:
            run.abandon("interrupted", "received SIGINT")
    finally:
        for run in runs:
            run.wait()
    return [_result(run, interruption) for run in runs]


def _restored(runs: Sequence[Recorded], program: Program) -> int:
    """Load the last checkpoints, if there are any, into program and members; return their step. Writes nothing.

    Raises BadInput when the runs have come to different steps, because a program takes each step for all.
    """
    steps = set()
    for index, run in enumerate(runs):
        loaded = run.checkpoints.load("last", notice=run.notes.append)
        steps.add(loaded[0] if loaded else 0)
        if loaded:
            program.load_state(index, loaded[1]["program"])
            run.member.load_state(loaded[1]["member"])
    if len(steps) > 1:
        raise BadInput(f"cannot be resumed together: their last checkpoints are of steps {sorted(steps)}")
    return steps.pop()


def _result(run: Recorded, interruption: Interruption) -> Result:
    ending, best = run.ending, run.member.best
    finished = ending.status in ("completed", "early_stopped")
    exits = {
        "diverged": int(Exit.DIVERGED),
        "failed": int(Exit.UNEXPECTED),
        "interrupted": 128 + (interruption.received or signal.SIGINT),
    }
    objective = best["val/loss"] if finished and best else float("inf")
    return Result(run.job.path, ending.status, ending.reason, objective, exits.get(ending.status, int(Exit.DONE)))
