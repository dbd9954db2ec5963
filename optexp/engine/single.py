"""One run as a program: a torch model with a torch optimizer, the real thing that users run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp import streams
from optexp.datasets.batches import Batch, EvalBatches, TrainBatches
from optexp.engine import state
from optexp.engine.backward import Backward
from optexp.engine.clipping import clip
from optexp.engine.graphs import CapturedSteps, Graph
from optexp.engine.guard import Divergence, Guard, first_nonfinite
from optexp.engine.hutchinson import HutchinsonBackward
from optexp.engine.objective import Objective
from optexp.engine.program import Tree
from optexp.engine.reevaluation import NotFinite, Reevaluation
from optexp.engine.runtime import Precision
from optexp.engine.step_log import DeviceLog, HostLog, Reading, Row
from optexp.instruments.look import Look
from optexp.instruments.norms import Scalar, global_norm
from optexp.instruments.observer import Numbers, Observer
from optexp.instruments.rules import SingleRule
from optexp.instruments.step_size import effective_lr
from optexp.nn import attach_step_state, draw_outside_compilation
from optexp.optimizers import demands
from optexp.optimizers.stepping import FusedStep, direct_step
from optexp.transfers import capturing, to_device


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
        captured: bool = False,
        guard: Guard | None = None,
        new_graph: Callable[[], Graph] | None = None,
    ) -> None:
        """`captured` takes whole steps as CUDA graphs where that is possible; `new_graph` makes graphs of another kind.

        `guard` replaces the one that suits the device.
        """
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
        self.hessian = HutchinsonBackward(optimizer, self._generator) if demands.wants_hessian(optimizer) else None
        self.backward = self.hessian or Backward(direct=not compiled)
        closure = demands.wants_closure(optimizer)
        self.reevaluation = Reevaluation(optimizer, model, self.parameters) if closure else None
        # GradScaler takes the optimizer's flags for itself, so with fp16 the host looks at each loss.
        self.guard = guard or Guard(optimizer, self.device, on_device=False if self.scaler else None)
        self.on_host = self.device.type == "cpu" and not self.guard.on_device  # where there is nothing to wait for
        self.apply_update = direct_step(optimizer) if self.scaler is None else self._scaled_update
        if self.hessian is not None:
            self.apply_update = self.hessian.update
        self.optimizer_draws = demands.may_draw(optimizer)
        self.observer = Observer(SingleRule(optimizer, model), batches.batch_size)
        self.step_state = attach_step_state(model)
        self.step_state.seed = seed
        self.draws_globally = not type(model).__module__.startswith("optexp.")
        self.learning_rate = 0.0
        self.divergences: dict[int, Divergence] = {}
        self.log = HostLog() if self.on_host else DeviceLog(self.parameters[0])
        self.observations: dict[str, Tensor] = {}  # [1, ...] each: a stack has an entry for every member
        self.take: Callable[[Look], dict[str, Tensor]] = self._take
        self.why_not_captured = self._obstacle()
        if captured and self.why_not_captured is None:
            self.take = CapturedSteps(self._take, self._tensors, self.device, new_graph, self._seed_generators)
        model.train()
        if demands.has_modes(optimizer):
            optimizer.train()  # type: ignore[attr-defined]

    def _obstacle(self) -> str | None:
        """Return what keeps a step from being captured: that it waits for the host, or asks it for more than its batch,
        its learning rate and random keys."""
        if not (isinstance(self.apply_update, FusedStep) and self.guard.on_device):
            return f"the update of {type(self.optimizer).__name__} is not one of torch's fused ones"
        if not self.batches.resident:
            return "the data set does not fit on the device"
        if self.precision.parameter_dtype != torch.float32:
            return "torch's kernels read a learning rate on the device in single precision"
        if self.draws_globally and self.accumulate > 1:
            return "the model draws from torch's generators, which are set for each part of an accumulated batch"
        return None

    def step(self, step: int, learning_rates: Sequence[float], look: Look = Look.NOTHING) -> Sequence[int]:
        """Take one optimizer step. Nothing here waits for the device, but for the guard where it must (see there)."""
        self.step_state.step, self.step_state.micro = step, 0
        self.learning_rate = learning_rates[0]
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        if not isinstance(self.take, CapturedSteps):
            self._seed_generators()
        observations = self.take(look)
        self.log.advance(step + 1)
        if observations:
            self.observations = observations
        return list(self.divergences)

    def _take(self, look: Look) -> dict[str, Tensor]:
        """Do all of a step that is done on the device. Returns what was measured, for an observed step."""
        batch = self.batches.at(self._clock)
        loss, gradients, norm, observations = self._evaluate(batch, look.accuracy)
        self.log.write(loss, norm)
        if not self.guard.allows(loss, 0.0 if self._overflow_can_be_cured() else norm):
            self._diverge(float(loss), float(norm))
            return observations
        coefficient = None if self.clip_norm is None else clip(gradients, norm, self.clip_norm)
        if look.looks:
            self.observer.before(look, coefficient)
        if self.optimizer_draws:
            self._seed_update()
        if self.reevaluation is None:
            self._update()
        else:
            self._update_by_closure(self.reevaluation, batch, loss)
        return observations | self.observer.after(look) if look.looks else observations

    def _evaluate(self, batch: Batch, observed: bool) -> tuple[Scalar, list[Tensor], Scalar, dict[str, Tensor]]:
        """Return loss, gradients and their norm at the weights as they are, and what was observed beside them."""
        for parameter in self.parameters:
            parameter.grad = None
        loss, observations = self._backward(batch, observed)  # over the batch, in parts when accumulating
        if self.scaler is not None:  # fp16: before anything looks at the gradients
            self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return loss, gradients, global_norm(gradients, self.on_host), observations

    def _diverge(self, loss: float, norm: float) -> None:
        found = first_nonfinite(self.step_state.step + 1, [loss], [norm])
        assert found is not None
        self.divergences[0] = found

    def _clock(self) -> int:
        return self.step_state.step

    def _seed_generators(self) -> None:
        """Set torch's generators for models that draw from them, so that any step can be repeated alone."""
        if self.draws_globally:
            torch.manual_seed(streams.key(self.step_state.seed, "global", self.step_state.step, self.step_state.micro))

    def _seed_update(self) -> None:
        """Set all generators that an optimizer may draw from: torch's, numpy's (as Kron) and Python's (as SaRA)."""
        key = streams.key(self.step_state.seed, "update", self.step_state.step)
        torch.manual_seed(key)
        random.seed(key)
        np.random.seed(key % 2**32)

    def _generator(self) -> torch.Generator:
        """Return the stream of the random vectors of this step's Hessian-vector products."""
        return streams.generator(self.step_state.seed, "hessian", self.step_state.step)

    def _update(self) -> None:
        """Update the parameters; a captured update reads the learning rate from the device."""
        if not capturing():
            self.apply_update()
            return
        rate = to_device(lambda: torch.tensor(self.learning_rate), self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        try:
            self.apply_update()
        finally:
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate

    def _update_by_closure(self, reevaluation: Reevaluation, batch: Batch, loss: Scalar) -> None:
        """Let the optimizer evaluate the batch as often as it wants; a result that is not finite ends the run."""

        def evaluate() -> tuple[Scalar, Scalar]:
            self.step_state.micro = 0
            self._seed_generators()
            again, gradients, norm, _ = self._evaluate(batch, False)
            if self.clip_norm is not None:
                clip(gradients, norm, self.clip_norm)
            return again, norm

        try:
            reevaluation.update(loss, evaluate)
        except NotFinite as found:
            self._diverge(found.loss, found.norm)

    def _scaled_update(self) -> None:
        assert self.scaler is not None
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _overflow_can_be_cured(self) -> bool:
        """Whether a gradient that is not finite may be an overflow of fp16, which a smaller loss scale avoids."""
        return self.scaler is not None and self.scaler.get_scale() > 1.0

    def _backward(self, batch: Batch, observed: bool) -> tuple[Scalar, dict[str, Tensor]]:
        """Compute loss and gradients; parts of a batch are weighted by the predictions of the whole."""
        whole = self.accumulate == 1
        count = None if whole else self.objective.count(batch.targets)
        parts = [batch] if whole else self._parts(batch)
        losses, hits = [], []
        for micro, part in enumerate(parts):
            self.step_state.micro = micro
            if micro:
                self._seed_generators()
            if self.hessian is None:
                outputs, part_loss = self._forward(part, count)
            else:
                with self.hessian.differentiable():
                    outputs, part_loss = self._forward(part, count)
            self.backward(part_loss if self.scaler is None else self.scaler.scale(part_loss))
            losses.append(part_loss.detach())
            if observed and self.objective.has_accuracy:
                hits.append(self.objective.accuracy(outputs, part.targets))
        loss = losses[0] if whole else torch.stack(losses).sum()
        observations: dict[str, Tensor] = {}
        if hits:
            correct, number = (sum(counts[1:], counts[0]) for counts in zip(*hits, strict=True))
            observations = {"correct": correct.view(1), "number": number.view(1)}
        return loss.item() if self.on_host else loss, observations

    def _forward(self, batch: Batch, count: Tensor | int | None) -> tuple[Tensor, Tensor]:
        """Return outputs and loss, in the run's precision."""
        if not self.casts:
            outputs = self.forward(batch.inputs)
            return outputs, self.objective.loss(outputs, batch.targets, count)
        with self.precision.autocast():
            outputs = self.forward(self.precision.cast(batch.inputs))
            return outputs, self.objective.loss(outputs, self.precision.cast(batch.targets), count)

    def _parts(self, batch: Batch) -> list[Batch]:
        inputs, targets = batch.inputs.tensor_split(self.accumulate), batch.targets.tensor_split(self.accumulate)
        return [Batch(i, t) for i, t in zip(inputs, targets, strict=True)]

    def read(self, members: Sequence[int] = (0,)) -> Reading:
        """Ask for the mean loss and clipped fraction since the last reading, and the last step's other quantities."""
        first, lr, observed, sizes = self.log.first, self.learning_rate, self.observations, self.observer.reading()
        fixed = {"optim/lr": lr, "optim/effective_lr": effective_lr(self.optimizer, lr)}
        if self.scaler is not None:
            fixed["optim/loss_scale"] = self.scaler.get_scale()
        if isinstance(self.log, HostLog):
            losses, norms = self.log.losses, self.log.norms
            numbers = {tag: value[0].tolist() for tag, value in observed.items()}
            row = self._row(first, losses, norms, fixed, numbers, sizes)
            reading = Reading(lambda _: [row])
        else:

            def rows(found: list[Tensor]) -> list[Row]:
                entries, *values = found
                numbers = {tag: value[0].tolist() for tag, value in zip(observed, values, strict=True)}
                return [self._row(first, entries[:, 0].tolist(), entries[:, 1].tolist(), fixed, numbers, sizes)]

            reading = Reading(rows, [self.log.entries(), *observed.values()])
        self.log.forget()
        self.observations = {}
        return reading

    def _row(
        self,
        first: int,
        losses: list[float],
        norms: list[float],
        fixed: Row,
        observed: Numbers,
        sizes: Callable[[Numbers, int], Row],
    ) -> Row:
        """Return the measurements of steps from `first` on, and enter a divergence among them."""
        if self.guard.on_device and (late := first_nonfinite(first, losses, norms)) is not None:
            self.divergences.setdefault(0, late)
        found = self.divergences.get(0)
        if found is not None:  # its update, and all later ones that the device was given, were masked: they never were
            applied = max(found.step - first, 0)
            losses, norms, observed = losses[:applied], norms[:applied], {}
        row: Row = {}
        if losses:
            row = {"train/loss": sum(losses) / len(losses), "optim/grad_norm": norms[-1]}
            if self.clip_norm is not None:
                row["optim/clipped"] = sum(norm > self.clip_norm for norm in norms) / len(norms)
        row |= fixed
        if "number" in observed:
            row["train/accuracy"] = observed["correct"] / max(observed["number"], 1)
        return row | sizes(observed, 0)

    def keep(self, members: Sequence[int]) -> None:
        """There is only one member, and while there is a loop it goes on."""
        assert list(members) == [0]

    @torch.no_grad()
    def evaluate(self, batches: EvalBatches) -> list[dict[str, float]]:
        """Return the mean loss and, except for regression, the accuracy over a split."""
        self.model.eval()
        sums = torch.zeros(4, dtype=torch.float64, device="cpu" if self.device.type == "mps" else self.device)
        with self._averaged():
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
        loss, count, correct, _ = sums.tolist()
        values = {"loss": loss / count}
        if self.objective.has_accuracy:
            values["accuracy"] = correct / count
        return [values]

    @contextmanager
    def _averaged(self) -> Iterator[list[Tensor]]:
        """Let the model have the weights that a schedule-free optimizer evaluates at; yields copies of the others.

        They are put back from the copies: the optimizer's own way back rounds, and looking must change nothing.
        """
        if not demands.has_modes(self.optimizer):
            yield []
            return
        trained = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer.eval()  # type: ignore[attr-defined]
        try:
            yield trained
        finally:
            self.optimizer.train()  # type: ignore[attr-defined]
            state.put(self.parameters, trained)

    def _tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        of_optimizer = [
            value for slots in self.optimizer.state.values() for value in slots.values() if isinstance(value, Tensor)
        ]
        flags = [self.guard.raised] if self.guard.on_device else []
        return [*self.parameters, *self.model.buffers(), *of_optimizer, *flags]

    def state(self, member: int) -> Tree:
        """Return model, optimizer, loss scale and the unread part of the current logging interval.

        The model has the weights that were evaluated; where the optimizer trains at others, these come along.
        """
        with self._averaged() as trained:
            weights = {name: value.clone() if trained else value for name, value in self.model.state_dict().items()}
        tree = {
            "model": weights,
            "optimizer": state.optimizer_state(self.model, self.optimizer),
            "scaler": self.precision.scaler.state_dict(),
            "unread": {"first": self.log.first, "losses": list(self.log.losses), "norms": list(self.log.norms)},
            "remembered": self.observer.state(0),
        }
        return {**tree, "trained": trained} if trained else tree

    def load_state(self, member: int, tree: Tree) -> None:
        """Take what `state` returned; raises BadInput where names or shapes do not fit this run."""
        state.load_model_state(self.model, tree["model"])
        if "trained" in tree:
            state.put(self.parameters, tree["trained"])
        state.load_optimizer_state(self.model, self.optimizer, tree["optimizer"])
        if tree["scaler"]:
            self.precision.scaler.load_state_dict(tree["scaler"])
        self.observer.load_state({0: tree.get("remembered", {})})
        unread = tree["unread"]
        self.log.restore(unread["first"], unread["losses"], unread["norms"])
