"""Trains with DistributedDataParallel in two processes; each checks what its Monitor says of clipping."""

from __future__ import annotations

import sys

import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from loops import batches, network, sgd
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from optexp import Monitor


def main(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = network()
    wrapped, optimizer = DistributedDataParallel(model), sgd(model)
    monitor = Monitor(wrapped, optimizer, every=1)
    for inputs, targets in batches(5):
        own = slice(8 * rank, 8 * rank + 8)
        optimizer.zero_grad()
        loss = F.cross_entropy(wrapped(inputs[own]), targets[own])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05).item()  # of the reduced gradient
        optimizer.step()
        monitor.step(loss)
        row = monitor.history().rows[-1]
        assert abs(row["optim/grad_norm"] / norm - 1) < 1e-5
        assert abs(row["optim/clip_coefficient"] * norm / 0.05 - 1) < 1e-4
    dist.barrier()  # none goes before the others are done
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(main, args=(sys.argv[1],), nprocs=2)
