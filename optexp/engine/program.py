"""A program takes optimizer steps. The loop drives it and does not know how many runs it trains at once.

`SingleRun` trains one: a torch model with a torch optimizer, the real thing that users run. A program that trains
several members in one go answers the same calls, with one entry per member.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp import streams
from optexp.datasets.batches import Batch, EvalBatches, TrainBatches
from optexp.engine import state
from optexp.engine.clipping import clip
from optexp.engine.guard import Divergence, Guard, first_nonfinite
from optexp.engine.objective import Objective
from optexp.engine.runtime import Precision
from optexp.instruments.norms import Scalar, global_norm
from optexp.instruments.step_size import UpdateRatio, effective_lr
from optexp.nn import attach_step_state, draw_outside_compilation
from optexp.optimizers.stepping import direct_step

Tree = dict[str, Any]


class Program(Protocol):
    """What the loop needs from whatever takes the steps. Lists have one entry per member, in a fixed order."""

    @property
    def divergences(self) -> dict[int, Divergence]:
        """The members that met a non-finite value, by index. Their weights are those before that step."""

    def step(self, step: int, learning_rates: Sequence[float], observed: bool) -> Sequence[int]:
        """Take optimizer step `step` (from 0); `observed` asks for the instruments that are not free.

        Returns the members that are known to have diverged at this step: they were not updated. Where that would make
        the host wait for the device, it is empty, and `read` finds out.
        """

    def read(self, members: Sequence[int]) -> list[dict[str, float]]:
        """Return the training metrics of the given members since the last reading of each, and enter divergences.

        Synchronizes with the device.
        """

    def evaluate(self, batches: EvalBatches) -> list[dict[str, float]]:
        """Return loss (and accuracy) over a whole split, in evaluation mode."""

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members only. They are numbered anew, from 0, in this order."""

    def state(self, member: int) -> Tree:
        """Return everything a member needs to go on as if it had never stopped."""

    def load_state(self, member: int, tree: Tree) -> None:
        """Take the state that `state` returned."""


class SingleRun:
    """One model, one optimizer, one update per step."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        objective: Objective,
        batches: TrainBatches,
        precision: Precision,
        *,
        seed: int,
        clip_norm: float | None = None,
        accumulate: int = 1,
        compiled: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.batches = batches
        self.precision = precision
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        if compiled:
            draw_outside_compilation(model)
        self.forward = torch.compile(model) if compiled else model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device
        self.scaler = precision.scaler if precision.scaler.is_enabled() else None
        self.casts = precision.dtype is not None or precision.parameter_dtype != torch.float32
        self.runs_engine = not compiled and _engine_is_as_known()
        self.one = torch.empty(0)  # the gradient of the loss with respect to itself
        # GradScaler takes the optimizer's flags for itself, so with fp16 the host looks at each loss.
        self.guard = guard or Guard(optimizer, self.device, on_device=False if self.scaler else None)
        self.apply_update = direct_step(optimizer) if self.scaler is None else self._scaled_update
        self.update_ratio = UpdateRatio(self.parameters)
        self.step_state = attach_step_state(model)
        self.step_state.seed = seed
        self.draws_globally = not type(model).__module__.startswith("optexp.")
        self.divergences: dict[int, Divergence] = {}
        self.losses: list[Scalar] = []  # of the steps since the last reading; reading them is the synchronization
        self.first_unread = 1  # the step (from 1) of the first of them
        self.norms: list[Scalar] = []
        self.observations: dict[str, Scalar] = {}
        self.hits: list[tuple[Tensor, Tensor]] = []  # correct predictions and all, of the parts of observed steps
        model.train()
        self._switch_optimizer("train")

    def step(self, step: int, learning_rates: Sequence[float], observed: bool) -> Sequence[int]:
        """Take one optimizer step. Nothing here waits for the device, but for the guard where it must (see there)."""
        batch = self.batches.take(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rates[0]
        for parameter in self.parameters:
            parameter.grad = None
        mean_loss = self._backward(batch, step, observed)  # over the batch, in parts when accumulating
        if self.scaler is not None:  # fp16: before anything looks at the gradients
            self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        on_host = self.device.type == "cpu" and not self.guard.on_device  # where there is nothing to wait for
        loss: Scalar = mean_loss.item() if on_host else mean_loss
        norm = global_norm(gradients, on_host)
        if not self.losses:
            self.first_unread = step + 1
        self.losses.append(loss)
        self.norms.append(norm)
        if not self.guard.allows(loss, 0.0 if self._overflow_can_be_cured() else norm):
            found = first_nonfinite(step + 1, [float(loss)], [float(norm)])
            assert found is not None
            self.divergences[0] = found
            return [0]
        if self.clip_norm is not None:
            clip(gradients, norm, self.clip_norm)
        if observed:
            self.update_ratio.before_step()
        self.apply_update()
        if observed:
            ratio, weight_norm = self.update_ratio.after_step(on_host)
            self.observations |= {"optim/update_ratio": ratio, "optim/weight_norm": weight_norm}
        return []

    def _scaled_update(self) -> None:
        assert self.scaler is not None
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _overflow_can_be_cured(self) -> bool:
        """Whether a gradient that is not finite may be an overflow of fp16, which a smaller loss scale avoids."""
        return self.scaler is not None and self.scaler.get_scale() > 1.0

    def _backward(self, batch: Batch, step: int, observed: bool) -> Tensor:
        """Compute loss and gradients; parts of a batch are weighted by the predictions of the whole."""
        whole = self.accumulate == 1
        count = None if whole else self.objective.count(batch.targets)
        parts = [batch] if whole else self._parts(batch)
        losses = []
        for micro, part in enumerate(parts):
            self.step_state.step, self.step_state.micro = step, micro
            if self.draws_globally:
                torch.manual_seed(streams.key(self.step_state.seed, "global", step, micro))
            outputs, part_loss = self._forward(part, count)
            self._differentiate(part_loss if self.scaler is None else self.scaler.scale(part_loss))
            losses.append(part_loss.detach())
            if observed and self.objective.has_accuracy:
                self.hits.append(self.objective.accuracy(outputs, part.targets))
        return losses[0] if whole else torch.stack(losses).sum()

    def _forward(self, batch: Batch, count: Tensor | int | None) -> tuple[Tensor, Tensor]:
        """Return outputs and loss, in the run's precision."""
        if not self.casts:
            outputs = self.forward(batch.inputs)
            return outputs, self.objective.loss(outputs, batch.targets, count)
        with self.precision.autocast():
            outputs = self.forward(self.precision.cast(batch.inputs))
            return outputs, self.objective.loss(outputs, self.precision.cast(batch.targets), count)

    def _differentiate(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the parameters."""
        if not self.runs_engine or type(loss) is not Tensor:
            loss.backward()
            return
        if self.one.shape != loss.shape or self.one.dtype != loss.dtype:
            self.one = torch.ones_like(loss)
        _run_engine(loss, self.one)

    def _parts(self, batch: Batch) -> list[Batch]:
        inputs, targets = batch.inputs.tensor_split(self.accumulate), batch.targets.tensor_split(self.accumulate)
        return [Batch(i, t) for i, t in zip(inputs, targets, strict=True)]

    def keep(self, members: Sequence[int]) -> None:
        """There is only one member, and while there is a loop it goes on."""
        assert list(members) == [0]

    def read(self, members: Sequence[int] = (0,)) -> list[dict[str, float]]:
        """Return the mean loss and clipped fraction since the last reading, and the last step's other quantities."""
        losses, norms = _numbers(self.losses), _numbers(self.norms)
        if self.guard.on_device and (late := first_nonfinite(self.first_unread, losses, norms)) is not None:
            self.divergences[0] = late
        found = self.divergences.get(0)
        if found is not None:  # its update, and all later ones that the device was given, were masked: they never were
            losses, norms = losses[: found.step - self.first_unread], norms[: found.step - self.first_unread]
        values: dict[str, float] = {}
        if losses:
            values = {"train/loss": sum(losses) / len(losses), "optim/grad_norm": norms[-1]}
            if self.clip_norm is not None:
                values["optim/clipped"] = sum(norm > self.clip_norm for norm in norms) / len(norms)
        lr = float(self.optimizer.param_groups[0]["lr"])
        values |= {"optim/lr": lr, "optim/effective_lr": effective_lr(self.optimizer, lr)}
        if self.hits:
            correct, number = (sum(count.item() for count in counts) for counts in zip(*self.hits, strict=True))
            values["train/accuracy"] = correct / max(number, 1)
        values |= {tag: float(value) for tag, value in self.observations.items()}
        if self.scaler is not None:
            values["optim/loss_scale"] = self.scaler.get_scale()
        self.losses, self.norms, self.observations, self.hits = [], [], {}, []
        return [values]

    @torch.no_grad()
    def evaluate(self, batches: EvalBatches) -> list[dict[str, float]]:
        """Return the mean loss and, except for regression, the accuracy over a split."""
        self.model.eval()
        self._switch_optimizer("eval")
        sums = torch.zeros(4, dtype=torch.float64, device="cpu" if self.device.type == "mps" else self.device)
        for batch in batches:
            with self.precision.autocast():
                outputs = self.forward(self.precision.cast(batch.inputs))
            parts = [
                self.objective.total(outputs, self.precision.cast(batch.targets)),
                self.objective.count(batch.targets),
            ]
            parts += self.objective.accuracy(outputs, batch.targets) if self.objective.has_accuracy else (0, 0)
            sums += torch.stack([torch.as_tensor(part, device=sums.device).double() for part in parts])
        self.model.train()
        self._switch_optimizer("train")
        loss, count, correct, _ = sums.tolist()
        values = {"loss": loss / count}
        if self.objective.has_accuracy:
            values["accuracy"] = correct / count
        return [values]

    def _switch_optimizer(self, mode: str) -> None:
        """Schedule-free optimizers evaluate at other weights than they train at, and switch between them."""
        switch = getattr(self.optimizer, mode, None)
        if callable(switch):
            switch()

    def state(self, member: int) -> Tree:
        """Return model, optimizer, loss scale and the unread part of the current logging interval."""
        return {
            "model": dict(self.model.state_dict()),
            "optimizer": state.optimizer_state(self.model, self.optimizer),
            "scaler": self.precision.scaler.state_dict(),
            "unread": {"first": self.first_unread, "losses": list(self.losses), "norms": list(self.norms)},
        }

    def load_state(self, member: int, tree: Tree) -> None:
        """Take what `state` returned; raises BadInput where names or shapes do not fit this run."""
        state.load_model_state(self.model, tree["model"])
        state.load_optimizer_state(self.model, self.optimizer, tree["optimizer"])
        if tree["scaler"]:
            self.precision.scaler.load_state_dict(tree["scaler"])
        self.first_unread = tree["unread"]["first"]
        self.losses = [_at(value, self.device) for value in tree["unread"]["losses"]]
        self.norms = [_at(value, self.device) for value in tree["unread"]["norms"]]


def _numbers(scalars: Sequence[Scalar]) -> list[float]:
    """Read scalars, those on the device all at once."""
    if scalars and isinstance(scalars[0], Tensor):
        values: list[float] = torch.stack([torch.as_tensor(scalar) for scalar in scalars]).float().tolist()
        return values
    return [float(scalar) for scalar in scalars]


def _at(scalar: Scalar, device: torch.device) -> Scalar:
    return scalar.to(device) if isinstance(scalar, Tensor) else scalar


def _run_engine(loss: Tensor, gradient: Tensor) -> None:
    """Do what `loss.backward(gradient)` does after checking its arguments.

    On a small model the checks, which are made in Python, take a tenth of the time of a step.
    """
    engine: Any = torch.autograd.Variable._execution_engine
    engine.run_backward((loss,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)


@cache
def _engine_is_as_known() -> bool:
    """Return whether this version of torch lets its engine be called so; it is not part of the public interface."""
    leaf = torch.ones((), requires_grad=True)
    try:
        with torch.enable_grad():
            _run_engine(leaf * 3, torch.tensor(2.0))
    except (AttributeError, TypeError, RuntimeError):
        return False
    return leaf.grad is not None and leaf.grad.item() == 6
