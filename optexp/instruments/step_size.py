"""The effective learning rate."""

from __future__ import annotations

from torch.optim import SGD, Optimizer, RMSprop

from optexp.instruments.ledger import amplification


def effective_lr(optimizer: Optimizer, lr: float) -> float:
    """Return `lr · (1 − dampening) / (1 − momentum)`: the step per unit of a constant gradient, in the long run.

    That is the fixed point of torch's `buf = momentum · buf + (1 − dampening) · d`. torch ignores dampening where
    momentum is 0, and its first step is not dampened. Optimizers whose averages are normalized, as Adam's are, have no
    such amplification: the answer is then `lr` itself.
    """
    dampening, momentum = amplification(optimizer.param_groups[0], isinstance(optimizer, SGD | RMSprop))
    return lr * (dampening * momentum)
