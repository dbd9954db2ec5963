"""R runs in one program: they differ in numbers and seeds only, and every operation does the work of all of them.

Members share nothing but the calls. Each has its own weights, data order, dropout masks, learning rate, clipping norm
and non-finite check, and its trajectory is that of its single run up to rounding. Dropping members changes not one bit
of the others, because every operation of the layers of optexp.nn computes a member's numbers in the same way for any
number of members from two on (on CPUs: tests/engine/test_fused_members.py); a program therefore never shrinks to one
row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp.datasets.batches import Batch, EvalBatches, TrainBatches
from optexp.engine import state
from optexp.engine.graphs import CapturedSteps, Graph
from optexp.engine.guard import Divergence, first_nonfinite
from optexp.engine.objective import StackedObjective
from optexp.engine.program import Tree
from optexp.engine.runtime import Precision
from optexp.engine.step_log import DeviceLog, HostLog, Reading, Row
from optexp.instruments.look import Look
from optexp.instruments.norms import member_norms
from optexp.instruments.observer import Numbers, Observer
from optexp.instruments.rules import StackedRule
from optexp.instruments.step_size import effective_lr
from optexp.nn.stacked import attach_stacked_state, select_members
from optexp.optimizers.stacked import StackedOptimizer

FEWEST = 2  # rows; see above


class FusedRuns:
    """R models with R optimizers, one update of each per step."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: StackedOptimizer,
        singles: Sequence[Optimizer],
        objective: StackedObjective,
        batches: Sequence[TrainBatches],
        precision: Precision,
        *,
        seeds: Sequence[int],
        clip_norms: Sequence[float | None],
        accumulate: int = 1,
        compiled: bool = False,
        captured: bool = False,
        on_host: bool | None = None,
        new_graph: Callable[[], Graph] | None = None,
    ) -> None:
        """`model` and `optimizer` are stacks of what `singles` (for their settings) and the lists have per member.

        `seeds` has one for each row of the stacks, of which there may be more than members; see `keep`. `on_host`
        replaces the choice that suits the device; `captured` and `new_graph` are those of SingleRun.
        """
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.batches = list(batches)
        self.precision = precision
        self.accumulate = accumulate
        self.forward = torch.compile(model) if compiled else model
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.singles = list(singles)
        self.clip_norms = list(clip_norms)
        self.rows = len(seeds)  # of the tensors; the last ones may belong to nobody, see `keep`
        parameter = next(iter(self.parameters.values()))
        self.device = parameter.device
        # Whether the host may look at numbers at every step, because there is nothing to wait for.
        self.on_host = self.device.type == "cpu" if on_host is None else on_host
        self.step_state = attach_stacked_state(model, seeds, self.device)
        if compiled:  # a key is a hash of the step, which torch.compile would take for a constant and compile anew
            self.step_state.streams = torch.compiler.disable(self.step_state.streams)  # type: ignore[method-assign]
        self.divergences: dict[int, Divergence] = {}
        self.learning_rates = [0.0] * len(self.singles)
        self.log = HostLog() if self.on_host else DeviceLog(parameter, (self.rows,))
        self.observations: dict[str, Tensor] = {}
        self.observer = Observer(StackedRule(optimizer, self.singles[0], model), self.batches[0].batch_size)
        self.remembered: dict[int, Tree] = {}  # of members whose state was loaded, until all are
        self.limits = self._limits()
        self.take: Callable[[Look], dict[str, Tensor]] = self._take
        self.why_not_captured = None if self.batches[0].resident else "the data set does not fit on the device"
        if captured and not self.on_host and self.why_not_captured is None:
            self.take = CapturedSteps(self._take, self._tensors, self.device, new_graph)
        model.train()

    @property
    def members(self) -> int:
        return len(self.singles)

    def step(self, step: int, learning_rates: Sequence[float], look: Look = Look.NOTHING) -> list[int]:
        """Take one optimizer step of every member; return those that are known not to have finite values any more.

        On a CPU the host looks at each step. Elsewhere it learns of a divergence when it reads the metrics: until then
        the member goes on with numbers that nobody will ever see, and nothing here waits for the device.
        """
        self.step_state.step = step
        self.learning_rates = list(learning_rates)
        self.optimizer.prepare(self._padded(self.learning_rates))
        observations = self.take(look)
        self.optimizer.advance()
        self.log.advance(step + 1)
        if observations:
            self.observations = observations
        return self._not_finite(step) if self.on_host else []

    def _take(self, look: Look) -> dict[str, Tensor]:
        """Do all of a step that is done on the device. Returns what was measured, for an observed step."""
        batch = TrainBatches.stacked(self._padded(self.batches), self._clock)
        for parameter in self.parameters.values():
            parameter.grad = None
        losses, observations = self._backward(batch, look.accuracy)
        gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
        norms = member_norms(gradients)
        coefficients = self._clip(gradients, norms)
        if look.looks:
            self.observer.before(look, coefficients)
        self.optimizer.update()
        self.log.write(losses.tolist() if self.on_host else losses, norms.tolist() if self.on_host else norms)
        return observations | self.observer.after(look) if look.looks else observations

    def _clock(self) -> int:
        return self.step_state.step

    def _backward(self, batch: Batch, observed: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute losses [R] and gradients; parts of a batch are weighted by the predictions of the whole."""
        count = self.objective.count(batch.targets)
        inputs = batch.inputs.tensor_split(self.accumulate, dim=1)
        targets = batch.targets.tensor_split(self.accumulate, dim=1)
        total = None
        correct = None
        for micro, (part, wanted) in enumerate(zip(inputs, targets, strict=True)):
            self.step_state.micro = micro
            with self.precision.autocast():
                outputs = self.forward(self.precision.cast(part))
                losses = self.objective.losses(outputs, self.precision.cast(wanted), count)
            losses.sum().backward()  # members share no parameter: the gradient of the sum is that of each
            total = losses.detach() if total is None else total + losses.detach()
            if observed and self.objective.has_accuracy:
                hits = self.objective.accuracy(outputs, wanted)[0]
                correct = hits if correct is None else correct + hits
        assert total is not None
        # The host divides, as for a single run: float32 would record 0.7 as 0.699999988.
        return total, {} if correct is None else {"correct": correct, "number": count.clamp(min=1)}

    def _clip(self, gradients: list[Tensor], norms: Tensor) -> Tensor | None:
        """Scale each member's gradients in place by min(1, limit / norm), as torch's clip_grad_norm_ does.

        Returns the factors [R], None when no member is clipped ever.
        """
        if self.limits is None:
            return None
        factors = (self.limits / (norms + 1e-6)).clamp(max=1.0)
        if self.on_host and bool((factors == 1).all()):
            return factors
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *(1,) * (gradient.ndim - 1)))
        return factors

    def _limits(self) -> Tensor | None:
        """Return the clipping norms [R] on the device, infinite for rows that are not clipped; None when none is."""
        if all(limit is None for limit in self.clip_norms):
            return None
        limits = [math.inf if limit is None else limit for limit in self._padded(self.clip_norms)]
        return torch.tensor(limits, dtype=self.precision.parameter_dtype, device=self.device)

    def _not_finite(self, step: int) -> list[int]:
        """Enter the members whose loss or gradient of this step is not finite into `divergences`; return them."""
        losses, norms = self.log.losses[-1], self.log.norms[-1]
        found = [member for member in range(self.members) if not math.isfinite(losses[member] + norms[member])]
        for member in found:
            self._enter(member, step + 1, [losses[member]], [norms[member]])
        return [member for member in found if member in self.divergences]

    def _enter(self, member: int, first_step: int, losses: list[float], norms: list[float]) -> None:
        divergence = first_nonfinite(first_step, losses, norms)
        if divergence is not None:
            self.divergences.setdefault(member, divergence)

    def read(self, members: Sequence[int]) -> Reading:
        """Ask for each given member's metrics since the last reading. Nothing is forgotten unless all are read."""
        first, lrs, observed, sizes = self.log.first, self.learning_rates, self.observations, self.observer.reading()
        if isinstance(self.log, HostLog):
            numbers = {tag: values.tolist() for tag, values in observed.items()}
            found = self._rows(members, first, lrs, self.log.losses, self.log.norms, numbers, sizes)
            reading = Reading(lambda _: found)
        else:

            def rows(found: list[Tensor]) -> list[Row]:
                entries, *values = found
                numbers = {tag: value.tolist() for tag, value in zip(observed, values, strict=True)}
                return self._rows(members, first, lrs, entries[:, 0].tolist(), entries[:, 1].tolist(), numbers, sizes)

            reading = Reading(rows, [self.log.entries(), *observed.values()])
        if len(members) == self.members:
            self.log.forget()
            self.observations = {}
        return reading

    def _rows(
        self,
        members: Sequence[int],
        first: int,
        lrs: Sequence[float],
        losses: list[list[float]],
        norms: list[list[float]],
        observed: dict[str, list[Any]],
        sizes: Callable[[Numbers, int], Row],
    ) -> list[Row]:
        """Return the members' measurements of steps from `first` on, and enter the divergences among them."""
        rows = []
        for member in members:
            own_losses, own_norms = ([values[member] for values in of_steps] for of_steps in (losses, norms))
            self._enter(member, first, own_losses, own_norms)
            row: Row = {}
            numbers = {tag: values[member] for tag, values in observed.items()}
            if (found := self.divergences.get(member)) is not None:
                applied = max(found.step - first, 0)
                own_losses, own_norms = own_losses[:applied], own_norms[:applied]
                numbers = {}  # its update was none
            if own_losses:
                row = {"train/loss": sum(own_losses) / len(own_losses), "optim/grad_norm": own_norms[-1]}
                limit = self.clip_norms[member]
                if limit is not None:
                    row["optim/clipped"] = sum(norm > limit for norm in own_norms) / len(own_norms)
            row |= {"optim/lr": lrs[member], "optim/effective_lr": effective_lr(self.singles[member], lrs[member])}
            if "number" in numbers:
                row["train/accuracy"] = numbers["correct"] / numbers["number"]
            row |= sizes(numbers, member)
            if self.clip_norms[member] is None:  # the others' clipping has multiplied its gradients by 1
                row.pop("optim/clip_coefficient", None)
            rows.append(row)
        return rows

    @torch.no_grad()
    def evaluate(self, batches: EvalBatches) -> list[dict[str, float]]:
        """Return every member's mean loss and, except for regression, its accuracy over a split."""
        self.model.eval()
        sums: Tensor | None = None
        for batch in batches:
            inputs = self.precision.cast(batch.inputs)
            targets = self.precision.cast(batch.targets)
            targets = targets.expand(self.rows, *targets.shape)
            with self.precision.autocast():
                outputs = self.forward(inputs.expand(self.rows, *inputs.shape))
            parts = [self.objective.totals(outputs, targets), self.objective.count(targets)]
            if self.objective.has_accuracy:
                parts.append(self.objective.accuracy(outputs, targets)[0])
            stacked = torch.stack([part.double() for part in parts], dim=1)
            sums = stacked if sums is None else sums + stacked
        self.model.train()
        assert sums is not None
        found = []
        for loss, count, *correct in sums.tolist()[: self.members]:
            values = {"loss": loss / count}
            found.append(values | ({"accuracy": correct[0] / count} if correct else {}))
        return found

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members, in this order, and forget the others. They are numbered anew, from 0."""
        rows = list(members)
        rows += [rows[-1]] * (FEWEST - len(rows))  # a copy that belongs to nobody
        select_members(self.model, rows)
        self.optimizer.select(torch.tensor(rows))
        self.objective.select(rows)
        self.step_state.seeds = [self.step_state.seeds[row] for row in rows]
        self.rows = len(rows)
        for name in ("singles", "batches", "clip_norms", "learning_rates"):
            setattr(self, name, [getattr(self, name)[member] for member in members])
        self.limits = self._limits()
        self.log.select(rows)
        self.observations = {tag: values[rows] for tag, values in self.observations.items()}
        self.observer.select(rows)
        self.divergences = {}
        if isinstance(self.take, CapturedSteps):
            self.take.forget()

    def _padded(self, values: Sequence[Any]) -> list[Any]:
        """Return one value per row: rows beyond the members are copies of the last one."""
        return [*values, *[values[-1]] * (self.rows - len(values))]

    def _tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes."""
        slots = [slot for slots in self.optimizer.slots.values() for slot in slots.values()]
        return [*self.parameters.values(), *self.model.buffers(), *slots]

    def state(self, member: int) -> Tree:
        """Return what `SingleRun.state` returns after the same steps: a member can go on alone."""
        return {
            "model": {name: value[member] for name, value in self.model.state_dict().items()},
            "optimizer": self.optimizer.member_state(member),
            "scaler": {},
            "unread": {
                "first": self.log.first,
                "losses": [values[member] for values in self.log.losses],
                "norms": [values[member] for values in self.log.norms],
            },
            "remembered": self.observer.state(member),
        }

    def load_state(self, member: int, tree: Tree) -> None:
        """Take what `state` returned, here or in a single run; raises BadInput where names or shapes do not fit.

        All members must be loaded before the next step, and have taken the same number of steps.
        """
        nobodys = range(self.members, self.rows) if member == self.members - 1 else ()  # copies of the last member
        for row in (member, *nobodys):
            own = {name: value[row] for name, value in self.model.state_dict().items()}
            state.check_fits(own, tree["model"])
            for name, value in own.items():
                value.copy_(tree["model"][name])
            self.optimizer.load_member_state(row, tree["optimizer"])
        self.remembered[member] = tree.get("remembered", {})
        if len(self.remembered) == self.members:
            rows = {row: self.remembered[min(row, self.members - 1)] for row in range(self.rows)}
            self.observer.load_state(rows)
            self.remembered = {}
        unread = tree["unread"]
        losses, norms = (
            _with_column(present, member, unread[name], self.rows)
            for name, present in (("losses", self.log.losses), ("norms", self.log.norms))
        )
        self.log.restore(unread["first"], losses, norms)


def _with_column(steps: list[list[float]], member: int, values: Sequence[float], rows: int) -> list[list[float]]:
    """Return [R] of each step with one member's values in place; steps that are not there yet are not known."""
    steps = steps[: len(values)] or [[math.nan] * rows for _ in values]
    return [[*row[:member], float(value), *row[member + 1 :]] for row, value in zip(steps, values, strict=True)]
