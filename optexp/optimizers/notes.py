"""What is worth saying about an optimizer at the beginning of a run, in one line each."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from optexp.optimizers.faults import known_faults


def optimizer_notes(optimizer: Optimizer, clip_norm: float | None = None, full_batch: bool = True) -> list[str]:
    """Return what acts on what, and what is known to be wrong or out of place.

    `clip_norm` is that of the engine; `full_batch` tells whether each step sees all training samples.
    """
    notes = [_decay_note(optimizer), _division_note(optimizer)]
    if clip_norm is not None and isinstance(optimizer, torch.optim.LBFGS):
        notes.append(
            "engine.clip_norm scales each gradient by itself, and L-BFGS reads curvature from their differences"
        )
    if not full_batch and isinstance(optimizer, torch.optim.LBFGS | torch.optim.Rprop):
        notes.append(
            f"{type(optimizer).__name__} compares the gradients of successive steps: dataset.batch_size=full suits it"
        )
    return [note for note in (*notes, *known_faults(optimizer)) if note]


def _decay_note(optimizer: Optimizer) -> str:
    """Say in words what weight decay acts on: it differs between code bases and is rarely written down."""
    decayed = [group for group in optimizer.param_groups if group.get("weight_decay")]
    if not decayed:
        return ""
    exempt = sum(len(group["params"]) for group in optimizer.param_groups if not group.get("weight_decay"))
    decay = f"weight decay {decayed[0]['weight_decay']:g}"
    if not exempt:
        return f"{decay} on all tensors, biases and normalization included"
    number = sum(len(group["params"]) for group in decayed)
    return f"{decay} on {number} tensors; engine.decay_norm_and_bias=false exempts {exempt} others"


def _division_note(optimizer: Optimizer) -> str:
    """Say how many tensors go to each rule of an optimizer that has two."""
    if not all("use_muon" in group for group in optimizer.param_groups):
        return ""
    counts = {True: 0, False: 0}
    for group in optimizer.param_groups:
        counts[bool(group["use_muon"])] += len(group["params"])
    return f"{type(optimizer).__name__} on {counts[True]} hidden matrices, AdamW on {counts[False]} other tensors"
