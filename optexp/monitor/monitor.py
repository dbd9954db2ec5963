"""Monitor: the instruments and the diagnosis of optexp for any training loop."""

from __future__ import annotations

import functools
import math
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from optexp.diagnosis.diagnose import diagnose
from optexp.diagnosis.findings import Diagnosis
from optexp.diagnosis.history import History
from optexp.errors import BadInput
from optexp.instruments.norms import Scalar
from optexp.monitor import rows, text
from optexp.monitor.journal import Journal
from optexp.monitor.looks import looks
from optexp.monitor.record import Record
from optexp.monitor.rows import Measurement, Row
from optexp.monitor.user_code import InputFacts, check_parameters, innermost_model, innermost_optimizer
from optexp.monitor.watch import AppliedSteps, Observation, Watch
from optexp.records.reading import differing_settings

P = ParamSpec("P")
Loss = TypeVar("Loss")

MOST_LOSSES = 1024
"""Losses on a device that are kept as a tensor each."""


class Monitor:
    """Watches a training loop: what `optexp` measures of a run, and the same diagnosis.

        monitor = Monitor(model, optimizer)
        for inputs, targets in batches:
            ...
            optimizer.step()
            monitor.step(loss)
        print(monitor.report())

    As a context manager it is closed at the end. It looks at the optimizer's steps through hooks and changes nothing:
    the same training gives the same weights, bit for bit. Between the steps it looks at it waits for no device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        every: int = 10,
        probe_every: int | None = 400,
        scaler: GradScaler | None = None,
        total_steps: int | None = None,
        batch_size: int | None = None,
        baseline: float | None = None,
        log_dir: str | Path | None = None,
    ) -> None:
        """Begin to watch; steps count from here.

        `model` is the model that is trained, wrapped or not; `optimizer` any of torch's or derived from them.
        Every `every`-th step is measured, about every `probe_every`-th compared with the one before (None: none is);
        both become rarer as the training goes on.
        `scaler` is the GradScaler, where one is used. What it cannot see: `total_steps` is how many steps are planned,
        `batch_size` how many samples make a step, `baseline` the loss of predicting without looking at the inputs
        (log(K) for K classes that are equally frequent). `log_dir` is a folder for metrics.jsonl and TensorBoard
        events, which `optexp diagnose` reads too; it must not hold a run.

        Raises BadInput for what is none of these.
        """
        for name, value, optional in (
            ("every", every, False),
            ("probe_every", probe_every, True),
            ("total_steps", total_steps, True),
            ("batch_size", batch_size, True),
        ):
            _check_count(name, value, optional)
        if baseline is not None and not (_is_number(baseline) and 0 < baseline < math.inf):
            raise BadInput(f"baseline={baseline}: allowed are positive numbers, and None")
        if scaler is not None and not isinstance(scaler, GradScaler):
            raise BadInput(f"scaler: is a {type(scaler).__name__}; allowed is a torch.amp.GradScaler")
        self._model, self._optimizer = innermost_model(model), innermost_optimizer(optimizer)
        check_parameters(self._model, self._optimizer)
        self._scaler = scaler
        self._total_steps, self._batch_size, self._baseline = total_steps, batch_size, baseline
        self._steps = 0
        self._losses: list[Scalar] = []  # of the steps since the last row
        self._status = "running"
        self._reason: str | None = None
        self._start = time.perf_counter()
        self._inputs = InputFacts()
        self._journal = Journal(None)
        if log_dir is not None:
            self._journal.record = Record(Path(log_dir), self._config(), self._facts())
        self._watch = Watch(self._model, self._optimizer, scaler, batch_size)
        self._forward = model.register_forward_pre_hook(self._inputs, with_kwargs=True)
        self._applied = None if scaler is None else AppliedSteps(self._optimizer)
        self._told = 0  # calls of `step` that this had counted when the last loss was told
        self._release = weakref.finalize(self, _release, self._watch, self._forward, self._applied, self._journal)
        self._looks = looks(every, probe_every, total_steps)
        self._watching = False  # whether the next step is looked at
        self._careful = True  # whether it must be made sure that the next call of `step` comes after a step
        self._next, self._look = next(self._looks)
        self._prepare()

    def step(self, loss: Tensor | float) -> None:
        """Tell the loss of the step that the optimizer has just taken: one number, usually the mean over the batch.

        With gradient accumulation that is the mean of the parts. Raises BadInput when the optimizer has not taken one
        step since the last call (a GradScaler may leave steps out: then nothing happens), and for what is no number.
        """
        if self._careful and not self._is_step():
            return
        self._losses.append(_number("monitor.step(loss)", loss))
        self._steps += 1
        if self._steps == self._turn:
            if self._watching:
                self._take()
            elif all(isinstance(loss, Tensor) for loss in self._losses):
                self._losses = [torch.cat(self._losses)]  # type: ignore[arg-type]
            self._prepare()

    def _is_step(self) -> bool:
        """Return whether a step was taken, false where a GradScaler has left it out. Raises BadInput if nobody has."""
        if self._status != "running":
            raise BadInput("monitor.step(loss): the monitor is closed")
        if self._applied is not None:
            told, self._told = self._told, self._applied.calls
            return self._told != told
        taken = self._watch.taken
        if taken != 1:
            raise BadInput(
                f"monitor.step(loss): the optimizer has taken {taken or 'no'} step{'s' * (taken > 1)} since the last "
                "call; allowed is one call behind each optimizer.step() (a GradScaler, which leaves steps out, goes to "
                "Monitor as scaler=)"
            )
        return True

    def _take(self) -> None:
        """Take in what was measured of the step that was looked at, and prepare for the next one."""
        observed = self._watch.stop()
        self._forward.remove()
        if observed is not None:
            self._add(observed)
        self._next, self._look = next(self._looks)

    def _add(self, observed: Observation) -> None:
        seconds = time.perf_counter() - self._start
        left_out = None if self._applied is None else self._applied.left_out
        self._journal.add(Measurement(observed, self._steps, self._losses, seconds, left_out))
        self._losses = []

    def _prepare(self) -> None:
        """Look at the next step if it is one to look at, else come back right before the one that is."""
        self._watching = self._next == self._steps + 1
        self._careful = self._watching or self._applied is not None
        self._turn = self._next if self._watching else min(self._next - 1, self._steps + MOST_LOSSES)
        if self._watching:
            self._watch.start(self._look)

    def validation(self, loss: Tensor | float, accuracy: Tensor | float | None = None) -> None:
        """Tell the loss on data that are not trained on, and the accuracy, from 0 to 1, where there is one."""
        row: Row = {"step": self._steps, "time": time.perf_counter() - self._start}
        row["val/loss"] = float(_number("monitor.validation(loss)", loss))
        if accuracy is not None:
            row["val/accuracy"] = share = float(_number("monitor.validation(accuracy)", accuracy))
            if not 0 <= share <= 1:
                raise BadInput(f"monitor.validation(accuracy={share:g}): allowed are shares, from 0 to 1")
        self._journal.add_validation(row)

    def watch(self, train_step: Callable[P, Loss]) -> Callable[P, Loss]:
        """Make a function that takes one optimizer step and returns its loss tell it by itself: a decorator."""

        @functools.wraps(train_step)
        def watched(*args: P.args, **kwargs: P.kwargs) -> Loss:
            loss = train_step(*args, **kwargs)
            self.step(loss)  # type: ignore[arg-type]
            return loss

        return watched

    def history(self) -> History:
        """Return all that a diagnosis looks at; waits for what is on its way from the device."""
        self._settle()
        status, reason = self._ending()
        measured = self._journal.measured
        return History(
            rows=self._journal.rows(),
            status=status,
            reason=reason,
            total_steps=self._total_steps,
            optimizer=type(self._optimizer).__name__,
            settings=self._settings(),
            schedule=rows.warmup(measured),
            clip_norm=rows.clip_norm(measured),
            batch_size=self._batch_size,
            objective="classification" if any("val/accuracy" in row for row in self._journal.validations) else None,
            baseline=self._baseline,
            inputs=self._inputs.read(),
            differing=tuple(differing_settings(self._groups())),
            trainable=self._sizes()["trainable"],
            parameters=self._sizes()["parameters"],
        )

    def diagnose(self) -> Diagnosis:
        """Return the diagnosis of the training so far, as `optexp diagnose` makes it of a run."""
        return diagnose(self.history())

    def report(self) -> str:
        """Return the diagnosis as text: outcome, causes with evidence, and what to change."""
        history = self.history()
        return text.report(diagnose(history), history)

    def close(self) -> None:
        """Remove all hooks and finish the files; what was measured can still be asked for."""
        self._close("completed", None)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self._close("completed", None)
        else:
            said = (str(error).strip().splitlines() or [""])[0]
            status = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
            self._close(status, f"{kind.__name__}: {said}" if said else kind.__name__)

    def _close(self, status: str, reason: str | None) -> None:
        if self._status != "running":
            return
        self._release()
        self._careful = True
        self._settle()
        self._status, self._reason = status, reason
        if self._journal.record is not None:
            self._journal.record.close(*self._ending(), self._config(), self._facts())

    def _settle(self) -> None:
        """Take in all rows, and the losses since the last one."""
        if self._losses:
            self._add(Observation.of_nothing())
        self._journal.settle()

    def _ending(self) -> tuple[str, str | None]:
        """Return status and reason as a run has them: one whose loss is no number any more has diverged."""
        if self._journal.not_finite is not None and self._status in ("running", "completed"):
            step, loss = self._journal.not_finite
            return "diverged", f"train/loss is {loss} at step {step}"
        return self._status, self._reason

    def _settings(self) -> dict[str, Any]:
        """Return the settings of the optimizer's first group, lr before schedule and warm-up."""
        group = self._optimizer.param_groups[0]
        return {key: _plain(value) for key, value in group.items() if key != "params"} | {
            "lr": rows.base_lr(self._journal.measured, group)
        }

    def _groups(self) -> list[dict[str, Any]]:
        """Return what run.json says of each parameter group."""
        return rows.group_facts(self._journal.measured, self._optimizer.param_groups)

    def _sizes(self) -> dict[str, int]:
        """Return how many numbers are trained, and how many the model has."""
        held = {id(parameter) for group in self._optimizer.param_groups for parameter in group["params"]}
        own = list(self._model.parameters())
        trained = sum(p.numel() for p in own if p.requires_grad and id(p) in held)
        return {"trainable": trained, "parameters": sum(p.numel() for p in own)}

    def _config(self) -> dict[str, Any]:
        """Return the settings as a run's config has them, as far as they are known."""
        kind, schedule = type(self._optimizer), rows.warmup(self._journal.measured)
        config: dict[str, Any] = {
            "model": {"_target_": f"{type(self._model).__module__}.{type(self._model).__qualname__}"},
            "dataset": {"batch_size": self._batch_size},
            "optimizer": {"_target_": f"{kind.__module__}.{kind.__qualname__}", **self._settings()},
            "engine": {"clip_norm": rows.clip_norm(self._journal.measured)},
        }
        return config if schedule is None else {**config, "schedule": {"warmup_steps": schedule.warmup_steps}}

    def _facts(self) -> dict[str, Any]:
        """Return what belongs into run.json."""
        inputs = self._inputs.read()
        return {
            "total_steps": self._total_steps,
            "data": {"batch_size": self._batch_size, "inputs": inputs},
            "model": self._sizes(),
            "parameter_groups": self._groups(),
            "baselines": {} if self._baseline is None else {"class frequencies": self._baseline},
        }


def _release(watch: Watch, forward: RemovableHandle, applied: AppliedSteps | None, journal: Journal) -> None:
    """Remove all hooks and write what waits."""
    watch.stop()
    forward.remove()
    if applied is not None:
        applied.close()
    journal.flush()


def _check_count(name: str, value: Any, optional: bool) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{name}={value!r}: allowed are whole numbers from 1" + (", and None" if optional else ""))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(name: str, value: Any) -> Scalar:
    """Return a loss as a number, or as a copy on its device: its own memory may be used again, as by CUDA graphs."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise BadInput(f"{name}: has the shape {list(value.shape)}; allowed is one number, such as a mean")
        return value.item() if value.is_cpu else value.detach().reshape(1).clone()
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: is a {type(value).__name__}; allowed is one number, or a tensor of one") from error


def _plain(value: Any) -> Any:
    """Return a setting as YAML can hold it."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
