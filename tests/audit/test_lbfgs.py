"""L-BFGS has no rule in optexp.audit: its steps depend on a line search. Without one, it is the two-loop recursion."""

from __future__ import annotations

import numpy as np
import torch

from optexp.audit.checks import deviation
from optexp.audit.problems import Problem, quadratic
from optexp.audit.subject import configured, subject

STEPS, LR, HISTORY = 100, 0.05, 4


def two_loop(problem: Problem) -> np.ndarray:
    """Nocedal & Wright, Numerical Optimization, algorithms 7.4 and 7.5, with a fixed step length."""
    sizes = np.cumsum([start.size for start in problem.starts])[:-1]

    def gradient(flat: np.ndarray) -> np.ndarray:
        parts = [part.reshape(start.shape) for part, start in zip(np.split(flat, sizes), problem.starts, strict=True)]
        return np.concatenate([problem.gradient(i, part, 1).ravel() for i, part in enumerate(parts)])

    w = np.concatenate([start.ravel() for start in problem.starts])
    seen, pairs = [w], []
    g = gradient(w)
    for step in range(STEPS):
        q, weights = g.copy(), []
        for s, y in reversed(pairs):
            weights.append(s @ q / (y @ s))
            q -= weights[-1] * y
        if pairs:
            s, y = pairs[-1]
            q *= (s @ y) / (y @ y)
        for (s, y), weight in zip(pairs, reversed(weights), strict=True):
            q += s * (weight - y @ q / (y @ s))
        length = LR * min(1.0, 1 / np.abs(g).sum()) if step == 0 else LR  # torch's first step
        new = w - length * q
        change = gradient(new) - g
        pairs = [*pairs, (new - w, change)][-HISTORY:]
        w, g = new, g + change
        seen.append(w)
    return np.stack(seen)


def test_lbfgs_is_the_two_loop_recursion() -> None:
    given = {"lr": LR, "max_iter": 1, "history_size": HISTORY}
    found = subject(configured(torch.optim.LBFGS, given), given)
    problem = found.suited(quadratic())
    off = deviation(found.follow(problem, STEPS).weights, two_loop(problem), 1e-9)
    assert off.step is None, off
