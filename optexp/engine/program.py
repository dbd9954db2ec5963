"""A program takes optimizer steps. The loop drives it and does not know how many runs it trains at once.

`SingleRun` trains one: a torch model with a torch optimizer, the real thing that users run. A program that trains
several members in one go answers the same calls, with one entry per member.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from optexp.optimizers.stepping import unannotated_step

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
        # GradScaler takes the optimizer's flags for itself, so with fp16 the host looks at each loss.
        self.guard = guard or Guard(optimizer, self._device, on_device=False if precision.scaler.is_enabled() else None)
        self.apply_update = unannotated_step(optimizer)
        self.update_ratio = UpdateRatio(self.parameters)
        self.step_state = attach_step_state(model)
        self.step_state.seed = seed
        self.draws_globally = not type(model).__module__.startswith("optexp.")
        self.divergences: dict[int, Divergence] = {}
        self.losses: list[Scalar] = []  # of the steps since the last reading; reading them is the synchronization
        self.first_unread = 1  # the step (from 1) of the first of them
        self.norms: list[Scalar] = []
        self.observations: dict[str, Scalar] = {}
        self.accuracy: Tensor | None = None  # [correct, number] of the observed step
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
        self.precision.scaler.unscale_(self.optimizer)  # fp16: before anything looks at the gradients
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        on_host = self._reads_freely
        loss: Scalar = mean_loss.item() if on_host else mean_loss
        norm = global_norm(gradients, on_host)
        if not self.losses:
            self.first_unread = step + 1
        self.losses.append(loss)
        self.norms.append(norm)
        if not self.guard.allows(loss, 0.0 if self._overflow_can_be_cured else norm):
            found = first_nonfinite(step + 1, [float(loss)], [float(norm)])
            assert found is not None
            self.divergences[0] = found
            return [0]
        if self.clip_norm is not None:
            clip(gradients, norm, self.clip_norm)
        if observed:
            self.update_ratio.before_step()
        self._update()
        if observed:
            ratio, weight_norm = self.update_ratio.after_step(on_host)
            self.observations |= {"optim/update_ratio": ratio, "optim/weight_norm": weight_norm}
        return []

    def _update(self) -> None:
        if self.precision.scaler.is_enabled():
            self.precision.scaler.step(self.optimizer)
            self.precision.scaler.update()
        else:
            self.apply_update()

    @property
    def _overflow_can_be_cured(self) -> bool:
        """Whether a gradient that is not finite may be an overflow of fp16, which a smaller loss scale avoids."""
        return self.precision.scaler.is_enabled() and self.precision.scaler.get_scale() > 1.0

    @property
    def _reads_freely(self) -> bool:
        """Whether the host may read a number at every step: on a CPU there is nothing to wait for."""
        return self._device.type == "cpu" and not self.guard.on_device

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
            with self.precision.autocast():
                outputs = self.forward(self.precision.cast(part.inputs))
                part_loss = self.objective.loss(outputs, self.precision.cast(part.targets), count)
            self.precision.scaler.scale(part_loss).backward()
            losses.append(part_loss.detach())
            if observed and self.objective.has_accuracy:
                counted = torch.stack(self.objective.accuracy(outputs, part.targets))
                self.accuracy = counted if self.accuracy is None else self.accuracy + counted
        return losses[0] if whole else torch.stack(losses).sum()

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
        if self.accuracy is not None:
            correct, number = self.accuracy.tolist()
            values["train/accuracy"] = correct / max(number, 1)
        values |= {tag: float(value) for tag, value in self.observations.items()}
        if self.precision.scaler.is_enabled():
            values["optim/loss_scale"] = self.precision.scaler.get_scale()
        self.losses, self.norms, self.observations, self.accuracy = [], [], {}, None
        return [values]

    @torch.no_grad()
    def evaluate(self, batches: EvalBatches) -> list[dict[str, float]]:
        """Return the mean loss and, except for regression, the accuracy over a split."""
        self.model.eval()
        self._switch_optimizer("eval")
        sums = torch.zeros(4, dtype=torch.float64, device="cpu" if self._device.type == "mps" else self._device)
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

    @property
    def _device(self) -> torch.device:
        return self.parameters[0].device

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
        self.losses = [_at(value, self._device) for value in tree["unread"]["losses"]]
        self.norms = [_at(value, self._device) for value in tree["unread"]["norms"]]


def _numbers(scalars: Sequence[Scalar]) -> list[float]:
    """Read scalars, those on the device all at once."""
    if scalars and isinstance(scalars[0], Tensor):
        values: list[float] = torch.stack([torch.as_tensor(scalar) for scalar in scalars]).float().tolist()
        return values
    return [float(scalar) for scalar in scalars]


def _at(scalar: Scalar, device: torch.device) -> Scalar:
    return scalar.to(device) if isinstance(scalar, Tensor) else scalar
