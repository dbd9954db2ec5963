"""R runs in one program: they differ in numbers and seeds only, and every operation does the work of all of them.

Members share nothing but the calls. Each has its own weights, data order, dropout masks, learning rate, clipping norm
and non-finite check, and its trajectory is that of its single run up to rounding. Dropping members changes not one bit
of the others, because every operation of the layers of optexp.nn computes a member's numbers in the same way for any
number of members from two on (on CPUs: tests/engine/test_fused_members.py); a program therefore never shrinks to one
row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optexp.datasets.batches import Batch, EvalBatches, TrainBatches
from optexp.engine import state
from optexp.engine.guard import Divergence, first_nonfinite
from optexp.engine.objective import StackedObjective
from optexp.engine.program import Tree
from optexp.engine.runtime import Precision
from optexp.instruments.norms import member_norms
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
    ) -> None:
        """`model` and `optimizer` are stacks of what `singles` (for their settings) and the lists have per member.

        `seeds` has one for each row of the stacks, of which there may be more than members; see `keep`.
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
        device = next(iter(self.parameters.values())).device
        self.reads_freely = device.type == "cpu"  # the host may look at numbers at every step: nothing to wait for
        self.step_state = attach_stacked_state(model, seeds, device)
        if compiled:  # a key is a hash of the step, which torch.compile would take for a constant and compile anew
            self.step_state.streams = torch.compiler.disable(self.step_state.streams)  # type: ignore[method-assign]
        self.divergences: dict[int, Divergence] = {}
        self.learning_rates = [0.0] * len(self.singles)
        # [R] of every step since the first that some member has not read yet; what a member has read is its own count.
        self.losses: list[Any] = []
        self.norms: list[Any] = []
        self.first_step = 1  # the step (from 1) of the first of them
        self.unread = [1] * len(self.singles)  # the first step each member has not read
        self.observations: dict[str, Tensor] = {}
        model.train()

    @property
    def members(self) -> int:
        return len(self.singles)

    def step(self, step: int, learning_rates: Sequence[float], observed: bool) -> list[int]:
        """Take one optimizer step of every member; return those that are known not to have finite values any more.

        On a CPU the host looks at each step. Elsewhere it learns of a divergence when it reads the metrics: until then
        the member goes on with numbers that nobody will ever see, and nothing here waits for the device.
        """
        self.learning_rates = list(learning_rates)
        batch = TrainBatches.stacked(self._padded(self.batches), step)
        for parameter in self.parameters.values():
            parameter.grad = None
        losses = self._backward(batch, step, observed)
        gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
        norms = member_norms(gradients)
        self._clip(gradients, norms)
        before = [value.detach().clone() for value in self.parameters.values()] if observed else []
        self.optimizer.step(self._padded(self.learning_rates))
        if observed:
            self._observe(before)
        if not self.losses:
            self.first_step = step + 1
            self.unread = [step + 1] * self.members
        self.losses.append(losses.tolist() if self.reads_freely else losses)
        self.norms.append(norms.tolist() if self.reads_freely else norms)
        return self._not_finite(step) if self.reads_freely else []

    def _backward(self, batch: Batch, step: int, observed: bool) -> Tensor:
        """Compute losses [R] and gradients; parts of a batch are weighted by the predictions of the whole."""
        count = self.objective.count(batch.targets)
        inputs = batch.inputs.tensor_split(self.accumulate, dim=1)
        targets = batch.targets.tensor_split(self.accumulate, dim=1)
        total = None
        correct = None
        for micro, (part, wanted) in enumerate(zip(inputs, targets, strict=True)):
            self.step_state.step, self.step_state.micro = step, micro
            with self.precision.autocast():
                outputs = self.forward(self.precision.cast(part))
                losses = self.objective.losses(outputs, self.precision.cast(wanted), count)
            losses.sum().backward()  # members share no parameter: the gradient of the sum is that of each
            total = losses.detach() if total is None else total + losses.detach()
            if observed and self.objective.has_accuracy:
                hits = self.objective.accuracy(outputs, wanted)[0]
                correct = hits if correct is None else correct + hits
        if correct is not None:
            # The host divides, as for a single run: float32 would record 0.7 as 0.699999988.
            self.observations["train/accuracy"] = torch.stack([correct, count.clamp(min=1)], dim=1)
        assert total is not None
        return total

    def _clip(self, gradients: list[Tensor], norms: Tensor) -> None:
        """Scale each member's gradients in place by min(1, limit / norm), as torch's clip_grad_norm_ does."""
        if all(limit is None for limit in self.clip_norms):
            return
        limits = [math.inf if limit is None else limit for limit in self._padded(self.clip_norms)]
        factors = (norms.new_tensor(limits) / (norms + 1e-6)).clamp(max=1.0)
        if self.reads_freely and bool((factors == 1).all()):
            return
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *(1,) * (gradient.ndim - 1)))

    def _observe(self, before: list[Tensor]) -> None:
        weights = member_norms(before)
        updates = [value.detach().sub(old) for value, old in zip(self.parameters.values(), before, strict=True)]
        self.observations |= {"optim/update_ratio": member_norms(updates) / weights, "optim/weight_norm": weights}

    def _not_finite(self, step: int) -> list[int]:
        """Enter the members whose loss or gradient of this step is not finite into `divergences`; return them."""
        losses, norms = self.losses[-1], self.norms[-1]
        found = [member for member in range(self.members) if not math.isfinite(losses[member] + norms[member])]
        for member in found:
            self._enter(member, step + 1, [losses[member]], [norms[member]])
        return [member for member in found if member in self.divergences]

    def _enter(self, member: int, first_step: int, losses: list[float], norms: list[float]) -> None:
        divergence = first_nonfinite(first_step, losses, norms)
        if divergence is not None:
            self.divergences.setdefault(member, divergence)

    def read(self, members: Sequence[int]) -> list[dict[str, float]]:
        """Return each given member's metrics since its last reading, and enter divergences. Waits for the device."""
        losses, norms = _numbers(self.losses), _numbers(self.norms)
        observations = {tag: values.tolist() for tag, values in self.observations.items()}
        if "train/accuracy" in observations:
            observations["train/accuracy"] = [right / number for right, number in observations["train/accuracy"]]
        rows = []
        for member in members:
            skipped = self.unread[member] - self.first_step
            own_losses = [values[member] for values in losses[skipped:]]
            own_norms = [values[member] for values in norms[skipped:]]
            self._enter(member, self.unread[member], own_losses, own_norms)
            if (found := self.divergences.get(member)) is not None:
                applied = found.step - self.unread[member]
                own_losses, own_norms = own_losses[:applied], own_norms[:applied]
            rows.append(self._row(member, own_losses, own_norms))
            # The update of a diverged member was none, so it has no size.
            seen = observations.keys() & {"train/accuracy"} if found else observations
            rows[-1] |= {tag: observations[tag][member] for tag in seen}
            self.unread[member] = self.first_step + len(losses)
        self._forget_what_all_have_read()
        return rows

    def _row(self, member: int, losses: list[float], norms: list[float]) -> dict[str, float]:
        row: dict[str, float] = {}
        if losses:
            row = {"train/loss": sum(losses) / len(losses), "optim/grad_norm": norms[-1]}
            limit = self.clip_norms[member]
            if limit is not None:
                row["optim/clipped"] = sum(norm > limit for norm in norms) / len(norms)
        lr = self.learning_rates[member]
        return row | {"optim/lr": lr, "optim/effective_lr": effective_lr(self.singles[member], lr)}

    def _forget_what_all_have_read(self) -> None:
        read = min(self.unread) - self.first_step
        self.losses, self.norms = self.losses[read:], self.norms[read:]
        self.first_step += read
        if not self.losses:
            self.observations = {}

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
        for name in ("singles", "batches", "clip_norms", "learning_rates", "unread"):
            setattr(self, name, [getattr(self, name)[member] for member in members])
        kept = torch.tensor(rows)
        self.losses = [_picked(values, rows, kept) for values in self.losses]
        self.norms = [_picked(values, rows, kept) for values in self.norms]
        self.observations = {tag: values[kept] for tag, values in self.observations.items()}
        self.divergences = {}

    def _padded(self, values: Sequence[Any]) -> list[Any]:
        """Return one value per row: rows beyond the members are copies of the last one."""
        return [*values, *[values[-1]] * (self.rows - len(values))]

    def state(self, member: int) -> Tree:
        """Return what `SingleRun.state` returns after the same steps: a member can go on alone."""
        skipped = self.unread[member] - self.first_step
        return {
            "model": {name: value[member] for name, value in self.model.state_dict().items()},
            "optimizer": self.optimizer.member_state(member),
            "scaler": {},
            "unread": {
                "first": self.unread[member],
                "losses": [values[member] for values in self.losses[skipped:]],
                "norms": [values[member] for values in self.norms[skipped:]],
            },
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
        unread = tree["unread"]
        self.first_step = self.unread[member] = unread["first"]
        count = len(unread["losses"])
        for mine, theirs in ((self.losses, unread["losses"]), (self.norms, unread["norms"])):
            mine[:] = mine[:count] or [[math.nan] * self.rows for _ in range(count)]
            for values, value in zip(mine, theirs, strict=True):
                values[member] = float(value)


def _numbers(steps: list[Any]) -> list[list[float]]:
    """Return [R] of every step as lists; those on the device are read all at once."""
    if not any(isinstance(values, Tensor) for values in steps):
        return steps
    device = steps[-1].device
    read: list[list[float]] = torch.stack([torch.as_tensor(values).to(device) for values in steps]).tolist()
    return read


def _picked(values: Any, rows: list[int], kept: Tensor) -> Any:
    return values[kept] if isinstance(values, Tensor) else [values[row] for row in rows]
